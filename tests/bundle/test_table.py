"""A table: named columns on the wire, one array for the module, and its declaration from a DataFrame."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from rollout import Category, InputSchema, Number, Table, Text, Time
from rollout.bundle.fields import Field
from rollout.bundle.schema import InvalidInputsError

NAN = float("nan")
ROW = Table(
    columns={
        "age": Number(minimum=0, maximum=120, optional=True),
        "sex": Category(values=("female", "male")),
        "fare/£": Number(default=14.5),
        "port": Category(values=("C", "Q", "S", "all others"), other="all others", optional=True),
        "deck": Category(values=("A", "B"), default="B"),
    }
)
ADA = {"age": 36, "sex": "female", "fare/£": 7.25, "port": "Q", "deck": "A"}
FRAME = pd.DataFrame(
    {
        "age": [36, None, 4.5],
        "sex": ["female", "male", "male"],
        "fare/£": [7.25, 80, None],
        "port": pd.Categorical(["Q", None, "Southampton"]),
        "deck": ["A", None, "B"],
        "survived": [1, 0, 1],
    }
)
ARRAY = np.array([[36, 0, 7.25, 1, 0], [NAN, 1, 80, NAN, 1], [4.5, 1, 14.5, 3, 1]], np.float32)


def decode(row: Any, field: Field = ROW) -> np.ndarray[Any, Any]:
    return InputSchema({"row": field}).decode({"row": msgspec.Raw(msgspec.json.encode(row))})["row"]


def faults(row: Any) -> dict[str, str]:
    with pytest.raises(InvalidInputsError) as caught:
        decode(row)
    return dict(caught.value.errors)


def records(frame: Any, *, nulls: bool) -> list[dict[str, Any]]:
    """The rows as a caller has them: what is missing is null, or not there."""
    return [
        {name: value for name, value in row.items() if nulls or value is not None}
        for row in msgspec.json.decode(frame.drop(columns="survived").to_json(orient="records"))
    ]


@pytest.mark.parametrize("nulls", [True, False])
def test_a_row_is_one_array(nulls: bool) -> None:
    rows = records(FRAME, nulls=nulls)
    decoded = np.stack([decode(row) for row in rows])
    assert decoded.dtype == np.float32
    assert np.array_equal(decoded, ARRAY, equal_nan=True)
    assert np.array_equal(ROW.encode(rows), ARRAY, equal_nan=True)


def test_a_frame_of_training_is_the_same_array() -> None:
    assert np.array_equal(ROW.encode(FRAME), ARRAY, equal_nan=True)


def test_every_fault_is_pointed_at() -> None:
    wrong = {"age": 121, "fare/£": "cheap", "port": 3, "agee": 7, "deck": "C"}
    found = faults(wrong)
    assert found.keys() == {"/row/age", "/row/sex", "/row/fare~1£", "/row/port", "/row/agee", "/row/deck"}
    assert found["/row/age"].endswith("it must be a number, at least 0, at most 120; null or nothing if missing")
    assert found["/row/sex"] == "is required: one of female, male"
    assert found["/row/agee"] == "is not a column of this table; it takes age, sex, fare/£, port, deck"
    assert faults([36, "female"]) == {
        "/row": "expected object, got array; it must be an object with age, sex, fare/£, port, deck"
    }
    assert faults(None).keys() == {"/row"}
    assert faults(ADA | {"fare/£": 1e39}) == {"/row": "fare/£ must fit a finite float32"}
    assert faults(ADA | {"sex": None}).keys() == {"/row/sex"}


def test_a_table_without_columns_or_with_what_float32_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="a table needs columns"):
        Table(columns={})
    for field in (Time(), Text(), ROW):
        columns: dict[str, Any] = {"at": field}
        with pytest.raises(ValueError, match=r"column at is a .*make it an input of its own beside the table"):
            Table(columns=columns)


def test_rows_of_training_that_do_not_fit_name_their_column() -> None:
    with pytest.raises(ValueError, match="agee: not a column of this table"):
        ROW.encode([ADA, ADA | {"agee": 3}])
    with pytest.raises(ValueError, match="the frame lacks port, deck"):
        ROW.encode(FRAME[["age", "sex", "fare/£"]])
    with pytest.raises(ValueError, match="sex: row 1 has no value"):
        ROW.encode([ADA, {"age": 3}])
    with pytest.raises(ValueError, match=r"age: .*<= 120"):
        ROW.encode(FRAME.assign(age=121))


def test_rows_that_come_as_an_array_keep_to_their_columns() -> None:
    sent = np.array([[NAN, 0, NAN, NAN, NAN], [3, 1, 2, 3, 0]], np.float32)
    filled = np.array([[NAN, 0, 14.5, NAN, 1], [3, 1, 2, 3, 0]], np.float32)
    assert np.array_equal(ROW.admit(sent), filled, equal_nan=True)
    for column, value, words in (
        (0, -1, r"holds -1.0 at \[1, 0\], in age; it must be a number, at least 0"),
        (1, NAN, r"holds nan at \[1, 1\], in sex; it must be the index of one of female, male"),
        (1, 0.5, "holds 0.5 .* in sex"),
        (3, 4, "holds 4.0 .* in port"),
        (2, np.inf, "holds inf .* in fare/£"),
    ):
        wrong = sent.copy()
        wrong[1, column] = value
        with pytest.raises(ValueError, match=words):
            ROW.admit(wrong)


def test_what_is_kept_of_an_array_is_the_row_that_a_caller_could_have_sent() -> None:
    kept = ROW.keep(None, np.array([NAN, 0, 2.5, 3, NAN], np.float32))
    assert kept == {"sex": "female", "fare/£": 2.5, "port": "all others"}


def test_a_table_is_derived_from_a_frame() -> None:
    frame = pd.DataFrame(
        {
            "count": [1, 2, 3],
            "nullable": pd.array([1, None, 3], dtype="Int64"),
            "share": np.array([0.5, np.nan, 1], np.float32),
            "old": [True, False, True],
            "maybe": pd.array([True, None, False], dtype="boolean"),
            "port": ["S", "C", None],
            "size": pd.Categorical(["S", "M", "S"], categories=["S", "M", "L"], ordered=True),
            "named": pd.array(["b", "a", "b"], dtype="string"),
        }
    )
    table = Table.of(frame)
    assert table.columns == {
        "count": Number(),
        "nullable": Number(optional=True),
        "share": Number(optional=True),
        "old": Number(minimum=0, maximum=1),
        "maybe": Number(minimum=0, maximum=1, optional=True),
        "port": Category(values=("C", "S"), optional=True),
        "size": Category(values=("S", "M", "L")),
        "named": Category(values=("a", "b")),
    }
    expected = [[1, 1, 0.5, 1, 1, 1, 0, 1], [2, NAN, NAN, 0, NAN, 0, 1, 0], [3, 3, 1, 1, 0, NAN, 0, 1]]
    assert np.array_equal(table.encode(frame), np.array(expected, np.float32), equal_nan=True)
    assert msgspec.json.decode(msgspec.json.encode(table), type=Field) == table


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (pd.to_datetime(["2026-11-05", None]), r"column x is datetime64.*: a table holds numbers and categories"),
        (pd.to_timedelta([1, 2], "s"), "column x is timedelta64"),
        (pd.Series([1, "a"], dtype=object), "column x has values that are no texts"),
        (pd.Series([None, None], dtype=object), "or none at all"),
        (pd.Categorical([1, 2]), "column x has values that are no texts"),
        (
            [f"name {index}" for index in range(1001)],
            "column x has 1,001 different texts, and a category at most 1,000",
        ),
        (["a", ""], "column x: .*not empty"),
        ([2**24 + 1, 1], "column x has whole numbers beyond 16,777,216, which float32 cannot tell apart"),
        ([2**63, 1], "column x has whole numbers beyond"),
        ([1j, 2], "column x is complex"),
    ],
)
def test_a_column_that_a_table_cannot_hold_is_refused(values: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Table.of(pd.DataFrame({"x": values}))


def test_names_of_columns_are_texts_and_different() -> None:
    with pytest.raises(ValueError, match="each a text for its name"):
        Table.of(pd.DataFrame([[1.0, 2.0]]))
    with pytest.raises(ValueError, match="two columns of the frame have the same name"):
        Table.of(pd.DataFrame([[1.0, 2.0]], columns=["a", "a"]))
