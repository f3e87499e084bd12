"""A worker loads of a large network the fastest variant alone, where the manifest knows which that is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from rollout.bundle import effort, verify
from rollout.bundle.golden import read_golden
from rollout.bundle.machine import cpu_name
from rollout.bundle.manifest import Manifest
from rollout.bundle.store import open_bundle
from rollout.bundle.variants import VARIANTS, OnnxInt8, Variant
from rollout.bundle.verify import Choice, choose_variant, servable
from rollout.errors import BundleError
from tests.bundle.two import Linear, pack_two


@pytest.fixture(scope="module")
def costly() -> tuple[Path, Manifest]:
    """A bundle of which every row counts as a costly one."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(effort, "COSTLY", 0.0)
        pack_two("known-speed", Linear().eval())
    return open_bundle("two:known-speed")


def with_seconds(manifest: Manifest, seconds: Mapping[str, float], timed_on: str = "") -> Manifest:
    variants = {
        name: msgspec.structs.replace(one, seconds=seconds.get(name, 0.0))
        for name, one in manifest.variants.items()
    }
    return msgspec.structs.replace(manifest, variants=variants, timed_on=timed_on or cpu_name())


def chosen(folder: Path, manifest: Manifest, loaded: list[str], monkeypatch: pytest.MonkeyPatch) -> Choice:
    """Chooses, and notes what is loaded on the way."""
    load = verify.load_variant

    def noted(folder: Path, manifest: Manifest, name: str, *rest: object, **more: bool) -> Variant:
        loaded.append(name)
        return load(folder, manifest, name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(verify, "load_variant", noted)
    return choose_variant(folder, manifest, read_golden(folder), servable(manifest))


def test_the_manifest_of_a_costly_one_says_how_fast_each_is_that_serves(costly: tuple[Path, Manifest]) -> None:
    _, manifest = costly
    assert manifest.timed_on == cpu_name()
    assert {name for name, one in manifest.variants.items() if one.seconds} == set(servable(manifest))
    cheap = pack_two("unknown-speed", Linear().eval())
    assert cheap.timed_on == ""
    assert not any(one.seconds for one in cheap.variants.values())


@pytest.mark.parametrize(
    ("seconds", "name"),
    [({"onnx": 1.0, "onnx-int8": 0.5}, "onnx-int8"), ({"onnx": 1.0, "onnx-int8": 0.95}, "onnx")],
)
def test_the_fastest_is_loaded_alone(
    costly: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float], name: str
) -> None:
    loaded: list[str] = []
    choice = chosen(costly[0], with_seconds(costly[1], seconds), loaded, monkeypatch)
    assert loaded == [name] == [choice.name]
    assert choice.seconds == seconds


@pytest.mark.parametrize(
    ("seconds", "timed_on"),
    [({"onnx": 1.0, "onnx-int8": 0.5}, "another processor"), ({"onnx": 1.0}, "")],
    ids=["elsewhere", "not of all"],
)
def test_what_is_not_known_is_measured(
    costly: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float], timed_on: str
) -> None:
    loaded: list[str] = []
    choice = chosen(costly[0], with_seconds(costly[1], seconds, timed_on), loaded, monkeypatch)
    assert loaded == ["onnx", "onnx-int8"]
    assert 0 < choice.seconds["onnx"] < 0.5


def test_one_that_does_not_pass_makes_room_for_the_next(
    costly: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(OnnxInt8):
        def __init__(self, path: Path, threads: int = 1, device: str = "cpu") -> None:
            raise BundleError("no")

    monkeypatch.setitem(VARIANTS, "onnx-int8", Broken)
    loaded: list[str] = []
    manifest = with_seconds(costly[1], {"onnx": 1.0, "onnx-int8": 0.5})
    choice = chosen(costly[0], manifest, loaded, monkeypatch)
    assert loaded == ["onnx-int8", "onnx"]
    assert choice.name == "onnx"
    assert choice.refused == {"onnx-int8": "no"}
