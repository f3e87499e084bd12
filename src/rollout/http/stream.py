"""Predict over a stream: a line in, a line out, in constant memory, as fast as the caller takes answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from starlette.types import Receive, Send

from rollout import metrics
from rollout.bundle.parity import take
from rollout.config import Settings
from rollout.errors import (
    BodyTooLargeError,
    DeadlineExceededError,
    OverloadedError,
    PredictionFailedError,
    RolloutError,
    invalid,
)
from rollout.http.lines import Line, Lines
from rollout.http.predict import Decoder, Instance, decode_instance, make_rows
from rollout.http.problems import as_rollout_error, problem_document
from rollout.http.request_options import RequestOptions
from rollout.inference.engine import Engine
from rollout.inference.rows import Prediction, Rows, make_predictions
from rollout.inference.served_model import ServedModel

MEDIA_TYPE = b"application/x-ndjson"
# How long a stream stands back while others have more work waiting than there is room for.
PAUSE_S = 0.02
# How long a stream waits for the requests of others, at most, before each group.
GIVE_WAY_MS = 10

_encode_lines = msgspec.json.Encoder().encode_lines


class _Group(NamedTuple):
    """Lines that are scored together.

    Attributes:
        numbers: Their numbers.
        rows: Those that fit, in their order; ``None`` if none does.
        errors: What is wrong with the others, by number.
    """

    numbers: list[int]
    rows: Rows | None
    errors: dict[int, RolloutError]


class PredictStream:
    """Answers one stream.

    At most one group of lines is with the engine, no more than fill a batch, and one more is read ahead: others
    wait for no more than a batch of ours, and a caller who does not take answers is not read from.

    Args:
        engine: Scores the rows.
        model: The model that is asked.
        settings: Limits; the one on a body holds for each line.
        options: What the headers ask for; its deadline holds for each group.
        stopping: Set when the service wants to stop.
        is_gone: Says whether the caller has left.
    """

    def __init__(
        self,
        engine: Engine,
        model: ServedModel,
        settings: Settings,
        options: RequestOptions,
        stopping: asyncio.Event,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> None:
        self._engine = engine
        self._model = model
        self._decoder = Decoder(model.schema, settings, is_gone=is_gone)
        self._is_gone = is_gone
        self._longest = settings.max_body_bytes
        self._options = options
        self._timeout_s = (options.timeout_ms or settings.timeout_ms) / 1000
        self._stopping = stopping
        self._scoring = False

    async def run(self, receive: Receive, send: Send) -> None:
        """Answers every line, until the caller has sent the last one, is gone, or the service stops."""
        headers = [(b"content-type", MEDIA_TYPE)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        groups = self._read(receive)
        stopping = asyncio.ensure_future(self._stopping.wait())
        coming = asyncio.ensure_future(anext(groups, None))
        last = b""
        try:
            while True:
                await asyncio.wait((coming, stopping), return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    raise OverloadedError("the service is stopping: send the lines again that have no answer")
                group = coming.result()
                if group is None:
                    break
                coming = asyncio.ensure_future(anext(groups, None))
                await self._give_way()
                body = await self._answer(group)
                await send({"type": "http.response.body", "body": body, "more_body": True})
        except Exception as error:  # becomes the last line, which is about no line in particular
            last = _encode_lines([self._problem(error)])
        finally:
            stopping.cancel()
            coming.cancel()
        await send({"type": "http.response.body", "body": last})

    async def _read(self, receive: Receive) -> AsyncIterator[_Group]:
        lines = Lines(self._longest)
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request" or self._is_gone():
                return  # in the middle of a line perhaps
            more = message.get("more_body", False)
            found = lines.feed(message.get("body", b""))
            while group := list(islice(found, self._group_size())):
                await self._give_way()
                yield await self._decode(group)
        if rest := list(lines.end()):
            yield await self._decode(rest)

    def _group_size(self) -> int:
        """The rows of a full batch, in whichever version takes the fewest."""
        snapshot = self._model.snapshot
        both = (snapshot.champion, snapshot.challenger or snapshot.champion)
        return min(loaded.profile.max_batch for loaded in both)

    async def _decode(self, lines: Sequence[Line]) -> _Group:
        instances: dict[int, Instance] = {}
        errors: dict[int, RolloutError] = {}
        for number, text in lines:
            if text is None:
                errors[number] = BodyTooLargeError(f"the line is longer than {self._longest:,} bytes")
                continue
            try:
                instances[number] = decode_instance(text)
            except RolloutError as error:
                errors[number] = error.alone()
        decoded = dict(zip(instances, await self._decoder.decode(list(instances.values())), strict=True))
        for number, one in decoded.items():
            if isinstance(one, list):
                errors[number] = invalid(one, instances[number].client_id)
        fitting = [number for number in instances if number not in errors]
        rows = None
        if fitting:
            rows = make_rows(
                [instances[number] for number in fitting],
                [decoded[number] for number in fitting],
                0.0,
                self._options,
            )
        return _Group([number for number, _ in lines], rows, errors)

    async def _give_way(self) -> None:
        """Lets the requests of others that are with the engine finish first, if that does not take long."""
        for _ in range(GIVE_WAY_MS):
            if self._engine.in_flight <= self._scoring:
                break
            await asyncio.sleep(0.001)

    async def _answer(self, group: _Group) -> bytes:
        scored = iter(await self._score(group.rows) if group.rows else ())
        answers: list[Any] = []
        for number in group.numbers:
            answer: Any = group.errors.get(number) or next(scored)
            is_error = isinstance(answer, RolloutError)
            answers.append(self._problem(answer) | {"line": number} if is_error else answer)
        return _encode_lines(answers)

    async def _score(self, rows: Rows) -> Sequence[Prediction | RolloutError]:
        """Scores rows by a deadline of their own. What the model fails on fails alone."""
        rows.deadline = time.monotonic() + self._timeout_s
        count = len(rows.client_ids)
        while True:
            try:
                self._scoring = True
                answers = await self._engine.predict(self._model, rows)
                return make_predictions(self._model.name, rows, answers)
            except (OverloadedError, DeadlineExceededError):
                if time.monotonic() + PAUSE_S >= rows.deadline:
                    return [self._late()] * count
                await asyncio.sleep(PAUSE_S)
            except PredictionFailedError as error:
                if count == 1:
                    return [error.alone()]
                middle = count // 2
                return [
                    *await self._score(_part(rows, slice(middle))),
                    *await self._score(_part(rows, slice(middle, count))),
                ]
            finally:
                self._scoring = False

    def _late(self) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"the service was too busy for {self._timeout_s:g} s; X-Request-Timeout gives lines more time"
        )

    def _problem(self, error: Exception) -> dict[str, Any]:
        ours = as_rollout_error(error)
        metrics.ERRORS.labels(self._model.name, ours.type).inc()
        self._model.note_refused(ours)
        return problem_document(ours)


def _part(rows: Rows, part: slice) -> Rows:
    return msgspec.structs.replace(
        rows,
        client_ids=rows.client_ids[part],
        keys=rows.keys[part],
        arrays=take(rows.arrays, part),
        sent=rows.sent[part],
        traceparents=rows.traceparents[part],
    )
