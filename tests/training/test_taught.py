"""A version that learns from reviewed labels: its lineage, its reproduction, its gate."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest
import torch

from rollout import Labelled, RolloutError
from rollout.bundle.store import bundle_exists, open_bundle
from rollout.training.build import build_version, describe_version
from rollout.training.gate import run_gate
from rollout.training.labels import find_exports, name_exports
from rollout.training.reproduction import reproduce_version
from tests.training.taught import NONE, RECIPE, load, row, train, write


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an export that ``sums:taught`` is built from."""
    folder = tmp_path_factory.mktemp("exports")
    file = write(folder / "labels.jsonl", *(row(str(each), [each, 1]) for each in range(9)), row("gone", None))
    if not bundle_exists("sums:taught"):
        build_version(RECIPE, "taught", lambda _: None, {file.name: file})
    return folder


def test_the_lineage_says_what_was_learnt(exports: Path) -> None:
    data = open_bundle("sums:taught")[1].lineage["data"]
    digest = hashlib.sha256((exports / "labels.jsonl").read_bytes()).hexdigest()
    assert data["labels"] == {
        "files": {"labels.jsonl": digest},
        "used": 9,
        "corrected": 0,
        "left_out": NONE | {"without_inputs": 1},
    }
    assert data["rows"] == [69, 500, 300]
    assert data["sha256"] != describe_version(RECIPE, "plain", load())["data"]["sha256"]


def test_it_is_reproduced_from_the_same_file_whatever_its_name(exports: Path, tmp_path: Path) -> None:
    folder, manifest = open_bundle("sums:taught")
    renamed = tmp_path / "renamed.jsonl"
    renamed.write_bytes((exports / "labels.jsonl").read_bytes())
    found = find_exports(manifest, [write(tmp_path / "other.jsonl", row("a")), renamed])
    result = reproduce_version(RECIPE, folder, manifest, seeds=2, labels=found)
    assert result.outcome == "identical"
    assert not any(result.changes.values())


def test_the_file_that_it_needs_is_named(exports: Path, tmp_path: Path) -> None:
    manifest = open_bundle("sums:taught")[1]
    digest = manifest.lineage["data"]["labels"]["files"]["labels.jsonl"]
    other = write(tmp_path / "labels.jsonl", row("a"))
    for files in ([], [other]):
        with pytest.raises(RolloutError) as raised:
            find_exports(manifest, files)
        assert raised.value.detail == (
            f"sums:taught learnt from labels in labels.jsonl (SHA-256 {digest}): give that with --labels"
        )


def test_a_gate_trains_each_version_on_its_own_labels(tmp_path: Path) -> None:
    learnt: list[int] = []

    def watched(part: Labelled, seed: int) -> torch.nn.Module:
        learnt.append(len(part.targets))
        return train(part, seed)

    versions = {name: version._replace(train=watched) for name, version in RECIPE.versions.items()}
    recipe = msgspec.structs.replace(RECIPE, versions=versions)
    one, two = write(tmp_path / "1.jsonl", row("a")), write(tmp_path / "2.jsonl", row("a"), row("b", [1, 1]))
    labels = {"taught": name_exports([one]), "taught again": name_exports([two])}
    run_gate(recipe, "taught", "plain", seeds=1, labels=labels)
    run_gate(recipe, "taught again", "taught", seeds=1, labels=labels)
    assert learnt == [61, 60, 62, 61]
    with pytest.raises(RolloutError, match="sums:taught learns from reviewed labels"):
        run_gate(recipe, "taught", "plain", seeds=1)
