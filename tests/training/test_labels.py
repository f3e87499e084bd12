"""Reviewed labels become training rows: each once, with its latest label, and none that is measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from rollout import (
    Category,
    Dataset,
    Image,
    Labelled,
    Number,
    Recipe,
    Regression,
    RolloutError,
    Table,
    Text,
    Time,
    Version,
)
from rollout.bundle.fields import Field
from rollout.bundle.schema import Arrays
from rollout.heads import Head
from rollout.training.build import describe_version
from rollout.training.labels import add_labels, in_words, name_exports
from tests.images import png
from tests.training.taught import NONE, RECIPE, YES_OR_NO, cursors, load, retraction, row, train, write


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "labels.jsonl"


def taught(*files: Path, recipe: Recipe = RECIPE, dataset: Dataset | None = None) -> Dataset:
    return add_labels(dataset or recipe.load(), recipe, "taught", name_exports(files))


def added(dataset: Dataset) -> list[tuple[list[float], int]]:
    """What the training part got beyond the 60 rows of the recipe."""
    inputs, targets = dataset.train.inputs["x"][60:], dataset.train.targets[60:]
    return list(zip(inputs.tolist(), targets.tolist(), strict=True))


def left_out(dataset: Dataset) -> dict[str, int]:
    assert dataset.labels is not None
    return {why: rows for why, rows in dataset.labels.left_out.items() if rows}


class TestRows:
    def test_reviewed_rows_follow_the_training_part_and_the_other_parts_stay(self, file: Path) -> None:
        dataset, plain = taught(write(file, row("a"), row("b", [-1, 0.5], "no"))), load()
        assert added(dataset) == [([0.5, 0.25], 1), ([-1.0, 0.5], 0)]
        assert np.array_equal(dataset.train.inputs["x"][:60], plain.train.inputs["x"])
        assert np.array_equal(dataset.train.targets[:60], plain.train.targets)
        assert dataset.train.inputs["x"].dtype == np.float32
        assert dataset.train.targets.dtype == plain.train.targets.dtype
        for before, after in zip(plain[1:3], dataset[1:3], strict=True):
            assert isinstance(before, Labelled)
            assert isinstance(after, Labelled)
            assert np.array_equal(before.inputs["x"], after.inputs["x"])
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert dataset.labels is not None
        assert (dataset.labels.files, dataset.labels.used) == ({"labels.jsonl": digest}, 2)
        assert dataset.labels.left_out == NONE

    def test_the_latest_label_of_a_prediction_counts(self, file: Path) -> None:
        first = row("a", label="no")
        dataset = taught(write(file, first, row("b", [1, 1]), first | {"label": "yes", "cursor": next(cursors)}))
        assert added(dataset) == [([0.5, 0.25], 1), ([1.0, 1.0], 1)]
        assert left_out(dataset) == {"repeated": 1}

    def test_the_order_of_the_files_does_not_matter(self, tmp_path: Path) -> None:
        first, other = row("a", label="no"), row("b", [1, 1])
        old = write(tmp_path / "old.jsonl", first, other)
        new = write(tmp_path / "new.jsonl", first | {"label": "yes", "cursor": next(cursors)}, retraction(other))
        for files in ((old, new), (new, old)):
            dataset = taught(*files)
            assert added(dataset) == [([0.5, 0.25], 1)]
            assert left_out(dataset) == {"repeated": 2, "retracted": 1}

    def test_the_same_client_and_key_count_once_whatever_their_id(self, file: Path) -> None:
        dataset = taught(write(file, row("a", label="no"), row("a", id="another", label="yes")))
        assert added(dataset) == [([0.5, 0.25], 1)]
        assert left_out(dataset) == {"repeated": 1}

    def test_rows_without_a_key_are_told_apart_by_their_id(self, file: Path) -> None:
        one, other = (row(name, [number, 1]) | {"key": None} for number, name in enumerate("ab"))
        dataset = taught(write(file, one, other, one))
        assert added(dataset) == [([0.0, 1.0], 1), ([1.0, 1.0], 1)]
        assert left_out(dataset) == {"repeated": 1}

    def test_the_same_key_of_another_client_is_another_row(self, file: Path) -> None:
        dataset = taught(write(file, row("a"), row("a", id="another", client_id="c-43")))
        assert len(added(dataset)) == 2

    def test_a_retracted_label_is_not_learnt(self, file: Path) -> None:
        first = row("a")
        dataset = taught(write(file, first, row("b", [1, 1]), retraction(first)))
        assert added(dataset) == [([1.0, 1.0], 1)]
        assert left_out(dataset) == {"repeated": 1, "retracted": 1}

    def test_a_label_given_again_after_its_retraction_is_learnt(self, file: Path) -> None:
        first = row("a")
        dataset = taught(write(file, first, retraction(first), first | {"cursor": next(cursors)}))
        assert added(dataset) == [([0.5, 0.25], 1)]
        assert left_out(dataset) == {"repeated": 2}

    def test_linked_rows_count_once_and_follow_their_item(self, file: Path) -> None:
        item, gone = row("a"), row("b", [1, 1])
        links = [
            row(f"link-{number}", inputs, linked_to=item["id"])
            for number, inputs in enumerate([(0.5, 0.25), None])
        ]
        dataset = taught(
            write(
                file,
                links[0],
                item,
                links[1],
                gone,
                row("link-3", [1, 1], linked_to=gone["id"]),
                retraction(gone),
            )
        )
        assert added(dataset) == [([0.5, 0.25], 1)]
        assert left_out(dataset) == {"repeated": 1, "linked": 3, "retracted": 1}

    def test_a_link_stands_in_for_an_item_that_no_file_has(self, file: Path) -> None:
        dataset = taught(write(file, row("link", linked_to="elsewhere"), row("other", linked_to="elsewhere")))
        assert added(dataset) == [([0.5, 0.25], 1)]
        assert left_out(dataset) == {"linked": 1}

    def test_rows_whose_inputs_are_gone_or_were_never_written_are_counted(self, file: Path) -> None:
        dataset = taught(write(file, row("a"), row("b", None), row("c", inputs={}), row("d", inputs={"x": None})))
        assert len(added(dataset)) == 1
        assert left_out(dataset) == {"without_inputs": 3}

    def test_what_calibration_or_evaluation_has_is_not_learnt(self, file: Path) -> None:
        dataset = load()
        rows = [
            row(name, part.inputs["x"][7].tolist(), "no")
            for name, part in (("t", dataset.train), ("c", dataset.calibration), ("e", dataset.evaluation))
        ]
        taught_on = taught(write(file, *rows))
        assert added(taught_on) == [(dataset.train.inputs["x"][7].tolist(), 0)]
        assert left_out(taught_on) == {"held_out": 2}

    def test_a_version_that_needs_none_learns_from_none(self, file: Path) -> None:
        dataset = load()
        assert add_labels(dataset, RECIPE, "plain", {"labels.jsonl": write(file, row("a"))}) is dataset
        assert "labels" not in describe_version(RECIPE, "plain", dataset)["data"]


FIELDS: Mapping[str, Field] = {
    "scan": Image(height=4, width=4),
    "text": Text(max_bytes=12),
    "airport": Category(values=("EWR", "JFK")),
    "at": Time(),
    "weight": Number(),
}
SCAN = np.arange(0, 160, 10).astype(np.uint8).reshape(4, 4)
ARRAYS: Arrays = {
    "scan": SCAN,
    "text": FIELDS["text"].encode(["grün"])[0],
    "airport": FIELDS["airport"].encode(["JFK"])[0],
    "at": np.array(86_400),
    "weight": np.array(3.5, np.float32),
}
SENT = {"text": "grün", "airport": "JFK", "at": "1970-01-02T01:00:00+01:00", "weight": 3.5}


def of_all_kinds(task: Head, targets: Any) -> tuple[Recipe, Dataset]:
    """A recipe with one row in each part; those of calibration and evaluation differ in weight."""

    def one(weight: float) -> Labelled:
        row = {**ARRAYS, "weight": np.array(weight, np.float32)}
        return Labelled({name: array[None] for name, array in row.items()}, targets)

    version = Version(train, task, {}, needs_labels=True)
    dataset = Dataset(one(0), one(1), one(2), "made here", "one each")
    return Recipe(name="sums", inputs=FIELDS, load=lambda: dataset, versions={"taught": version}), dataset


class TestFields:
    @pytest.mark.parametrize("scan", [SCAN.tolist(), png(SCAN)], ids=["nested lists", "PNG"])
    def test_inputs_are_read_as_the_caller_sent_them(self, file: Path, scan: Any) -> None:
        recipe, _ = of_all_kinds(YES_OR_NO, np.array([0]))
        dataset = taught(write(file, row("a", inputs={"scan": scan, **SENT})), recipe=recipe)
        for name, array in ARRAYS.items():
            got = dataset.train.inputs[name]
            assert got.shape == (2, *array.shape)
            assert got.dtype == FIELDS[name].dtype
            assert np.array_equal(got[1], array)

    def test_what_is_missing_is_learnt_from_and_what_is_redacted_is_not(self, file: Path) -> None:
        recipe, _ = of_all_kinds(YES_OR_NO, np.array([0]))
        fields = {**FIELDS, "weight": Number(optional=True), "row": Table(columns={"age": Number(optional=True)})}
        ages = {"row": np.zeros((1, 1), np.float32)}
        parts = [Labelled({**part.inputs, **ages}, part.targets) for part in recipe.load()[:3]]
        dataset = Dataset(parts[0], parts[1], parts[2], "made here", "one each")
        recipe = msgspec.structs.replace(recipe, inputs=fields, load=lambda: dataset)
        sent = {"scan": SCAN.tolist(), **SENT, "row": {"age": None}}
        without = {name: value for name, value in sent.items() if name != "weight"}
        rows = [
            row("a", inputs=without),
            row("b", inputs={**sent, "row": {}, "weight": 7}),
            row("c", inputs={**sent, "weight": None}),
            row("d", inputs={**without, "row": None}),
        ]
        taught_by = taught(write(file, *rows), recipe=recipe)
        assert left_out(taught_by) == {"without_inputs": 2}
        inputs = taught_by.train.inputs
        assert np.array_equal(inputs["weight"], [0, np.nan, 7], equal_nan=True)
        assert np.array_equal(inputs["row"].ravel(), [0, np.nan, np.nan], equal_nan=True)

    def test_a_file_of_an_image_is_held_out_as_its_pixels_are(self, file: Path) -> None:
        recipe, _ = of_all_kinds(YES_OR_NO, np.array([0]))
        sent = {"scan": png(SCAN), **SENT}
        dataset = taught(
            write(file, row("a", inputs=sent), row("b", inputs={**sent, "weight": 2})), recipe=recipe
        )
        assert left_out(dataset) == {"held_out": 1}

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
    def test_a_regression_takes_values_and_loses_no_decimal(self, file: Path, dtype: Any) -> None:
        recipe, _ = of_all_kinds(Regression(), np.array([7], dtype))
        rows = row("a", inputs={"scan": SCAN.tolist(), **SENT}, label=None, value=2.5)
        dataset = taught(write(file, rows), recipe=recipe)
        assert dataset.train.targets.tolist() == [7, 2.5]
        assert dataset.train.targets.dtype == (np.float64 if dtype == np.int64 else dtype)

    def test_a_regression_needs_values(self, file: Path) -> None:
        recipe, _ = of_all_kinds(Regression(), np.array([7.0]))
        write(file, row("a", inputs={"scan": SCAN.tolist(), **SENT}))
        with pytest.raises(
            RolloutError, match=r"^labels\.jsonl, line 1: /label is not .*: send value; /value is required"
        ):
            taught(file, recipe=recipe)


class TestFaults:
    @pytest.mark.parametrize(
        ("bad", "said"),
        [
            (row("b", [1, 2, 3]), "labels.jsonl, line 3: /inputs/x: "),
            (row("b", ["1", 2]), "labels.jsonl, line 3: /inputs/x/0: "),
            (row("b", inputs={"x": [1, 2], "y": 3}), "labels.jsonl, line 3: /inputs/y: is not an input"),
            (row("b", label="maybe"), "labels.jsonl, line 3: /label must be one of no, yes"),
            (
                row("b", label=None, value=3.5),
                "labels.jsonl, line 3: /value is not what this model answers with: send label; /label is required",
            ),
            (row("b", model="digits"), "labels.jsonl, line 3 is a row of digits, not of sums"),
            (row("b", retracted="yes"), "labels.jsonl, line 3 is no row of an export"),
            ({"x": [1, 2], "label": "yes"}, "labels.jsonl, line 3 is no row of an export"),
        ],
    )
    def test_a_bad_row_is_named_by_its_line(self, file: Path, bad: Mapping[str, Any], said: str) -> None:
        write(file, row("a"))
        file.write_bytes(file.read_bytes() + b"\n" + msgspec.json.encode(bad))
        with pytest.raises(RolloutError) as raised:
            taught(file)
        assert raised.value.detail.startswith(said)

    @pytest.mark.parametrize("content", [b"PAR1\x00\x15\x04", b'{"id": "\xff"}', b'{"id": '])
    def test_what_is_no_json_is_said(self, file: Path, content: bytes) -> None:
        file.write_bytes(content)
        with pytest.raises(RolloutError, match=r"^labels\.jsonl, line 1 is no row of an export .* in JSON: "):
            taught(file)

    def test_a_version_that_needs_labels_is_not_trained_without(self) -> None:
        with pytest.raises(RolloutError, match=r"sums:taught learns from reviewed labels: give .* --labels FILE"):
            taught()

    def test_labels_of_which_none_is_left_are_none(self, file: Path) -> None:
        first = row("a")
        write(file, first, retraction(first), row("b", None))
        with pytest.raises(
            RolloutError, match=r"no row of labels\.jsonl can be used: 0 used; left out: 1 repeated, 1"
        ):
            taught(file)
        with pytest.raises(RolloutError, match=r"no row of labels\.jsonl can be used: 0 used$"):
            taught(write(file))

    def test_a_file_that_is_not_there_is_said(self, file: Path) -> None:
        with pytest.raises(RolloutError, match=f"the labels in {file} cannot be read: No such file"):
            taught(file)

    def test_two_files_of_one_name_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RolloutError, match=r"two files of labels are called a\.jsonl: rename one"):
            name_exports([tmp_path / "a.jsonl", tmp_path / "more" / "a.jsonl"])


def test_what_was_used_is_said_in_words(file: Path) -> None:
    labels = taught(write(file, row("a"), row("b", None), row("c", linked_to="id-of-a"))).labels
    assert labels is not None
    assert in_words(labels) == "1 used; left out: 1 linked, 1 without inputs"
