"""Attributions of functions whose answer is known: a planted patch, a planted word, a linear model."""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from rollout import Audio, Category, Image, Number, Table, Tensor, Text, Time
from rollout.bundle.columns import cell, is_ragged, ragged
from rollout.bundle.fields import Field
from rollout.bundle.schema import Arrays
from rollout.errors import PredictionFailedError
from rollout.explain.attribution import Ask, attribute
from rollout.explain.explanation import Attribution, Pass

RANDOM = np.random.default_rng(7)


def explained(
    field: Field, row: NDArray[Any], background: NDArray[Any], ask: Ask
) -> tuple[float, list[Attribution], Pass]:
    column = ragged([row[()]]) if row.dtype == object else row[None]
    value, attributions, (one,) = attribute({"x": field}, {"x": column}, {"x": background}, ask)
    return value, attributions, one


@pytest.mark.parametrize("channels", [1, 3])
def test_planted_patch_has_the_largest_attribution(channels: Literal[1, 3]) -> None:
    field = Image(height=30, width=24, channels=channels)
    images = RANDOM.integers(0, 256, (20, *field.shape), dtype=np.uint8)
    row = images[0].copy()
    row[9:12, 15:18] = 255
    value, attributions, one = explained(
        field, row, images, lambda rows: rows["x"][:, 9:12, 15:18].reshape(len(rows["x"]), -1).mean(1) / 255
    )
    assert value == 1
    best = max(attributions, key=lambda each: each.attribution)
    assert best.box == (15, 9, 18, 12)
    mean = images[:, 9:12, 15:18].mean(axis=0).round()
    assert best.attribution == pytest.approx(1 - float(mean.mean()) / 255, abs=1e-5)
    assert [each.attribution for each in attributions if each is not best] == [0] * (len(attributions) - 1)
    assert one.method == "occlusion"
    assert one.evaluations == len(attributions) + 2  # the image itself, and where nothing of it is left
    covered = np.zeros((30, 24), int)
    for each in attributions:
        assert each.box is not None
        left, top, right, bottom = each.box
        covered[top:bottom, left:right] += 1
    assert (covered == 1).all()


def test_word_that_the_answer_hangs_on_is_found_with_its_characters() -> None:
    field = Text(max_bytes=64)
    said = "  Größe zählt, sagt Zoë – nie"

    def ask(rows: Arrays) -> NDArray[np.float64]:
        texts = [bytes(row).rstrip(b"\0").decode() for row in rows["x"]]
        return np.array([2.0 * ("Zoë" in text) - ("nie" in text) + ("zählt, sagt" in text) for text in texts])

    value, attributions, _ = explained(field, field.encode([said])[0], field.encode(["other"]), ask)
    assert value == 2
    assert {one.value: one.attribution for one in attributions} == {
        "Größe": 0,
        "zählt,": 1,
        "sagt": 1,
        "Zoë": 2,
        "–": 0,
        "nie": -1,
    }
    assert all(one.span and said[slice(*one.span)] == one.value for one in attributions)


def test_many_words_are_taken_together_and_an_empty_text_is_one_part() -> None:
    field = Text(max_bytes=4096)
    sent = field.encode([" ".join(["word"] * 500), ""])
    _, attributions, _ = explained(field, sent[0], sent, lambda rows: (rows["x"] > 0).sum(1).astype(float))
    assert len(attributions) == 128
    assert sum(one.attribution for one in attributions) == 500 * 5 - 1
    _, attributions, _ = explained(field, sent[1], sent, lambda rows: (rows["x"] > 0).sum(1).astype(float))
    assert [one.attribution for one in attributions] == [0]


@pytest.mark.parametrize("size", [4, 13])  # all orders, and random ones
def test_shapley_values_of_a_linear_model_are_weights_times_differences(size: int) -> None:
    weights = RANDOM.normal(size=size)
    background = RANDOM.normal(size=(25, size)).astype(np.float32)
    row = RANDOM.normal(size=size).astype(np.float32)
    value, attributions, one = explained(
        Tensor(shape=(size,)), row, background, lambda rows: rows["x"].astype(np.float64) @ weights + 3
    )
    expected = weights * (row.astype(np.float64) - background.astype(np.float64).mean(0))
    np.testing.assert_allclose([each.attribution for each in attributions], expected, atol=1e-5)
    assert one.background_rows == 25
    assert one.base_value == pytest.approx(float((background @ weights).mean()) + 3, abs=1e-5)
    assert one.remainder == pytest.approx(0, abs=1e-5)
    assert value == pytest.approx(float(row @ weights) + 3, abs=1e-5)


