"""Reviewed rows and those of a recipe, as a bundle answers them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.digits import data
from rollout.bundle.manifest import Manifest
from rollout.bundle.mistakes import find_mistakes
from rollout.bundle.store import open_bundle
from rollout.training.answered import evaluation_rows, is_as_packed, reviewed_rows
from tests.conftest import ROOT
from tests.training.taught import row, write


@pytest.fixture
def digits(bundles: str) -> tuple[Path, Manifest]:
    return open_bundle("digits:v2")


def scan(number: int, label: str, **fields: Any) -> dict[str, Any]:
    inputs = {"image": data.load().evaluation.inputs["image"][number].tolist()}
    return row(f"scan-{number}", None, label, model="digits", **fields) | {"inputs": inputs}


def test_reviewed_rows_are_answered_again(digits: tuple[Path, Manifest], tmp_path: Path) -> None:
    targets = data.load().evaluation.targets
    wrong = str((targets[1] + 1) % 10)
    rows = [
        scan(0, str(targets[0])),
        scan(1, wrong),
        scan(2, str(targets[2])) | {"inputs": None},
        scan(3, wrong, reason="suspect_label"),
    ]
    folder, manifest = digits
    file = write(tmp_path / "labels.jsonl", *rows)
    answered, notes = reviewed_rows(folder, manifest, {"labels.jsonl": file})
    assert answered is not None
    assert answered.names == ["id-of-scan-0", "id-of-scan-1"]
    assert "Left out: 1 without inputs." in notes
    assert "not of all traffic" in notes[0]
    found = find_mistakes(answered, manifest.inputs, manifest.task)
    assert [(one.name, one.truth) for one in found.examples.values()] == [("id-of-scan-1", wrong)]


def test_where_none_can_be_looked_at_it_says_so(digits: tuple[Path, Manifest], tmp_path: Path) -> None:
    file = write(tmp_path / "labels.jsonl", scan(3, "1", reason="suspect_label"))
    answered, notes = reviewed_rows(*digits, {"labels.jsonl": file})
    assert answered is None
    assert notes[-1] == "No row of labels.jsonl can be looked at."
    assert "`rollout review export digits" in reviewed_rows(*digits, {}).notes[0]


def test_the_evaluation_part_is_loaded_again(digits: tuple[Path, Manifest], tmp_path: Path) -> None:
    folder, manifest = digits
    answered, notes = evaluation_rows(folder, manifest, ROOT / "models" / "digits")
    assert answered is not None
    assert notes == []
    rate = find_mistakes(answered, manifest.inputs, manifest.task).rate
    assert rate == pytest.approx(1 - manifest.metrics["accuracy"])
    lacking = evaluation_rows(folder, manifest, tmp_path)
    assert lacking.answered is None
    assert "there is no recipe in" in lacking.notes[0]


def test_other_rows_than_packed_are_noticed(digits: tuple[Path, Manifest]) -> None:
    manifest, dataset = digits[1], data.load()
    assert is_as_packed(manifest, dataset)
    changed = dataset._replace(evaluation=dataset.calibration)
    assert not is_as_packed(manifest, changed)
    learnt = msgspec.structs.replace(manifest, lineage={"data": {"labels": {}, "rows": [2000, 359, 360]}})
    assert is_as_packed(learnt, dataset)
    assert not is_as_packed(learnt, changed)
