"""Both clients against a real service with two workers: each kind of input, many rows, outcomes, and problems."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import io
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from rollout.client import (
    AsyncClient,
    BodyTooLargeError,
    Client,
    ClientError,
    Instance,
    InvalidRequestError,
    NoAnswerError,
    OutcomeConflictError,
    Prediction,
    UnauthorizedError,
    UnknownModelError,
    UnreachableError,
)
from tests.conftest import Service, free_port
from tests.images import held_out
from tests.passengers import RAW

ROWS = 1000


def pixels(number: int = 0) -> NDArray[np.uint8]:
    """Returns one test image."""
    image: NDArray[np.uint8] = held_out().inputs["image"][number]
    return image


def many() -> NDArray[np.uint8]:
    """Returns a thousand images."""
    images = held_out().inputs["image"]
    return np.resize(images, (ROWS, *images.shape[1:]))


def test_an_image_is_an_array_lists_a_picture_bytes_or_a_path(client: Client, tmp_path: Path) -> None:
    picture, file, path = PIL.Image.fromarray(pixels()), io.BytesIO(), tmp_path / "digit.png"
    picture.save(file, "PNG")
    path.write_bytes(file.getvalue())
    answers = [
        client.predict("c-1", {"image": image}, "order-17")
        for image in (pixels(), pixels().tolist(), picture, file.getvalue(), path)
    ]
    first = answers[0]
    assert isinstance(first, Prediction)
    assert (first.model, first.version, first.client_id, first.key) == ("digits", "v1", "c-1", "order-17")
    assert first.confidence == max((first.scores or {}).values())
    assert answers == [first] * 5


def test_a_file_may_be_as_large_as_a_body(client: Client) -> None:
    noise, file = np.random.default_rng(0).integers(0, 256, (2600, 2600), np.uint8), io.BytesIO()
    PIL.Image.fromarray(noise).save(file, "PNG", compress_level=0)
    assert 6_700_000 < len(file.getvalue()) < 8_000_000  # in base64 it would be more than a service takes
    answer = client.predict("c-é", {"image": file.getvalue()}, "größe/1")
    assert (answer.client_id, answer.key) == ("c-é", "größe/1")
    with pytest.raises(InvalidRequestError) as caught:
        client.predict("c-1", {"image": b"no picture"})
    assert [fault.pointer for fault in caught.value.errors] == ["/inputs/image"]


def test_what_is_missing_and_times_reach_the_model(client: Client) -> None:
    def ask(**inputs: Any) -> Prediction:
        return client.predict("c-1", inputs, model="passengers")

    row = {"age": 36, "class": 1, "sex": "female", "port": "Southampton"}
    sent = ask(row=row, fare=70.5, deck="B", boarded="1912-04-10T12:00:00Z", past=[0.5, -2])
    noon = datetime.datetime(1912, 4, 10, 13, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
    for past in (np.array([0.5, -2]), (0.5, np.float32(-2))):
        other = row | {"age": np.int64(36)}
        assert ask(row=other, fare=np.float64(70.5), deck="B", boarded=noon, past=past) == sent
    assert ask(row=row, fare=70.5, deck="B", boarded=pd.Timestamp(noon), past=[0.5, -2]) == sent
    nothing = ask(row={"class": 3, "sex": "male"}, past=[None, 1])
    missing = {"age": math.nan, "class": 3, "sex": "male", "port": pd.NA}
    assert ask(row=missing, fare=np.nan, deck=None, boarded=pd.NaT, past=np.array([np.nan, 1])) == nothing
    assert nothing != sent


def test_a_frame_has_a_column_for_each_input_and_each_column_of_a_table(client: Client) -> None:
    frame = pd.DataFrame(RAW).assign(client_id=["a", "b", "c", "d"], key=[1, 2, 3, 4], notes="left out")
    rows = [
        {
            "client_id": client_id,
            "key": str(number),
            "inputs": {name: raw[name] for name in ("fare", "deck", "boarded", "past")}
            | {"row": {name: raw[name] for name in ("age", "class", "sex", "port")}},
        }
        for number, (client_id, raw) in enumerate(zip("abcd", RAW, strict=True), 1)
    ]
    expected = client.predict_many(rows, model="passengers")
    assert [one.key for one in expected] == ["1", "2", "3", "4"]
    assert client.predict_many(frame, model="passengers") == expected
    timed = frame.assign(boarded=pd.to_datetime(frame["boarded"], utc=True))
    assert client.predict_many(timed, model="passengers") == expected
    assert client.predict_many(pa.Table.from_pandas(frame), model="passengers") == expected
    by_name = {name: frame[name].tolist() for name in frame.columns}
    assert client.predict_many(by_name, model="passengers", batch=3) == expected
    with pytest.raises(ValueError, match="there is no column sex: add it"):
        client.predict_many(frame.drop(columns="sex"), model="passengers")


async def test_a_thousand_rows_come_back_in_their_order(client: Client, served: Service) -> None:
    images, keys = many(), [f"row-{number}" for number in range(ROWS)]
    whole = client.predict_many({"image": images}, client_id="c-1", key=keys, batch=1000, batch_bytes=8_000_000)
    assert [one.key for one in whole] == keys
    alone = {number: client.predict("c-1", {"image": images[number]}, keys[number]) for number in (0, 417, 999)}
    assert {number: whole[number] for number in alone} == alone
    instances = (Instance("c-1", {"image": image}, key) for image, key in zip(images, keys, strict=True))
    assert client.predict_many(instances, batch=100) == whole
    async with AsyncClient(served.base, model="digits") as other:
        inputs = [{"image": image} for image in images]
        assert await other.predict_many(inputs, client_id="c-1", key=keys, batch=64, at_once=3) == whole


def test_several_heads_and_vectors_are_typed(client: Client) -> None:
    x = np.array([0.5, 0.25, -1.0, 2.0], np.float32)
    answer = client.predict("c-1", {"x": x}, model="tiny-heads")
    assert answer.heads is not None
    assert answer.heads["letter"].label == "d"
    assert answer.heads["size"].interval is not None
    assert answer.heads["prices"].values == {"low": 0.5, "high": 0.25}
    assert answer.more == {}
    assert client.predict("c-1", {"x": x}, model="tiny-embedding").vector == [0.5, 0.25, -1.0]


def test_outcomes_are_reported_once_and_a_contradiction_is_pointed_at(client: Client) -> None:
    client.predict("c-9", {"image": pixels()}, "order-1")
    first = client.feedback("c-9", "order-1", label="7", numbers={"basket_eur": 12.5})
    assert (first.label, first.repeated, first.numbers) == ("7", False, {"basket_eur": 12.5})
    assert client.feedback("c-9", "order-1", label="7", numbers={"basket_eur": 12.5}).repeated
    with pytest.raises(OutcomeConflictError, match="stays so") as caught:
        client.feedback("c-9", "order-1", label="8")
    assert [fault.pointer for fault in caught.value.errors] == ["/label"]
    outcomes = [{"client_id": "c-9", "key": f"many-{number}", "label": "3"} for number in range(5)]
    assert [one.key for one in client.feedback_many(outcomes, batch=2)] == [f"many-{n}" for n in range(5)]
    outcomes[3]["label"] = "4"
    with pytest.raises(OutcomeConflictError) as caught:
        client.feedback_many(outcomes, batch=2)
    assert [fault.pointer for fault in caught.value.errors] == ["/outcomes/3/label"]


def test_outcomes_take_the_form_of_their_head(client: Client) -> None:
    truth = {"prices": {"values": {"low": 0.5, "high": 2.0}}, "topics": {"labels": ["sport"]}}
    heads = client.feedback("c-1", "a", heads=truth, model="tiny-heads").heads or {}
    assert (heads["prices"].values, heads["topics"].labels) == ({"low": 0.5, "high": 2.0}, ["sport"])
    vector = np.array([0.5, 1, 0])
    assert client.feedback("c-1", "a", vector=vector, model="tiny-embedding").vector == [0.5, 1.0, 0.0]


def test_models_and_verdicts_are_typed(client: Client) -> None:
    digits = client.model()
    assert digits.inputs["image"]["kind"] == "image"
    assert digits.split["challenger"] == "v2"
    assert {one.model for one in client.models()} >= {"digits", "passengers"}
    assert client.verdict().verdict == "hold"


def test_an_answer_is_explained(client: Client) -> None:
    row = {"age": 36, "class": 1, "sex": "female", "port": "Southampton"}
    why = client.explain("c-1", {"row": row, "past": [0.5, -2]}, model="passengers", timeout=120)
    assert {one.field for one in why.attributions} >= {"row", "past"}
    assert (why.client_id, why.arm, set(why.more)) == ("c-1", "champion", {"passes", "seed"})


def test_a_problem_says_where_in_all_rows_it_is(client: Client) -> None:
    rows: list[Any] = [{"image": pixels()}] * 7
    rows[5] = {"image": [[0]]}
    with pytest.raises(InvalidRequestError, match="/instances/5/inputs/image") as caught:
        client.predict_many(rows, client_id="c-1", batch=2)
    problem = caught.value
    assert (problem.status, [fault.pointer for fault in problem.errors]) == (422, ["/instances/5/inputs/image/0"])
    assert problem.title == "The request does not fit what the model takes"
    assert len(problem.trace_id) == 32


@pytest.mark.parametrize(
    ("ask", "kind"),
    [
        (lambda client: client.verdict(model="no-such"), UnknownModelError),
        (lambda client: client.predict("c-1", {"image": b"x" * 9_000_000}), BodyTooLargeError),
        (lambda client: client.predict("c-1", {"picture": "x"}), InvalidRequestError),
    ],
)
def test_each_problem_has_a_class(
    client: Client, ask: Callable[[Client], object], kind: type[ClientError]
) -> None:
    with pytest.raises(kind):
        ask(client)


def test_a_wrong_token_is_refused_and_never_shown(served: Service) -> None:
    with Client(served.base, token="not-the-token\n", model="digits") as stranger:
        with pytest.raises(UnauthorizedError) as caught:
            stranger.model()
        assert "not-the-token" not in f"{stranger!r} {caught.value!r} {caught.value}"
    with Client(served.base, token=served.token, model="digits") as admin:
        assert admin.predict("c-1", {"image": pixels()}, arm="challenger").version == "v2"


async def test_nobody_there_is_told_within_the_timeout() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    started = time.monotonic()
    with Client(url, model="digits") as client, pytest.raises(UnreachableError, match=url):
        client.verdict(timeout=0.5)
    async with AsyncClient(url, model="digits") as other:
        with pytest.raises(UnreachableError, match=url):
            await other.verdict(timeout=0.5)
    assert time.monotonic() - started < 5


@contextlib.asynccontextmanager
async def listening(handle: Callable[..., Awaitable[None]]) -> AsyncIterator[str]:
    """Runs a server that does something with each connection, and waits until all are closed; yields its URL."""
    handlers = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            await handle(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
        await asyncio.wait_for(asyncio.gather(*handlers, return_exceptions=True), 10)


async def test_silence_ends_at_the_timeout_and_a_cancelled_call_at_once() -> None:
    came, gone = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        came.set()
        await reader.read(-1)  # until the client hangs up
        gone.set()

    async with listening(say_nothing) as url, AsyncClient(url, model="digits") as client:
        with pytest.raises(NoAnswerError, match=r"within 0\.2 s"):
            await client.verdict(timeout=0.2)
        await asyncio.wait_for(gone.wait(), 5)
        came.clear()
        gone.clear()
        call = asyncio.create_task(client.predict_many([{"x": 1}] * 100, client_id="c-1", batch=1))
        await asyncio.wait_for(came.wait(), 5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(gone.wait(), 5)
        with Client(url, model="digits") as other, pytest.raises(NoAnswerError):
            await asyncio.to_thread(other.verdict, timeout=0.2)


async def test_a_connection_that_breaks_is_made_again() -> None:
    came = 0
    body = b'{"model":"m","revision":1,"verdict":"hold","reason":"no_trial","detail":""}'

    async def break_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        await reader.readuntil(b"\r\n\r\n")
        if came % 2 == 0:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()

    async with listening(break_first) as url, AsyncClient(url, model="m") as other:
        with Client(url, model="m") as client:
            assert await asyncio.to_thread(client.verdict) == await other.verdict()
    assert came == 4
