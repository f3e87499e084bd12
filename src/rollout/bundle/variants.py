"""The variants: each writes itself from a source and runs itself. One class a variant, in one table.

The source writes what it can be; running needs what the variant needs. To add one, such as TensorRT, add its
class to ``VARIANTS``.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

# onnxruntime reports to its makers unless told otherwise.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from rollout.bundle.columns import arguments
from rollout.bundle.machine import gpu_name
from rollout.bundle.on_card import OnCard
from rollout.bundle.quiet import quiet
from rollout.bundle.schema import Arrays
from rollout.errors import BundleError
from rollout.heads import Scores

if TYPE_CHECKING:
    from rollout.bundle.source import Source

Precision = Literal["float32", "float16", "bfloat16"]

SHAPES = 20
# Before this version, a sparse tensor may be any file of this machine, or any part of a process's memory.
FIRST_CONFINED = (1, 27)

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Variant(ABC):
    """One executable form of a bundle.

    Args:
        path: Its file.
        threads: Threads that one batch may use.
        device: ``cpu`` or ``cuda``, one of ``devices()``.

    Raises:
        BundleError: If what it needs is not installed or the device cannot be used.
    """

    name: ClassVar[str]
    file: ClassVar[str]
    # Whether it computes in the source's precision, and so may flip no decision at all.
    is_exact: ClassVar[bool] = True
    # Whether it pays on a GPU only, and is packed elsewhere if it is named.
    is_for_gpu: ClassVar[bool] = False
    # Whether a worker may load it.
    is_served: ClassVar[bool] = True
    needs_torch: ClassVar[bool] = False
    # Whether loading it can do more than compute: read or write files, or unpickle.
    can_run_code: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def export(cls, source: Source, calibration: Arrays, folder: Path) -> None:
        """Writes ``folder / file``.

        Args:
            source: What to export.
            calibration: Rows to calibrate a quantization on.
            folder: The bundle; variants further up in the table may be in it already.
        """

    @classmethod
    @abstractmethod
    def devices(cls) -> list[str]:
        """Returns the devices that it can use here: ``cpu``, and ``cuda`` where there is a GPU for it."""

    @abstractmethod
    def __init__(self, path: Path, threads: int = 1, device: str = "cpu") -> None: ...

    @abstractmethod
    def run(self, inputs: Arrays) -> Scores:
        """Scores a batch; on a GPU this takes it there and brings the scores back.

        Args:
            inputs: For each field an array of shape ``(rows, *field.shape)``, or a ragged column.

        Returns:
            ``float32`` of shape ``(rows, task.outputs)``.
        """


def is_confined(version: str) -> bool:
    """Whether an onnxruntime of this version takes any tensor from within the model's folder only."""
    return tuple(map(int, version.split(".")[:2])) >= FIRST_CONFINED


class Onnx(Variant):
    """ONNX in single precision, for onnxruntime; the inputs carry the names of the fields."""

    name = "onnx"
    file = "onnx/model.onnx"
    can_run_code = not is_confined(onnxruntime.__version__)  # builds for GPUs have other names and versions

    @classmethod
    def export(cls, source: Source, calibration: Arrays, folder: Path) -> None:
        with quiet():
            source.write_onnx(folder / cls.file)

    @classmethod
    def devices(cls) -> list[str]:
        available = onnxruntime.get_available_providers()
        return [device for device, provider in PROVIDERS.items() if provider in available]

    def __init__(self, path: Path, threads: int = 1, device: str = "cpu") -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.load_model_format", "ONNX")  # or its name says what it is
        provider = PROVIDERS[device]
        self._session = onnxruntime.InferenceSession(path, options, providers=[provider])
        if provider not in self._session.get_providers():  # it falls back on the processor and says nothing
            raise BundleError(f"onnxruntime cannot use {device} here")
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> Scores:
        scores: Scores = self._session.run(self._outputs, arguments(inputs))[0]
        return scores


class OnnxInt8(Onnx):
    """ONNX with convolutions and matrix products in 8 bits: static, per channel, calibrated.

    Those with constants, such as the waves of a spectrum, stay in single precision: nothing was trained to make
    up for what they would lose.
    """

    name = "onnx-int8"
    file = "onnx-int8/model.onnx"
    is_exact = False

    @classmethod
    def export(cls, source: Source, calibration: Arrays, folder: Path) -> None:
        from rollout.bundle.quantizing import quantize  # noqa: PLC0415  what it imports takes seconds

        if not (folder / Onnx.file).exists():
            raise BundleError("there is no onnx variant to quantize")
        with quiet():
            quantize(folder / Onnx.file, folder / cls.file, calibration, source.constants)


