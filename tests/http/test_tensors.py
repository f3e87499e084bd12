"""Tensors: what comes in is checked element by element, and what goes out comes back as it was."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from rollout import Audio, Category, Image, Number, Table, Tensor, Text, Time
from rollout.bundle.codec import Codec
from rollout.bundle.fields import Field
from rollout.bundle.image_file import PixelBudget
from rollout.bundle.schema import InvalidInputsError
from rollout.http.tensors import Column, Content, OutputTensor, SentRows, declare, read_content, row_shape
from tests.sounds import in_base64, sound, tone

PAIR = Tensor(shape=(2,), minimum=-1, maximum=0.1)
COUNTS = Tensor(shape=(), dtype="int64", minimum=0)
ANY = Tensor(shape=(3,))


def read(content: Content, field: Field, rows: int = 1) -> Column:
    return read_content(content, field, Codec(field), rows, field.step_shape)


def binary(*values: float, dtype: str = "<f4") -> memoryview:
    return memoryview(np.array(values, dtype).tobytes())


def strings(*texts: str | bytes) -> memoryview:
    return memoryview(serialize_byte_tensor(np.array(texts, object)).item())


@given(npst.arrays(np.float32, (4, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_the_three_ways_in_agree(sent: np.ndarray[Any, Any]) -> None:
    ways: list[Content] = [
        memoryview(sent.tobytes()),
        msgspec.Raw(msgspec.json.encode(sent.tolist())),
        msgspec.Raw(msgspec.json.encode(sent.ravel().tolist())),
        sent.ravel().tolist(),
    ]
    for way in ways:
        array, kept = read(way, ANY, 4)
        assert array.dtype == np.float32
        assert (array == sent).all()
        assert isinstance(kept, np.ndarray)


def test_binary_numbers_are_a_view_unless_they_lie_across_the_boundaries() -> None:
    whole = memoryview(bytearray(9))
    assert np.shares_memory(read(whole[:8], PAIR).array, np.frombuffer(whole, np.uint8))
    moved = read(whole[1:], PAIR).array
    assert moved.flags.aligned
    assert not np.shares_memory(moved, np.frombuffer(whole, np.uint8))


def test_a_limit_is_taken_in_the_precision_of_the_tensor() -> None:
    assert read(binary(0.1, -1), PAIR).array.tolist() == [[np.float32(0.1), -1]]


@pytest.mark.parametrize(
    ("content", "field", "rows", "words"),
    [
        (binary(0, float("nan")), PAIR, 1, r"holds nan at \[0, 1\]; it must lie between -1 and 0.1"),
        (binary(0, 0, -1.5, 0), PAIR, 2, r"holds -1.5 at \[1, 0\]"),
        (binary(float("inf"), 0, 0), ANY, 1, r"holds inf at \[0, 0\]"),
        (binary(0, 0, 0), PAIR, 1, "holds 12 bytes; its shape and datatype take 8"),
        (binary(0, dtype="u1"), PAIR, 1, "holds 1 bytes"),
        (binary(-1, dtype="<i8"), COUNTS, 1, r"holds -1 at \[0\]; it must lie between 0 and"),
        ([0.0, float("nan")], PAIR, 1, "holds nan"),
        ([0.0], PAIR, 1, "holds 1 elements; its shape and datatype take 2"),
        ([256], Image(height=1, width=1), 1, "holds 256 at"),
        (msgspec.Raw(b"[0, 1e39]"), PAIR, 1, "/data/1"),
        (msgspec.Raw(b"[0, 0.2]"), PAIR, 1, "/data/1"),
        (msgspec.Raw(b"[[0, 0], [0, true]]"), PAIR, 2, "/data/1/1"),
        (msgspec.Raw(b"[[0, 0]]"), PAIR, 2, "/data"),
        (msgspec.Raw(b"[0, 0]"), PAIR, 2, "/data"),
        (msgspec.Raw(b'{"b64": ""}'), PAIR, 1, "/data"),
        (msgspec.Raw(b"[1.5]"), COUNTS, 1, "/data/0"),
        (strings("LHR"), Category(values=("JFK", "EWR")), 1, "/data/0: .*one of JFK, EWR"),
        (strings("so", "later"), Text(max_bytes=4), 2, "/data/1: .*at most 4"),
        (strings(b"\xff"), Text(), 1, "/data/0: is not UTF-8"),
        (strings("2026-11-05T10:00:00"), Time(), 1, "/data/0: .*with its zone"),
        (strings("a"), Text(), 2, "must hold 2 strings"),
        (strings("a", "b"), Text(), 1, "must hold 1 strings"),
        (memoryview(struct.pack("<I", 9) + b"short"), Text(), 1, "must hold 1 strings"),
        (memoryview(struct.pack("<I", 2**32 - 1)), Text(), 1, "must hold 1 strings"),
        (memoryview(b"\0\0"), Text(), 1, "must hold 1 strings"),
        ([b"a", b"b"], Text(), 3, "holds 2 strings; its shape and datatype take 3"),
        (msgspec.Raw(b'["a", 7]'), Text(), 2, "/data: must be a list of strings"),
        (msgspec.Raw(b'[["a", "b"]]'), Text(), 1, "/data: must be a list of strings"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(content: Content, field: Field, rows: int, words: str) -> None:
    with pytest.raises(InvalidInputsError, match=words):
        read(content, field, rows)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([], r"must be \[rows, 2\], not \[\]"),
        ([2], r"must be \[rows, 2\], not \[2\]"),
        ([1, 2, 1], r"not \[1, 2, 1\]"),
        ([-1, 2], "must begin with 1 to 8 rows, not -1"),
        ([0, 2], "not 0"),
        ([9, 2], "not 9"),
        ([2, -2], r"not \[2, -2\]"),
        ([1] * 1_000_000, r"not \[1(, 1){15}\] and so on$"),
    ],
)
def test_shapes_that_do_not_fit(shape: list[int], words: str) -> None:
    with pytest.raises(InvalidInputsError, match=words):
        row_shape(shape, declare("pair", PAIR), None, 8)


def test_one_element_a_row_comes_in_either_shape() -> None:
    for field in (Number(), Text(), Time()):
        declared = declare("x", field)
        assert declared.shape == [-1]
        assert row_shape([3], declared, None, 8) == row_shape([3, 1], declared, None, 8) == ()
    for data in (b"[1, 2]", b"[[1], [2]]"):
        assert read(msgspec.Raw(data), Number(), 2).array.tolist() == [1, 2]
    for data in (b'["a", "b"]', b'[["a"], ["b"]]'):
        assert read(msgspec.Raw(data), Text(max_bytes=1), 2).sent == ["a", "b"]


def test_what_was_sent_is_made_row_by_row() -> None:
    sent = SentRows(
        {"x": read(binary(0, 0, -1, -0.5), PAIR, 2), "name": read(strings("so", "é"), Text(), 2)},
        {"x": PAIR, "name": Text()},
    )
    assert len(sent) == 2
    assert sent[1] == {"x": [-1, -0.5], "name": "é"}


ROW = Table(
    columns={"age": Number(optional=True), "port": Category(values=("C", "Q")), "fare": Number(default=7)}
)


def test_nan_and_null_are_missing_numbers_where_they_may_be() -> None:
    nan = np.nan
    fields: dict[str, Field] = {
        "age": Number(optional=True),
        "fare": Number(default=7),
        "pair": Tensor(shape=(2,), nan=True),
        "row": ROW,
    }
    sent: dict[str, Any] = {
        "age": [nan, 2],
        "fare": [nan, 2],
        "pair": [[nan, 1], [2, 3]],
        "row": [[nan, 1, nan], [2, 0, 3]],
    }
    gets = sent | {"fare": [7, 2], "row": [[nan, 1, 7], [2, 0, 3]]}
    kept = [
        {"pair": [None, 1], "row": {"port": "Q"}},
        {"age": 2, "fare": 2, "pair": [2, 3], "row": {"age": 2, "port": "C", "fare": 3}},
    ]
    for way in ("binary", "typed", "nested", "flat"):
        columns = {}
        for name, field in fields.items():
            array = np.array(sent[name], np.float32)
            flat, lists = array.ravel().tolist(), array.tolist()
            content: dict[str, Content] = {
                "binary": memoryview(array.tobytes()),
                "typed": flat,
                "nested": msgspec.Raw(msgspec.json.encode(lists if array.ndim > 1 else [[one] for one in lists])),
                "flat": msgspec.Raw(msgspec.json.encode(flat)),
            }
            columns[name] = read(content[way], field, 2)
            assert np.array_equal(columns[name].array, gets[name], equal_nan=True), (way, name)
        assert list(SentRows(columns, fields)) == kept


@pytest.mark.parametrize(
    ("field", "numbers", "words"),
    [
        (Number(), [np.nan], r"holds nan at \[0\]"),
        (Number(optional=True, maximum=3), [4], r"holds 4.0 at \[0\]"),
        (PAIR, [np.nan, 0], "holds nan"),
        (ROW, [1, np.nan, 1], r"holds nan at \[0, 1\], in port; it must be the index of one of C, Q"),
        (ROW, [1, 2, 1], "holds 2.0 .* in port"),
        (ROW, [np.inf, 1, 1], "holds inf .* in age"),
    ],
)
def test_nan_is_refused_where_nothing_may_be_missing(field: Field, numbers: list[float], words: str) -> None:
    ways: list[Content] = [binary(*numbers), numbers]
    for way in ways:
        with pytest.raises(InvalidInputsError, match=words):
            read(way, field, 1)
    for json in (b"NaN", b"null"):
        with pytest.raises(InvalidInputsError, match="/data"):
            read(msgspec.Raw(b"[" + json + b"]"), Number(), 1)


def test_files_come_as_they_are_or_in_base64_and_are_kept_alike() -> None:
    field, file = Audio(sample_rate=8000), sound(tone(0.1, 8000), 8000)
    for way in (strings(file), [file], msgspec.Raw(msgspec.json.encode([in_base64(file)]))):
        column = read(way, field)
        assert len(column.array[0]) == 800
        (kept,) = SentRows({"sound": column}, {"sound": field})
        assert msgspec.json.decode(msgspec.json.encode(kept)) == {"sound": in_base64(file)}
    for way in (strings(file[:20]), [in_base64(file).encode()]):
        with pytest.raises(InvalidInputsError, match="/data/0: the"):
            read(way, field)
    budget = PixelBudget(1_000)
    with pytest.raises(
        InvalidInputsError, match="/data/1: the sounds of a request may have 1,000 samples together"
    ):
        read_content([file, file], field, Codec(field), 2, (), budget)


def test_strings_that_are_null_or_empty_are_missing_where_they_may_be() -> None:
    port, text = Category(values=("C", "Q"), optional=True), Text(max_bytes=2, default="?")
    null = msgspec.Raw(b'["C", null]'), msgspec.Raw(b'[["C"], [null]]')
    ways: list[Content] = [strings("C", ""), ["C", b""], *null]
    for way in ways:
        for field, gets in ((port, [[67], [0]]), (text, [[67, 0], [63, 0]])):
            column = read(way, field, 2)
            assert column.array.tolist() == gets
            assert list(SentRows({"x": column}, {"x": field})) == [{"x": "C"}, {}]
    with pytest.raises(InvalidInputsError, match=r"/data/1: .*it must be one of C, Q"):
        read(null[0], Category(values=("C", "Q")), 2)
    assert read(strings("C", ""), Text(max_bytes=1), 2).sent == ["C", ""]


@given(st.lists(st.text(), min_size=1))
def test_strings_go_out_as_clients_read_them(texts: list[str]) -> None:
    encoded = OutputTensor("label", "BYTES", [len(texts)], texts).to_binary()
    assert [one.decode() for one in deserialize_bytes_tensor(encoded)] == texts


@pytest.mark.parametrize(
    ("datatype", "values", "binary", "listed"),
    [
        ("FP32", [[0.1], [2.0]], np.array([0.1, 2], "<f4").tobytes(), [0.1, 2.0]),
        ("FP16", [[0.1], [2.0]], np.array([0.1, 2], "<f2").tobytes(), [0.1, 2.0]),
        ("FP64", [[0.1], [2.0]], np.array([0.1, 2], "<f8").tobytes(), [0.1, 2.0]),
        ("INT64", [[-1.0], [2.0]], np.array([-1, 2], "<i8").tobytes(), [-1, 2]),
        ("INT32", [[-1.0], [2.0]], np.array([-1, 2], "<i4").tobytes(), [-1, 2]),
        ("UINT8", [[1.0], [2.0]], b"\1\2", [1, 2]),
        ("BOOL", [[0.0], [1.0]], b"\0\1", [False, True]),
        ("BYTES", [["a"], ["b"]], b"\1\0\0\0a\1\0\0\0b", ["a", "b"]),
    ],
)
def test_an_output_is_written_in_the_type_that_it_is_declared_with(
    datatype: str, values: list[Any], binary: bytes, listed: list[Any]
) -> None:
    output = OutputTensor("part", datatype, [2, 1], np.array(values))
    assert output.to_binary() == binary
    assert msgspec.json.encode(output.to_list()) == msgspec.json.encode(listed)
