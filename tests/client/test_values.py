"""What callers have in Python becomes what the service takes in JSON, or is refused before it is sent."""

from __future__ import annotations

import base64
import datetime
import math
import pickle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch

from rollout.client import Client, Instance, OverloadedError, Problem
from rollout.client.answers import Prediction, read_answer
from rollout.client.instances import encode_alone, encode_instance, pack_instances, read_instances
from rollout.client.problems import UnexpectedAnswerError
from rollout.client.values import cells, plain

NOON = datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.UTC)


def sent(value: Any) -> Any:
    """Returns a value as it is read on the other side."""
    return msgspec.json.decode(msgspec.json.encode(plain(value)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, 1),
        (np.bool_(False), 0),
        (np.array([True, False]), [1, 0]),
        (np.float32(0.5), 0.5),
        (np.array([[1, 2]], np.uint8), [[1, 2]]),
        (np.array([0.5, np.nan]), [0.5, None]),
        (np.array(["a", None], object), ["a", None]),
        (torch.tensor([0.5, math.nan]), [0.5, None]),
        ((1, (2.5, float("nan"))), [1, [2.5, None]]),
        ({"a": pd.NA, 3: pd.NaT}, {"a": None, "3": None}),
        (np.datetime64("NaT"), None),
        (NOON, "2026-11-29T12:00:00+00:00"),
        (pd.Timestamp(NOON), "2026-11-29T12:00:00+00:00"),
        (pd.Series([1.5, None]), [1.5, None]),
        (bytearray(b"file"), base64.b64encode(b"file").decode()),
    ],
)
def test_values_are_sent_as(value: Any, expected: Any) -> None:
    assert sent(value) == expected


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK"])
def test_pictures_of_any_mode_are_files(mode: str) -> None:
    assert base64.b64decode(sent(PIL.Image.new(mode, (3, 2)))).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (math.inf, ValueError, "infinite"),
        (np.array([1, -np.inf]), ValueError, "infinite"),
        (datetime.datetime(2026, 1, 1), ValueError, "no time zone"),
        (np.datetime64("2026-01-01"), ValueError, "no time zone"),
        (np.array(["2026-01-01"], "datetime64[ns]"), ValueError, "no time zone"),
        (np.timedelta64(1, "ns"), ValueError, "a duration"),
        ({1, 2}, TypeError, "a set"),
        (1j, TypeError, "a complex"),
        (Path("/no/such/file"), FileNotFoundError, "/no/such/file"),
    ],
)
def test_what_is_none_is_refused_with_its_place(value: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        encode_instance(Instance("c", {"x": [0, value]}), "/instances/3")
    assert error is FileNotFoundError or "/instances/3/inputs/x/1" in str(caught.value)


def test_times_of_a_column_do_not_become_numbers() -> None:
    (cell,) = cells(np.array(["2026-01-01"], "datetime64[ns]"))
    with pytest.raises(ValueError, match="no time zone"):
        plain(cell)


@pytest.mark.parametrize(
    ("rows", "ids", "words"),
    [
        ([{"x": 1}], {}, "row 1 is no instance"),
        ([{"x": 1}, {"x": 2}], {"client_id": ["a"]}, "row 2 has none"),
        ([{"x": 1}], {"client_id": ["a", "b"]}, "more client IDs or keys than the 1 rows"),
        ([{"x": 1}], {"client_id": "a", "key": ["k", "l"]}, "more client IDs or keys than the 1 rows"),
        ({"x": [1, 2]}, {"client_id": "a", "key": ["k"]}, "different lengths"),
        ({"x": [1, 2]}, {}, "no column client_id"),
    ],
)
def test_rows_and_ids_that_do_not_fit_are_refused(rows: Any, ids: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        list(read_instances(rows, fields={"x": {"kind": "number"}}, **ids))


def test_ids_are_texts_or_whole_numbers() -> None:
    assert msgspec.json.decode(encode_instance(Instance(np.int64(7), {}, 8)))["client_id"] == "7"  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="/client_id is a float"):
        encode_instance(Instance(7.5, {}))  # type: ignore[arg-type]


def test_a_row_with_a_file_is_a_form_unless_its_names_are_taken() -> None:
    body, media_type = encode_alone(Instance("c", {"image": b"\x00\xff", "at": "noon", "x": [1]}, "k"))
    assert media_type.startswith("multipart/form-data; boundary=")
    assert b'name="image"\r\nContent-Type: application/octet-stream\r\n\r\n\x00\xff\r\n--' in body
    assert b'name="x"\r\nContent-Type: application/json\r\n\r\n[1]\r\n--' in body
    for inputs in ({"image": b"1", "key": "k"}, {"image": b"1", 'a"b': 1}, {"x": [b"1"]}):
        assert encode_alone(Instance("c", inputs, "k"))[1] == "application/json"


def test_requests_hold_no_more_than_they_may() -> None:
    rows = [b"x" * size for size in (10, 10, 90, 10, 10, 10)]
    packed = list(pack_instances(rows, 2, 60))
    assert [(first, [len(row) for row in some]) for first, some in packed] == [
        (0, [10, 10]),
        (2, [90]),
        (3, [10, 10]),
        (5, [10]),
    ]


@pytest.mark.parametrize("body", [b"[]", b'{"predictions":3}', b"null", b'{"vector":"AA==","model":"m"}'])
def test_another_answer_is_said_to_be_one(body: bytes) -> None:
    with pytest.raises(UnexpectedAnswerError):
        read_answer(body, Prediction)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"url": "localhost:3000"}, "begins with http://"),
        ({"token": "a b"}, "the token"),
        ({"token": ""}, "the token"),
        ({"timeout": 0}, "a timeout"),
        ({"timeout": math.inf}, "a timeout"),
        ({"user_agent": "a\nb"}, "user_agent"),
    ],
)
def test_a_client_is_made_with_what_fits(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Client(**({"url": "http://localhost:3000"} | arguments))
    assert "a b" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    with Client("https://ada:secret@host/rollout/", token="secret-token", headers={"X-Team": "a"}) as client:
        assert repr(client) == "Client(https://host/rollout, model=None)"
        assert client._http.headers["Authorization"] == "Bearer secret-token"
        assert client._http.headers["X-Team"] == "a"
        with pytest.raises(ValueError, match="name the model"):
            client.predict("c", {})


def test_a_problem_goes_through_pickle() -> None:
    problem = OverloadedError({"type": "overloaded", "status": 503, "detail": "later"}, "0af7", 2.0)
    back = pickle.loads(pickle.dumps(problem))  # noqa: S301
    assert isinstance(back, Problem)
    assert (str(back), back.retry_after) == ("503 overloaded: later (trace 0af7)", 2.0)


def test_pointers_into_a_part_are_into_all_and_others_stay() -> None:
    long, at = f"/instances/{'9' * 5000}", "/instances/3/inputs/x"
    errors = [{"pointer": f"#{at}", "detail": "wrong"}, {"pointer": long, "detail": "wrong"}]
    moved = Problem(
        {"type": "invalid-request", "status": 422, "detail": f"{at} is wrong", "errors": errors}
    ).moved(64)
    assert moved.detail == "/instances/67/inputs/x is wrong"
    assert [one.pointer for one in moved.errors] == ["/instances/67/inputs/x", long]
