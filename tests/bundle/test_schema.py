"""The input schema: every fault is pointed at."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from rollout import Image, InputSchema, Number, RolloutError, Tensor, Text, Time
from rollout.bundle.schema import InvalidInputsError, RawInputs

SCHEMA = InputSchema({"image": Image(height=2, width=2), "age": Tensor(shape=(), minimum=0)})


def raw(**values: str) -> RawInputs:
    return {name: msgspec.Raw(value.encode()) for name, value in values.items()}


def test_decodes_every_field() -> None:
    arrays = SCHEMA.decode(raw(age="3", image="[[1, 2], [3, 4]]"))
    assert arrays["image"].tolist() == [[1, 2], [3, 4]]
    assert arrays["age"] == np.float32(3)


def test_all_faults_are_found_at_once() -> None:
    with pytest.raises(InvalidInputsError) as caught:
        SCHEMA.decode(raw(age="-1", imagee="[[1, 2], [3, 4]]"))
    assert {error.pointer for error in caught.value.errors} == {"/age", "/image", "/imagee"}


def test_the_pointer_reaches_the_element() -> None:
    with pytest.raises(InvalidInputsError) as caught:
        SCHEMA.decode(raw(age="1", image="[[1, 2], [3, 999]]"))
    (error,) = caught.value.errors
    assert error.pointer == "/image/1/1"
    assert "255" in error.detail


def test_a_field_too_many_is_named() -> None:
    with pytest.raises(InvalidInputsError, match="/weight: is not an input of this model; it takes image, age"):
        SCHEMA.decode(raw(age="1", image="[[1, 2], [3, 4]]", weight="3"))


def test_every_kind_of_field_has_its_pointer() -> None:
    schema = InputSchema({"note": Text(max_bytes=3), "at": Time(), "weight": Number(minimum=0)})
    good = schema.decode(raw(note='"abc"', at='"1970-01-01T00:00:09Z"', weight="2"))
    assert (bytes(good["note"]), int(good["at"]), float(good["weight"])) == (b"abc", 9, 2)
    with pytest.raises(InvalidInputsError) as caught:
        schema.decode(raw(note='"abcd"', at='"1970-01-01"', weight="-2"))
    assert [error.pointer for error in caught.value.errors] == ["/note", "/at", "/weight"]


@pytest.mark.parametrize("name", ["", "a b", "_x", "1x"])
def test_names_that_no_graph_could_carry_are_refused(name: str) -> None:
    with pytest.raises(RolloutError, match="identifiers"):
        InputSchema({name: Tensor(shape=())})


def test_batches_are_checked() -> None:
    good: dict[str, Any] = {"image": np.zeros((3, 2, 2), np.uint8), "age": np.zeros(3, np.float32)}
    assert SCHEMA.check_arrays(good) == 3
    for name, array, words in (
        ("image", np.zeros((3, 2, 1), np.uint8), "expected shape"),
        ("image", np.zeros((3, 2, 2), np.float32), "expected shape"),
        ("age", np.zeros(4, np.float32), "different numbers of rows"),
    ):
        with pytest.raises(RolloutError, match=words):
            SCHEMA.check_arrays(good | {name: array})
    with pytest.raises(RolloutError, match="expected arrays for"):
        SCHEMA.check_arrays({"age": good["age"]})


def test_a_file_alone_fills_a_model_whose_other_inputs_may_be_missing() -> None:
    image = Image(height=2, width=2)
    assert InputSchema({"image": image}).file_field == "image"
    assert InputSchema({"age": Number(optional=True), "image": image}).file_field == "image"
    assert InputSchema({"age": Number(), "image": image}).file_field is None
    assert InputSchema({"age": Number()}).file_field is None