def test_shapley_values_of_few_parts_are_those_of_the_definition() -> None:
    def ask(rows: Arrays) -> NDArray[np.float64]:
        one, two, three, four = rows["x"].T.astype(np.float64)
        return np.asarray(one * two + np.maximum(three, four) - one * three * four)

    background = RANDOM.normal(size=(10, 4)).astype(np.float32)
    row = RANDOM.normal(size=4).astype(np.float32)
    _, attributions, _ = explained(Tensor(shape=(4,)), row, background, ask)

    def game(present: tuple[int, ...]) -> float:
        rows = background.copy()
        rows[:, list(present)] = row[list(present)]
        return float(ask({"x": rows}).mean())

    for player, found in enumerate(attributions):
        others = [one for one in range(4) if one != player]
        wanted = sum(
            math.factorial(size)
            * math.factorial(3 - size)
            / math.factorial(4)
            * (game((*some, player)) - game(some))
            for size in range(4)
            for some in itertools.combinations(others, size)
        )
        assert found.attribution == pytest.approx(wanted, abs=1e-5)


def test_row_of_a_table_names_its_columns_and_their_values() -> None:
    table = Table(columns={"age": Number(optional=True), "port": Category(values=("C", "Q", "S"))})
    background = table.encode([{"age": 10, "port": "C"}, {"age": 30, "port": "C"}])
    (row,) = table.encode([{"age": None, "port": "S"}])

    def ask(rows: Arrays) -> NDArray[np.float64]:
        return np.asarray(np.nan_to_num(rows["x"][:, 0] / 10, nan=5.0) + 4 * rows["x"][:, 1], float)

    _, attributions, _ = explained(table, row, background, ask)
    assert [(one.part, one.value) for one in attributions] == [("age", "missing"), ("port", "S")]
    assert [one.attribution for one in attributions] == pytest.approx([5 - 2, 8])


def test_several_kinds_in_one_row_are_weighed_each_in_its_own_way() -> None:
    fields: dict[str, Field] = {
        "image": Image(height=12, width=12),
        "text": Text(max_bytes=32),
        "speed": Number(),
        "carrier": Category(values=("AA", "UA")),
        "at": Time(),
    }
    row = {
        "image": np.full((1, 12, 12), 200, np.uint8),
        "text": fields["text"].encode(["late again"]),
        "speed": fields["speed"].encode([7]),
        "carrier": fields["carrier"].encode(["UA"]),
        "at": fields["at"].encode(["1970-01-01T00:01:40Z"]),
    }
    background = {
        "image": np.zeros((2, 12, 12), np.uint8),
        "text": fields["text"].encode(["a", "b"]),
        "speed": fields["speed"].encode([1, 3]),
        "carrier": fields["carrier"].encode(["AA", "AA"]),
        "at": fields["at"].encode(["1970-01-01T00:00:00Z"] * 2),
    }

    def ask(rows: Arrays) -> NDArray[np.float64]:
        late = np.array([b"late" in bytes(one) for one in rows["text"]], float)
        is_united = (rows["carrier"][:, 0] == ord("U")).astype(float)
        return np.asarray(
            rows["image"].mean((1, 2)) / 200 + 2 * late + rows["speed"] + 10 * is_united + rows["at"] / 100, float
        )

    value, attributions, passes = attribute(fields, row, background, ask)
    assert value == 1 + 2 + 7 + 10 + 1
    by_field = {name: [one for one in attributions if one.field == name] for name in fields}
    assert sum(one.attribution for one in by_field["image"]) == pytest.approx(1, abs=1e-4)
    assert [one.attribution for one in by_field["text"]] == [2, 0]
    assert by_field["speed"][0].attribution == pytest.approx(5)
    assert by_field["carrier"][0].attribution == pytest.approx(10)
    assert by_field["carrier"][0].value == "'UA'"
    assert by_field["at"][0].value == "1970-01-01T00:01:40+00:00"
    assert by_field["at"][0].attribution == pytest.approx(1)
    assert [(one.method, one.fields) for one in passes] == [
        ("occlusion", ("image", "text")),
        ("shapley", ("speed", "carrier", "at")),
    ]
    assert passes[1].remainder == pytest.approx(0, abs=1e-5)


