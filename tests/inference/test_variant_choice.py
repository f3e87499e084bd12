"""All workers of a replica serve the same variant."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rollout.bundle import verify
from rollout.bundle.manifest import Manifest
from rollout.bundle.variants import Variant
from rollout.config import Settings
from rollout.inference.variant_choice import forget_choices, share_choice
from rollout.inference.version import LoadedVersion

BOTH = ("onnx", "onnx-int8")


def test_the_first_decides(tmp_path: Path) -> None:
    assert share_choice(tmp_path, "a" * 64, BOTH, "onnx-int8") == "onnx-int8"
    assert share_choice(tmp_path, "a" * 64, BOTH, "onnx") == "onnx-int8"
    assert share_choice(tmp_path, "b" * 64, BOTH, "onnx") == "onnx", "of this bundle"
    assert share_choice(tmp_path, "a" * 64, ("onnx",), "onnx") == "onnx", "among these"
    forget_choices(tmp_path)
    assert share_choice(tmp_path, "a" * 64, BOTH, "onnx") == "onnx"


def test_nobody_reads_half_a_decision(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for bundle in range(50):
            digest = f"{bundle:064}"
            found = list(pool.map(lambda name, of=digest: share_choice(tmp_path / of, of, BOTH, name), BOTH * 4))
            assert len(set(found)) == 1


def test_where_nothing_can_be_written_each_serves_its_fastest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "variants").write_text("no folder")
    assert share_choice(tmp_path, "a" * 64, BOTH, "onnx-int8") == "onnx-int8"
    assert "the workers may serve different variants" in caplog.text


def test_a_variant_that_cannot_run_here_leaves_the_others(
    bundles: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = verify.load_variant

    def spoil(folder: Path, manifest: Manifest, name: str, *options: Any, **more: Any) -> Variant:
        variant = load(folder, manifest, name, *options, **more)
        if name == "onnx":
            monkeypatch.setattr(variant, "run", lambda _: 1 / 0)
        return variant

    monkeypatch.setattr(verify, "load_variant", spoil)
    loaded = LoadedVersion("digits", "v2", Settings(home=tmp_path))
    assert loaded.variant == "onnx-int8"
    assert loaded.choice.refused == {"onnx": "digits:v2: the onnx variant cannot be run here: division by zero"}


def test_a_worker_serves_what_was_decided(bundles: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    first = LoadedVersion("digits", "v2", settings)
    (decision,) = (tmp_path / "variants").iterdir()
    other = next(name for name in BOTH if name != first.variant)
    decision.write_text(other)
    assert LoadedVersion("digits", "v2", settings).variant == other
