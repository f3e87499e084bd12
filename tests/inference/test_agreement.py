"""All workers of a replica serve the same variant."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rollout.config import Settings
from rollout.inference.agreement import agree_on, forget_choices
from rollout.inference.version import LoadedVersion

BOTH = ("onnx", "onnx-int8")


def test_the_first_decides(tmp_path: Path) -> None:
    assert agree_on(tmp_path, "a" * 64, BOTH, "onnx-int8") == "onnx-int8"
    assert agree_on(tmp_path, "a" * 64, BOTH, "onnx") == "onnx-int8"
    assert agree_on(tmp_path, "b" * 64, BOTH, "onnx") == "onnx", "of this bundle"
    assert agree_on(tmp_path, "a" * 64, ("onnx",), "onnx") == "onnx", "among these"
    forget_choices(tmp_path)
    assert agree_on(tmp_path, "a" * 64, BOTH, "onnx") == "onnx"


def test_nobody_reads_half_a_decision(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for bundle in range(50):
            digest = f"{bundle:064}"
            found = list(pool.map(lambda name, of=digest: agree_on(tmp_path / of, of, BOTH, name), BOTH * 4))
            assert len(set(found)) == 1


def test_a_worker_serves_what_was_decided(bundles: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    first = LoadedVersion("digits", "v2", settings)
    (decision,) = (tmp_path / "variants").iterdir()
    other = next(name for name in BOTH if name != first.variant)
    decision.write_text(other)
    assert LoadedVersion("digits", "v2", settings).variant == other
