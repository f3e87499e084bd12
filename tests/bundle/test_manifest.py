"""A bundle that is not what it says is refused, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rollout import Classification, Regression, RolloutError, Tensor
from rollout.bundle.manifest import (
    LeftOut,
    Manifest,
    PackedVariant,
    check_hashes,
    digest,
    hash_files,
    read_manifest,
    require_interchangeable,
    write_manifest,
)
from rollout.bundle.parity import Parity
from tests.cli.test_report import GATE

EXACT = Parity(rows=9, largest_difference=1e-6, answers_flipped=0, reviews_flipped=0)


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
            task=Classification(labels=["a", "b"], review_threshold=0.5),
            variants={"onnx": PackedVariant(file="onnx/model.onnx", parity={"golden": EXACT}, is_exact=True)},
            left_out={"onnx-int8": LeftOut(why="it is coarse", worst=["golden row 3: a at 0.9 became b at 0.8"])},
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
    assert manifest.task == Classification(labels=["a", "b"], review_threshold=0.5)
    assert manifest.variants["onnx"].parity["golden"].is_exact
    assert manifest.left_out["onnx-int8"].why == "it is coarse"
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


def test_a_signature_may_be_added_later(folder: Path) -> None:
    (folder / "manifest.sig").write_text("x")
    check_hashes(folder, read_manifest(folder))


def test_versions_may_differ_in_threshold_and_temperature(folder: Path) -> None:
    champion = read_manifest(folder)
    other = Classification(labels=["a", "b"], review_threshold=0.9, temperature=2)
    require_interchangeable(champion, msgspec.structs.replace(champion, task=other))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a manifest"),
        ('{"schema_version": 99}', "schema version 99; this Rollout reads 2: .*pack it again"),
        ('{"schema_version": 1, "labels": []}', "schema version 1; this Rollout reads 2: .*pack it again"),
        ('{"schema_version": 2}', "not a manifest"),
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
        ({"task": Classification(labels=["b", "c"])}, "has other labels than m:v1"),
        ({"task": Regression()}, "has other labels than m:v1"),
    ],
)
def test_versions_that_a_caller_could_tell_apart_cannot_share_a_split(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    champion = read_manifest(folder)
    require_interchangeable(champion, msgspec.structs.replace(champion, version="v2"))
    with pytest.raises(RolloutError, match=f"m:v2 {words}: they cannot share a split"):
        require_interchangeable(champion, msgspec.structs.replace(champion, version="v2", **changes))


def test_labels_may_have_another_order_or_a_declared_meaning(folder: Path) -> None:
    champion = read_manifest(folder)
    reordered = msgspec.structs.replace(champion, version="v2", task=Classification(labels=["b", "a"]))
    require_interchangeable(champion, reordered)
    renamed = msgspec.structs.replace(champion, version="v2", task=Classification(labels=["A", "b", "a"]))
    require_interchangeable(champion, renamed, {"v2": {"A": "a"}})
    with pytest.raises(RolloutError, match="m:v2 has no label 'B'"):
        require_interchangeable(champion, renamed, {"v2": {"B": "b"}})


def test_a_gate_makes_no_other_bundle(folder: Path) -> None:
    manifest = read_manifest(folder)
    gated = msgspec.structs.replace(manifest, gate=GATE)
    assert digest(gated) == digest(manifest)
    assert digest(msgspec.structs.replace(manifest, hashes={})) != digest(manifest)


def test_a_person_can_read_it(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    assert json.loads(text)["task"]["labels"] == ["a", "b"]
    assert len(text.splitlines()) > 10
