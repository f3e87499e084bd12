"""A bundle that is not what it says is refused, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rollout import RolloutError, Tensor
from rollout.bundle.manifest import (
    Manifest,
    check_hashes,
    hash_files,
    read_manifest,
    require_interchangeable,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"graph")
    write_manifest(
        tmp_path,
        Manifest(
            name="m",
            version="v1",
            inputs={"x": Tensor(shape=(2,), minimum=0)},
            labels=["a", "b"],
            review_threshold=0.5,
            variants={"onnx": "onnx/model.onnx"},
            hashes=hash_files(tmp_path),
            metrics={},
            lineage={"seeds": {"torch": 0}},
            created_at="2026-11-22T10:00:00Z",
        ),
    )
    return tmp_path


def test_reads_what_was_written(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest.tag == "m:v1"
    assert manifest.inputs == {"x": Tensor(shape=(2,), minimum=0)}
    check_hashes(folder, manifest)


def test_a_flipped_byte_is_named(folder: Path) -> None:
    (folder / "onnx" / "model.onnx").write_bytes(b"grapH")
    with pytest.raises(RolloutError, match=r"m:v1 is refused: onnx/model.onnx was changed after packing"):
        check_hashes(folder, read_manifest(folder))


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "onnx" / "model.onnx").unlink()
    with pytest.raises(RolloutError, match=r"onnx/model.onnx is missing"):
        check_hashes(folder, read_manifest(folder))


def test_an_added_file_is_named(folder: Path) -> None:
    (folder / "extra").write_text("x")
    with pytest.raises(RolloutError, match="extra is not in the manifest"):
        check_hashes(folder, read_manifest(folder))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a manifest"),
        ('{"schema_version": 99}', "schema version 99; this Rollout reads 1"),
        ("[]", "not a manifest"),
    ],
)
def test_another_layout_is_refused(folder: Path, text: str, words: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(RolloutError, match=words):
        read_manifest(folder)


def test_no_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(RolloutError, match=r"is not a bundle: it has no manifest.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": {"x": Tensor(shape=(2,))}}, "takes other inputs than m:v1"),
        ({"labels": ["b", "a"]}, "has other labels than m:v1"),
    ],
)
def test_versions_that_a_caller_could_tell_apart_cannot_share_a_split(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    champion = read_manifest(folder)
    require_interchangeable(champion, msgspec.structs.replace(champion, version="v2"))
    with pytest.raises(RolloutError, match=f"m:v2 {words}: they cannot share a split"):
        require_interchangeable(champion, msgspec.structs.replace(champion, version="v2", **changes))


def test_a_person_can_read_it(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    assert json.loads(text)["labels"] == ["a", "b"]
    assert len(text.splitlines()) > 10