class OnnxFp16(Onnx):
    """ONNX in half precision; what comes in and the scores stay in single precision."""

    name = "onnx-fp16"
    file = "onnx-fp16/model.onnx"
    is_exact = False
    is_for_gpu = True

    @classmethod
    def export(cls, source: Source, calibration: Arrays, folder: Path) -> None:
        import onnx  # noqa: PLC0415  serving does without
        from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

        if not (folder / Onnx.file).exists():
            raise BundleError("there is no onnx variant to convert")
        with quiet():
            graph = onnx.load(folder / Onnx.file)
            onnx.save(convert_float_to_float16(graph, keep_io_types=True), folder / cls.file)


class TorchScript(Variant):
    """Frozen TorchScript, for callers in C++. It can write files: ``torch.from_file`` is an operator of it."""

    name = "torchscript"
    needs_torch = True
    file = "torchscript/model.pt"
    precision: ClassVar[Precision] = "float32"

    @classmethod
    def export(cls, source: Source, calibration: Arrays, folder: Path) -> None:
        with quiet():
            source.write_torchscript(folder / cls.file, cls.precision)

    @classmethod
    def devices(cls) -> list[str]:
        return ["cpu", "cuda"] if gpu_name() else ["cpu"]

    def __init__(self, path: Path, threads: int = 1, device: str = "cpu") -> None:
        self._torch = _import_torch(self.name)
        self._torch.set_num_threads(threads)
        self._device = device
        with quiet():
            # Otherwise what is fused is compiled for the first two sizes of a batch alone, while callers wait.
            self._torch.jit.set_fusion_strategy([("DYNAMIC", SHAPES)])
            self._module = self._load(path)
        self._fed = None if device == "cpu" else OnCard(self._torch, self._module, device)

    def _load(self, path: Path) -> Any:
        return self._torch.jit.load(str(path), map_location=self._device)

    def run(self, inputs: Arrays) -> Scores:
        if self._fed is not None:
            return self._fed.run(list(arguments(inputs).values()))
        with self._torch.inference_mode():
            # A decoded image can be a read-only view of the request, which torch would warn about.
            tensors = map(self._torch.tensor, arguments(inputs).values())
            scores: Scores = self._module(*tensors).numpy()
            return scores


class TorchScriptFp16(TorchScript):
    """TorchScript with convolutions and matrix products in half precision, as PyTorch's autocast chooses them."""

    name = "torchscript-fp16"
    file = "torchscript-fp16/model.pt"
    precision: ClassVar[Precision] = "float16"
    is_exact = False
    is_for_gpu = True


class TorchScriptBf16(TorchScriptFp16):
    """The same in bfloat16: fewer digits, and the range of single precision."""

    name = "torchscript-bf16"
    file = "torchscript-bf16/model.pt"
    precision: ClassVar[Precision] = "bfloat16"


class Export(TorchScript):
    """``torch.export``, what comes after TorchScript. Loading one can unpickle, so no worker does."""

    name = "export"
    file = "export/model.pt2"
    is_served = False

    @classmethod
    def export(cls, source: Source, calibration: Arrays, folder: Path) -> None:
        with quiet():
            source.write_export(folder / cls.file)

    def _load(self, path: Path) -> Any:
        program = self._torch.export.load(path)
        if self._device != "cpu":
            from torch.export.passes import move_to_device_pass  # noqa: PLC0415

            program = move_to_device_pass(program, self._device)
        return program.module()


VARIANTS: dict[str, type[Variant]] = {
    kind.name: kind for kind in (Onnx, OnnxInt8, OnnxFp16, TorchScript, TorchScriptFp16, TorchScriptBf16, Export)
}


def to_pack(names: Collection[str] | None = None) -> list[type[Variant]]:
    """Returns the kinds of variants that are packed, in the order of the table.

    Args:
        names: Those that are named. Without any, all but those that pay on a GPU only, and these where one is.

    Raises:
        BundleError: If there is no kind of a name.
    """
    if unknown := sorted(set(names or ()) - set(VARIANTS)):
        raise BundleError(f"there is no variant {unknown[0]}; there are {', '.join(VARIANTS)}")
    return [
        kind
        for kind in VARIANTS.values()
        if (kind.name in names if names else not kind.is_for_gpu or "cuda" in kind.devices())
    ]


def _import_torch(variant: str) -> Any:
    try:
        import torch  # noqa: PLC0415  a worker that serves ONNX does without torch
    except ImportError:
        raise BundleError(
            f"the {variant} variant needs torch, which is not installed: pip install 'rollout[pack]', or serve "
            "with the image `torch`"
        ) from None
    return torch
