"""Labels that look wrong: found by versions that did not learn from them, and corrected by what people say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from rollout import (
    Classification,
    Dataset,
    Heads,
    Labelled,
    Recipe,
    Regression,
    Score,
    Tensor,
    Version,
    targets_of,
)
from rollout.bundle.schema import InputSchema
from rollout.errors import ConfigError
from rollout.training.labels import add_labels, in_words, label_keys, name_exports
from rollout.training.suspects import as_sent, training_suspects
from tests.training.taught import RECIPE, load, part, retraction, row, train, write

PLANTED = [3, 40, 77, 101, 155, 190]


def planted() -> Dataset:
    """Of 200 rows of the training part, those far from the border have a wrong label where it is planted."""
    dataset = load()
    x = part(200, 5).inputs["x"]
    x += np.sign(x.sum(1, keepdims=True)) * 2
    targets = (x.sum(1) > 0).astype(int)
    targets[PLANTED] = 1 - targets[PLANTED]
    return dataset._replace(train=Labelled({"x": x}, targets))


DOUBTED = msgspec.structs.replace(RECIPE, load=planted)


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    def write_rows(*rows: dict[str, Any]) -> dict[str, Path]:
        return name_exports([write(tmp_path / "labels.jsonl", *rows)])

    return write_rows


def decided(place: int, label: str, dataset: Dataset, **fields: Any) -> dict[str, Any]:
    """What people said of a training row."""
    key = label_keys(dataset.train, RECIPE.inputs)[place]
    return row(key, None, label, client_id="recipe:train", id=f"id-{place}", reason="suspect_label", **fields)


def test_each_fold_is_looked_at_by_a_version_that_did_not_see_it() -> None:
    sizes = []

    def noted(given: Labelled, seed: int) -> Any:
        sizes.append(len(given.targets))
        return train(given, seed)

    versions = {"v1": RECIPE.version("plain")._replace(train=noted)}
    steps: list[str] = []
    looked = training_suspects(
        msgspec.structs.replace(DOUBTED, versions=versions), "v1", {}, folds=4, on_step=steps.append
    )
    assert sizes == [150] * 4
    assert len(steps) == 4
    assert {one.row for one in looked.suspects} == set(PLANTED)
    first = looked.suspects[0]
    assert first.part == "train"
    assert first.label != first.answer.split()[0]
    assert first.key == label_keys(planted().train, RECIPE.inputs)[first.row]
    sent = msgspec.json.decode(as_sent(looked, first, RECIPE.inputs), type=dict[str, msgspec.Raw])
    again = InputSchema(RECIPE.inputs).decode(sent)["x"]
    assert np.array_equal(again, planted().train.inputs["x"][first.row])


def test_what_clients_sent_is_told_apart(export: Callable[..., dict[str, Path]]) -> None:
    """It must not be queued as a row of the recipe: who is forgotten would be kept there."""
    rows = export(row("a", [4, 4], "no"), row("b", [-4, -4], "no"))
    looked = training_suspects(DOUBTED, "taught", rows, folds=4)
    assert {one.row for one in looked.suspects if one.part == "reviewed"} == {200}
    assert {one.row for one in looked.suspects if one.part == "train"} == set(PLANTED)


def test_too_few_rows_and_other_kinds_are_refused_before_anything_is_trained() -> None:
    with pytest.raises(ConfigError, match="200 training rows are too few for 150 folds"):
        training_suspects(DOUBTED, "plain", {}, folds=150)

    def never(given: Labelled, seed: int) -> Any:
        raise AssertionError

    numbers = Recipe(
        name="numbers",
        inputs={"x": Tensor(shape=(2,))},
        load=lambda: load()._replace(train=Labelled(part(60, 1).inputs, np.zeros(60))),
        versions={"v1": Version(never, Score(), {})},
    )
    with pytest.raises(ConfigError, match="in Score"):
        training_suspects(numbers, "v1", {}, folds=3)


class Doubled(torch.nn.Module):
    """Knows what the numbers of the rows are, but for noise, and where there is more of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([2 * x[:, 0], torch.where(x[:, 1] > 0, 10.0, 0.1)], 1)


def test_numbers_are_judged_by_intervals_that_the_other_folds_give() -> None:
    """What is trained has none yet, and would doubt every row or none."""
    rows = part(200, 9)
    rows.inputs["x"][[20, 90], 1] = -1
    spread = np.where(rows.inputs["x"][:, 1] > 0, 10.0, 0.1)
    targets = 2 * rows.inputs["x"][:, 0] + spread * np.random.default_rng(1).normal(size=200)
    targets[[20, 90]] += 9  # no more than elsewhere, but here it is sure
    numbers = Recipe(
        name="numbers",
        inputs={"x": Tensor(shape=(2,))},
        load=lambda: load()._replace(train=Labelled(rows.inputs, targets)),
        versions={"v1": Version(lambda *_: Doubled().eval(), Regression(), {})},
    )
    looked = training_suspects(numbers, "v1", {}, folds=4)
    assert {one.row for one in looked.suspects} == {20, 90}
    assert looked.suspects[0].label == f"{targets[looked.suspects[0].row]:.6g}"
    assert " ± " in looked.suspects[0].answer


