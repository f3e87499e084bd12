"""The probes reach every end of what a field takes, and a field takes every probe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from rollout import Category, Image, Number, Table, Tensor, Text, Time
from rollout.bundle.fields import Field
from rollout.bundle.probes import extreme_inputs, gaps, random_inputs, whole_rows
from rollout.bundle.schema import InputSchema

FIELDS: dict[str, Field] = {
    "image": Image(height=2, width=2),
    "tensor": Tensor(shape=(2,), minimum=-4, maximum=9),
    "whole": Tensor(shape=(3,), dtype="int64", maximum=7),
    "byte": Tensor(shape=(), dtype="uint8"),
    "number": Number(minimum=5000),
    "text": Text(max_bytes=10),
    "category": Category(values=("EWR", "JFK", "LaGuardia")),
    "time": Time(),
}


def test_both_fit_the_schema_and_the_same_seed_gives_the_same_rows() -> None:
    schema = InputSchema(FIELDS)
    drawn = random_inputs(FIELDS, 50, seed=1)
    assert schema.check_arrays(drawn) == 50
    assert schema.check_arrays(extreme_inputs(FIELDS)) == 3
    again = random_inputs(FIELDS, 50, seed=1)
    assert all(np.array_equal(drawn[name], again[name]) for name in FIELDS)


def test_random_inputs_keep_to_the_limits() -> None:
    drawn = random_inputs(FIELDS, 300, seed=1)
    for name, low, high in (("image", 0, 255), ("tensor", -4, 9), ("whole", -1000, 7), ("byte", 0, 255)):
        spread = high - low
        assert low <= drawn[name].min() < low + 0.1 * spread
        assert high >= drawn[name].max() > high - 0.1 * spread


def test_random_texts_and_categories_are_what_a_caller_could_send() -> None:
    drawn = random_inputs(FIELDS, 300, seed=1)
    texts = [bytes(row).rstrip(b"\0").decode() for row in drawn["text"]]
    assert any(not text.isascii() for text in texts)
    assert len(set(texts)) > 200
    assert {bytes(row).rstrip(b"\0").decode() for row in drawn["category"]} == {"EWR", "JFK", "LaGuardia"}


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("image", [[0, 0], [0, 0]], [[255, 255], [255, 255]]),
        ("tensor", [-4, -4], [9, 9]),
        ("whole", [-1000] * 3, [7] * 3),
        ("byte", 0, 255),
        ("number", 5000, 5000),
        ("text", [0] * 10, list(b"z" * 10)),
        ("category", list(b"EWR\0\0\0\0\0\0"), list(b"LaGuardia")),
        ("time", -62135596800, 253402300799),
    ],
)
def test_extreme_inputs_are_both_ends(name: str, low: Any, high: Any) -> None:
    rows = extreme_inputs(FIELDS)[name]
    assert rows[0].tolist() == low
    assert rows[1].tolist() == high


def test_the_ends_of_time_are_those_of_the_wire() -> None:
    ends = ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
    moments = [msgspec.convert(end, Time().wire_type) for end in ends]
    assert [int(Time().decode(moment)) for moment in moments] == extreme_inputs(FIELDS)["time"][:2].tolist()


GAPPED: dict[str, Field] = {
    "age": Number(optional=True, minimum=0, maximum=90),
    "shares": Tensor(shape=(2,), nan=True),
    "word": Text(max_bytes=4, default="none"),
    "port": Category(values=("C", "Q", "S"), optional=True),
    "at": Time(optional=True),
    "weight": Number(),
    "row": Table(
        columns={"fare": Number(optional=True), "deck": Category(values=("A", "B")), "rate": Number(default=2)}
    ),
}


GAP: dict[str, Callable[[Any], Any]] = {
    "age": np.isnan,
    "shares": np.isnan,
    "word": lambda words: (words == list(b"none")).all(1),
    "port": lambda ports: ~ports.any(1),
    "at": lambda at: at == Time.MISSING,
    "row": lambda rows: np.isnan(rows[:, 0]),
}


def test_what_may_be_missing_is_in_a_fifth_of_random_rows_and_in_the_last_extreme_one() -> None:
    drawn, extreme = random_inputs(GAPPED, 300, seed=1), extreme_inputs(GAPPED)
    assert InputSchema(GAPPED).check_arrays(drawn) == 300
    assert InputSchema(GAPPED).check_arrays(extreme) == 4
    for name, field in GAPPED.items():
        if field.limits is not None:
            assert np.array_equal(field.admit(drawn[name]), drawn[name], equal_nan=True)
        for probe, low, high in ((drawn[name], 0.12, 0.28), (extreme[name][3:], 1, 1), (extreme[name][:3], 0, 0)):
            assert name == "weight" or low <= np.mean(GAP[name](probe)) <= high, name
    assert not np.isnan(drawn["row"][:, 1:]).any()
    assert extreme["row"][3].tolist()[1:] == [0, 2]


def test_one_value_after_the_other_is_taken_away() -> None:
    row = {name: array[:1] for name, array in extreme_inputs(GAPPED).items()}
    found = dict(gaps(GAPPED, row))
    assert list(found) == ["age", "shares", "word", "port", "at", "row.fare", "row.rate"]
    for name, lacking in found.items():
        changed = {one for one in GAPPED if not np.array_equal(lacking[one], row[one])}
        assert changed == {name.partition(".")[0]}
    assert np.isnan(found["row.fare"]["row"]).tolist() == [[True, False, False]]
    several = {name: array[[3, 0]] for name, array in extreme_inputs(GAPPED).items()}
    assert whole_rows(GAPPED, several).tolist() == [False, True]
