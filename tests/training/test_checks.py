"""Each check finds its own fault, and clean data give no finding."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rollout import RolloutError
from rollout.bundle.evidence import Finding
from rollout.bundle.fields import Field, Tensor
from rollout.bundle.image import Image
from rollout.bundle.numbers import Number, Time
from rollout.bundle.schema import Arrays, Labelled
from rollout.bundle.texts import Category, Text
from rollout.heads import Classification, Regression
from rollout.training.checks import check_data
from rollout.training.recipe import Dataset

TASK = Classification(labels=["no", "yes"])
INPUTS: Mapping[str, Field] = {
    "point": Tensor(shape=(2,)),
    "word": Text(max_bytes=12),
    "airport": Category(values=("EWR", "JFK")),
    "weight": Number(),
    "at": Time(),
}
WORDS = Text(max_bytes=12), Category(values=("EWR", "JFK"))


def rows_of(count: int, seed: int) -> Labelled:
    """Rows of which point and word tell the class, and the other fields tell nothing."""
    generator = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    words, airports = WORDS
    return Labelled(
        {
            "point": (generator.normal(size=(count, 2)) + 4 * targets[:, None]).astype(np.float32),
            "word": words.encode([("awful", "lovely")[target] for target in targets]),
            "airport": airports.encode(generator.choice(["EWR", "JFK"], count).tolist()),
            "weight": generator.normal(size=count).astype(np.float32),
            "at": generator.integers(0, 2**30, count),
        },
        targets,
    )


@pytest.fixture
def clean() -> Dataset:
    return Dataset(rows_of(200, 0), rows_of(40, 1), rows_of(40, 2), source="made here", split="by seed")


def in_three(parts: list[Labelled]) -> Dataset:
    train, calibration, evaluation = parts
    return Dataset(train, calibration, evaluation, source="made here", split="by seed")


def the_only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def with_inputs(part: Labelled, **arrays: NDArray[Any]) -> Labelled:
    return part._replace(inputs={**part.inputs, **arrays})


def join(first: Labelled, second: Labelled) -> Labelled:
    inputs: Arrays = {name: np.concatenate([array, second.inputs[name]]) for name, array in first.inputs.items()}
    return Labelled(inputs, np.concatenate([first.targets, second.targets]))


def some(part: Labelled, rows: slice) -> Labelled:
    return Labelled({name: array[rows] for name, array in part.inputs.items()}, part.targets[rows])


def test_clean_data_give_no_finding(clean: Dataset) -> None:
    assert check_data(clean, INPUTS, TASK) == []


def test_clean_values_give_no_finding(clean: Dataset) -> None:
    parts = [part._replace(targets=part.inputs["weight"]) for part in clean[:3]]
    assert check_data(in_three(parts), INPUTS, Regression()) == []


def test_rows_per_class(clean: Dataset) -> None:
    few = np.flatnonzero((clean.train.targets == 0) | (np.arange(200) < 50))
    train = Labelled({name: array[few] for name, array in clean.train.inputs.items()}, clean.train.targets[few])
    finding = the_only(check_data(clean._replace(train=train), INPUTS, TASK))
    assert (finding.check, finding.where) == ("rows per class", "yes")
    assert finding.detail == "yes has 25 training rows, fewer than 30: too few to learn it by."


def test_a_class_without_rows(clean: Dataset) -> None:
    task = Classification(labels=["no", "yes", "perhaps"])
    assert the_only(check_data(clean, INPUTS, task)).where == "perhaps"


def test_rows_per_feature() -> None:
    generator = np.random.default_rng(0)
    parts = [
        Labelled({"image": generator.integers(0, 256, (90, 2, 5), np.uint8)}, np.arange(90) % 2) for _ in range(3)
    ]
    dataset = in_three(parts)
    finding = the_only(check_data(dataset, {"image": Image(height=2, width=5)}, TASK))
    assert finding.check == "rows per feature"
    assert "90 training rows are fewer than 10 for each of 10 numeric features" in finding.detail


def test_the_bytes_of_a_text_are_no_features() -> None:
    words = [f"awful {row}" if row % 2 else f"lovely {row}" for row in range(180)]
    parts = [
        Labelled({"word": Text(max_bytes=500).encode(words[start : start + 60])}, np.arange(60) % 2)
        for start in (0, 60, 120)
    ]
    dataset = in_three(parts)
    assert check_data(dataset, {"word": Text(max_bytes=500)}, TASK) == []


@pytest.mark.parametrize("first", ["train", "calibration"])
def test_duplicates(clean: Dataset, first: str) -> None:
    leaked = join(clean.evaluation, some(getattr(clean, first), slice(5, 7)))
    finding = the_only(check_data(clean._replace(evaluation=leaked), INPUTS, TASK))
    assert (finding.check, finding.where, finding.rows) == ("duplicates", f"{first} and evaluation", [40, 41])
    assert finding.detail.startswith(
        f"2 of 42 rows of the evaluation part have the same inputs as a row of the {first}"
    )


def test_repeats_within_a_part_are_no_duplicates(clean: Dataset) -> None:
    assert check_data(clean._replace(train=join(clean.train, clean.train)), INPUTS, TASK) == []


def test_contradictions(clean: Dataset) -> None:
    again = some(clean.calibration, slice(3, 4))
    torn = join(clean.calibration, again._replace(targets=1 - again.targets))
    finding = the_only(check_data(clean._replace(calibration=torn), INPUTS, TASK))
    assert (finding.check, finding.where, finding.rows) == ("contradictions", "calibration", [3, 40])


def test_label_noise(clean: Dataset) -> None:
    targets = clean.train.targets.copy()
    wrong = [10, 77, 144]
    targets[wrong] = 1 - targets[wrong]
    finding = the_only(check_data(clean._replace(train=clean.train._replace(targets=targets)), INPUTS, TASK))
    assert (finding.check, finding.where) == ("label noise", "train")
    assert sorted(finding.rows) == wrong
    assert finding.detail.startswith("3 of 200 training rows may be mislabelled, the likeliest first: row ")


def test_label_noise_in_times_alone() -> None:
    """Weekday and hour tell the class where the seconds themselves do not."""
    generator = np.random.default_rng(0)
    targets = np.arange(600) % 2
    hours = np.where(targets, 9, 21) + 24 * generator.integers(0, 5000, 600)
    at = hours * 3600 + generator.integers(0, 3600, 600)
    parts = [Labelled({"at": at[rows]}, targets[rows]) for rows in (slice(400), slice(400, 500), slice(500, 600))]
    parts[0].targets[7] = 0
    finding = the_only(check_data(in_three(parts), {"at": Time()}, TASK))
    assert (finding.check, finding.rows) == ("label noise", [7])


def test_constant_features(clean: Dataset) -> None:
    point = clean.train.inputs["point"].copy()
    point[:, 1] = 3
    finding = the_only(check_data(clean._replace(train=with_inputs(clean.train, point=point)), INPUTS, TASK))
    assert (finding.check, finding.where) == ("constant features", "point")
    assert finding.detail.startswith("1 of 2 features of point are the same in every training row")


def test_missing_numbers(clean: Dataset) -> None:
    point, weight = clean.train.inputs["point"].copy(), clean.train.inputs["weight"].copy()
    point[3, 0], point[5, 1], weight[9] = np.nan, np.inf, np.nan
    train = with_inputs(clean.train, point=point, weight=weight)
    first, second = check_data(clean._replace(train=train), INPUTS, TASK)
    assert (first.check, first.where, first.rows) == ("missing values", "train, point", [3, 5])
    assert (second.check, second.where, second.rows) == ("missing values", "train, weight", [9])


def test_a_column_without_a_number(clean: Dataset) -> None:
    train = with_inputs(clean.train, weight=np.full(200, np.nan, np.float32))
    finding = the_only(check_data(clean._replace(train=train), INPUTS, TASK))
    assert (
        finding.detail
        == "200 of 200 rows of the train part have NaN or infinity in weight, where nothing may be missing."
    )
    assert finding.rows == list(range(20))


def test_what_may_be_missing_is_no_fault_unless_all_of_it_is(clean: Dataset) -> None:
    inputs = {
        **INPUTS,
        "point": Tensor(shape=(2,), nan=True),
        "weight": Number(optional=True),
        "word": Text(max_bytes=12, optional=True),
    }
    changed = {name: clean.train.inputs[name].copy() for name in ("point", "weight", "word")}
    changed["point"][3, 0] = changed["weight"][5] = np.nan
    changed["word"][7] = 0
    dataset = clean._replace(train=with_inputs(clean.train, **changed))
    assert check_data(dataset, inputs, TASK) == []
    changed["point"][:, 1] = np.nan
    finding = the_only(check_data(dataset, inputs, TASK))
    assert (finding.check, finding.where) == ("constant features", "point")
    changed["point"][:, 1] = np.inf
    assert [one.check for one in check_data(dataset, inputs, TASK)] == ["missing values", "constant features"]


def test_missing_texts(clean: Dataset) -> None:
    word = clean.evaluation.inputs["word"].copy()
    word[8] = 0
    finding = the_only(
        check_data(clean._replace(evaluation=with_inputs(clean.evaluation, word=word)), INPUTS, TASK)
    )
    assert (finding.check, finding.where, finding.rows) == ("missing values", "evaluation, word", [8])


def test_targets_that_do_not_fit_are_an_error(clean: Dataset) -> None:
    train = clean.train._replace(targets=clean.train.targets + 1)
    with pytest.raises(RolloutError, match="targets must be whole numbers from 0 to 1"):
        check_data(clean._replace(train=train), INPUTS, TASK)


def test_many_rows_do_not_take_long() -> None:
    """Wide images, and far more rows than are looked at for label noise."""
    generator = np.random.default_rng(0)
    task = Classification(labels=[str(digit) for digit in range(10)])
    parts = [
        Labelled({"image": generator.integers(0, 256, (rows, 28, 28), np.uint8)}, np.arange(rows) % 10)
        for rows in (12_000, 100, 100)
    ]
    start = time.process_time()
    check_data(in_three(parts), {"image": Image(height=28, width=28)}, task)
    assert time.process_time() - start < 10