def test_several_heads_are_looked_at_and_corrected_each_by_itself(
    export: Callable[..., dict[str, Path]],
) -> None:
    """A row has both labels; what people say of one of them leaves the other."""
    rows = part(200, 9)
    minutes = 2 * rows.inputs["x"][:, 0] + np.random.default_rng(1).normal(0, 0.1, 200)
    minutes[20] = 900.0
    late = (rows.inputs["x"].sum(1) > 0).astype(int)

    class Both(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            sums = 9 * x.sum(1)
            return {"late": torch.stack([-sums, sums], 1), "minutes": 2 * x[:, 0]}

    heads = Heads(heads={"late": Classification(labels=["no", "yes"], risk=0.1), "minutes": Regression()})
    dataset = load()._replace(train=Labelled(rows.inputs, targets_of(late=late, minutes=minutes)))
    recipe = Recipe(
        name="sums",
        inputs=RECIPE.inputs,
        load=lambda: dataset,
        versions={"v1": Version(lambda *_: Both().eval(), heads, {}, needs_labels=True)},
    )
    given = export(row("a", [9.0, 9.0], None, heads={"late": {"label": "yes"}, "minutes": {"value": 18.0}}))
    looked = training_suspects(recipe, "v1", given, folds=4)
    (found,) = [one for one in looked.suspects if "minutes" in one.head]
    assert (found.row, found.head) == (20, "minutes")
    assert "minutes 900" in found.label
    held = load().calibration
    whole = dataset._replace(
        calibration=Labelled(held.inputs, targets_of(late=held.targets, minutes=held.targets * 1.0)),
        evaluation=Labelled(held.inputs, targets_of(late=held.targets, minutes=held.targets * 1.0)),
    )
    said = row(
        found.key,
        None,
        None,
        client_id="recipe:train",
        reason="suspect_label",
        heads={"late": {"label": ["no", "yes"][int(late[20])]}, "minutes": {"value": 1.5}},
    )
    after = add_labels(whole, recipe, "v1", export(said)).train.targets
    assert (after["minutes"][20], after["late"][20]) == (1.5, late[20])
    assert np.array_equal(np.delete(after["minutes"], 20), np.delete(minutes, 20))


def test_what_people_say_takes_the_place_of_the_label(export: Callable[..., dict[str, Path]]) -> None:
    before = planted()
    right = {place: ["yes", "no"][int(before.train.targets[place])] for place in PLANTED[:3]}
    rows = [decided(place, label, before) for place, label in right.items()]
    after = add_labels(before, DOUBTED, "taught", export(*rows, row("a")))
    assert len(after.train.targets) == 201
    assert np.flatnonzero(after.train.targets[:200] != before.train.targets).tolist() == PLANTED[:3]
    assert after.labels is not None
    assert (after.labels.used, after.labels.corrected) == (1, 3)
    assert in_words(after.labels) == "1 used, 3 labels of the training part corrected"


def test_the_same_row_with_another_label_is_not_meant(export: Callable[..., dict[str, Path]]) -> None:
    """Where inputs have few values, rows with the same inputs may rightly have different labels."""
    before = planted()
    place = PLANTED[0]
    twin = Labelled(
        {"x": np.concatenate([before.train.inputs["x"], before.train.inputs["x"][[place, place]]])},
        np.concatenate([before.train.targets, before.train.targets[[place]], 1 - before.train.targets[[place]]]),
    )
    given = int(before.train.targets[place])
    rows = export(decided(place, ["yes", "no"][given], before))
    after = add_labels(before._replace(train=twin), DOUBTED, "taught", rows)
    assert after.labels is not None
    assert after.labels.corrected == 2
    assert after.train.targets[[place, 200, 201]].tolist() == [1 - given] * 3


def test_rows_that_change_nothing_say_why(export: Callable[..., dict[str, Path]]) -> None:
    before = planted()
    same = ["no", "yes"][int(before.train.targets[0])]
    held_out = label_keys(before.evaluation, RECIPE.inputs)[0]
    fields: dict[str, Any] = {"client_id": "recipe:evaluation", "reason": "suspect_label"}
    rows = export(
        row("a"),
        decided(0, same, before),
        row(held_out, None, "yes", id="held-out", **fields),
        row("0123456789abcdef", None, "yes", id="gone", **fields),
        retraction(decided(1, same, before)),
    )
    after = add_labels(before, DOUBTED, "taught", rows)
    assert np.array_equal(after.train.targets[:200], before.train.targets)
    assert after.labels is not None
    assert in_words(after.labels) == "1 used; left out: 1 retracted, 1 held out, 1 confirmed, 1 gone"


def test_the_latest_word_counts_and_must_fit(export: Callable[..., dict[str, Path]]) -> None:
    before = planted()
    given = ["no", "yes"][int(before.train.targets[3])]
    other = "no" if given == "yes" else "yes"
    rows = [decided(3, given, before), decided(3, other, before)]
    after = add_labels(before, DOUBTED, "taught", export(*rows[::-1]))
    assert after.train.targets[3] != before.train.targets[3]
    with pytest.raises(ConfigError, match=r"labels.jsonl, line 1: /label"):
        add_labels(before, DOUBTED, "taught", export(decided(3, "maybe", before)))
