"""Which devices a variant can use, and what a bundle remembers of the machine that packed it."""

from __future__ import annotations

import sys

import onnxruntime
import pytest
import torch

from rollout.bundle.lineage import describe_surroundings
from rollout.bundle.machine import cpu_name, gpu_name
from rollout.bundle.variants import VARIANTS, to_pack

ONNX = ("onnx", "onnx-int8", "onnx-fp16")
TORCH = ("torchscript", "torchscript-fp16", "torchscript-bf16", "export")


def devices() -> dict[str, list[str]]:
    return {name: kind.devices() for name, kind in VARIANTS.items()}


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])


def has_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")


def test_each_variant_asks_what_runs_it(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices() == {name: ["cpu"] for name in VARIANTS}
    assert [kind.name for kind in to_pack()] == ["onnx", "onnx-int8", "torchscript", "export"]
    has_gpu(monkeypatch)
    assert devices() == {name: ["cpu"] for name in ONNX} | {name: ["cpu", "cuda"] for name in TORCH}
    providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    assert devices() == {name: ["cpu", "cuda"] for name in VARIANTS}
    assert [kind.name for kind in to_pack()] == list(VARIANTS)


def test_without_torch_there_is_no_gpu_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert gpu_name() is None
    assert VARIANTS["torchscript"].devices() == ["cpu"]


def test_the_lineage_names_the_device(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu_name()
    assert describe_surroundings()["environment"]["device"] == "cpu"
    has_gpu(monkeypatch)
    assert describe_surroundings()["environment"]["device"] == "NVIDIA H100"
