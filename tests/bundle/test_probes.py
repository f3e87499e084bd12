"""The probes reach every end of what a field takes, and a field takes every probe."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from rollout import Category, Image, Number, Tensor, Text, Time
from rollout.bundle.fields import Field
from rollout.bundle.probes import extreme_inputs, random_inputs
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