def test_sound_and_rows_of_a_free_length_are_taken_apart_into_slices() -> None:
    samples = np.zeros(8000, np.float32)
    samples[2000:2250] = 0.5
    background = ragged([samples])

    def loudness(rows: Arrays) -> NDArray[np.float64]:
        return np.array([float(np.abs(one).sum()) for one in rows["x"]])

    _, attributions, _ = explained(Audio(sample_rate=8000, longest_s=2), cell(samples), background, loudness)
    assert [one.seconds for one in attributions if one.attribution] == [(0.25, 0.2812)]
    _, attributions, _ = explained(Tensor(shape=(8000,), sample_rate=8000), samples, samples[None], loudness)
    assert [one.seconds for one in attributions if one.attribution] == [(0.25, 0.2812)]
    steps = Tensor(shape=("steps", 2), longest=9)
    background = ragged([np.ones((3, 2), np.float32), np.ones((5, 2), np.float32)])

    def ask(rows: Arrays) -> NDArray[np.float64]:
        assert is_ragged(rows["x"])  # or the module would not be told their lengths
        return np.array([float(one.sum()) for one in rows["x"]])

    _, attributions, one = explained(steps, cell(np.array([[1, 1], [1, 4], [1, 1]], np.float32)), background, ask)
    assert [(each.steps, each.attribution) for each in attributions] == [((0, 1), 0), ((1, 2), 3), ((2, 3), 0)]
    assert one.base_value == 6


def test_large_tensor_is_bounded() -> None:
    field = Tensor(shape=(50, 20))
    row = np.ones(field.step_shape, np.float32)
    background = np.zeros((40, *field.step_shape), np.float32)
    _, attributions, one = explained(field, row, background, lambda rows: rows["x"].sum((1, 2)).astype(float))
    assert len(attributions) == 32
    assert attributions[0].steps == (0, 31)
    assert one.evaluations <= 20_000
    assert sum(each.attribution for each in attributions) == pytest.approx(1000, rel=1e-5)


def test_same_seed_gives_the_same_to_the_bit_and_another_one_other_orders() -> None:
    row, background = RANDOM.normal(size=12).astype(np.float32), RANDOM.normal(size=(8, 12)).astype(np.float32)

    def run(seed: int) -> list[float]:
        return [
            one.attribution
            for one in attribute(
                {"x": Tensor(shape=(12,))},
                {"x": row[None]},
                {"x": background},
                lambda rows: np.sin(rows["x"].astype(float).prod(1) * 5) + rows["x"].max(1),
                seed,
            )[1]
        ]

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(PredictionFailedError, match="not finite"):
        explained(
            Tensor(shape=(2,)),
            np.ones(2, np.float32),
            np.zeros((1, 2), np.float32),
            lambda rows: (
                1 / rows["x"][:, 0].astype(float) if rows["x"][:, 0].all() else np.full(len(rows["x"]), np.inf)
            ),
        )


def test_numbers_too_large_to_be_weighed_are_refused() -> None:
    with pytest.raises(PredictionFailedError, match="too large"):
        explained(
            Tensor(shape=(2,)),
            np.ones(2, np.float32),
            np.zeros((1, 2), np.float32),
            lambda rows: np.where(rows["x"].any(axis=1), 3e38, -3e38),
        )


@pytest.mark.parametrize(("columns", "background_rows"), [(40, 32), (500, 8)])
def test_a_wide_table_costs_no_more_rows_than_others(columns: int, background_rows: int) -> None:
    names = [f"c{place}" for place in range(columns)]
    field = Table(columns={name: Number() for name in names})
    rows = RANDOM.normal(size=(40, columns)).astype(np.float32)
    value, attributions, one = explained(
        field, rows[0], rows, lambda some: some["x"][:, :3].sum(1).astype(np.float64)
    )
    assert one.background_rows == background_rows
    assert one.evaluations < 20_000
    assert one.base_value + one.sum == pytest.approx(value, abs=1e-3)
    assert [each.part for each in attributions if abs(each.attribution) > 1e-3] == names[:3]
