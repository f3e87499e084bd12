"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from rollout.client import calls
from rollout.client.answers import Explanation, Model, Outcome, Prediction, Verdict
from rollout.client.calls import BATCH, BATCH_BYTES, Call
from rollout.client.instances import has_columns
from rollout.client.options import EXPLAIN_S, TIMEOUT_S, make_options
from rollout.client.problems import MOST_BYTES, ClientError, NoAnswerError, UnreachableError, too_large
from rollout.client.retries import Came, CameOf, Send, attempts

Read = TypeVar("Read")


class AsyncClient:
    """A client of a Rollout service for asyncio: as ``Client``, and what is cancelled is given up at once.

    Values are encoded in a thread, so that arrays and files do not hold up the event loop.

    Args:
        url: Where the service is, such as ``http://localhost:3000``.
        token: Sent as a bearer token. Neither ``repr`` nor an error shows it.
        model: The model that is meant where a call names none.
        timeout: Seconds that a call may take where it says nothing.
        user_agent: What calls, such as ``shop/1.2``.
        **http: For ``httpx.AsyncClient``, such as ``verify``, ``proxy`` and ``limits``.

    Raises:
        ValueError: If one of them does not fit.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        model: str | None = None,
        timeout: float = TIMEOUT_S,
        user_agent: str | None = None,
        **http: Any,
    ) -> None:
        self._options = make_options(url, token, model, timeout, user_agent)
        self._http = httpx.AsyncClient(**self._options.for_httpx(http))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._options!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def predict(
        self,
        client_id: str,
        inputs: Mapping[str, Any],
        key: str | None = None,
        *,
        segment: str | None = None,
        arm: str | None = None,
        model: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  of the service, too
    ) -> Prediction:
        """Predicts one row, as ``Client.predict`` does."""
        name, options = self._options.model_of(model), calls.options_of(segment, arm)
        call = await asyncio.to_thread(calls.predict, name, client_id, inputs, key, options)
        return await self._do(call, timeout)

    async def predict_many(
        self,
        rows: Any,
        *,
        client_id: Any = None,
        key: Any = None,
        batch: int = BATCH,
        batch_bytes: int = BATCH_BYTES,
        at_once: int = 4,
        segment: str | None = None,
        model: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> list[Prediction]:
        """Predicts many rows, as ``Client.predict_many`` does."""
        name, options = self._options.model_of(model), calls.options_of(segment, None)
        fields = (await self.model(name)).inputs if has_columns(rows) else None
        ids = {"client_id": client_id, "key": key, "fields": fields}
        each = calls.predict_many(name, rows, ids, batch, batch_bytes, options)
        return await self._do_all(each, at_once, timeout)

    async def feedback(
        self,
        client_id: str,
        key: str,
        *,
        numbers: Mapping[str, float] | None = None,
        model: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
        **truth: Any,
    ) -> Outcome:
        """Reports what turned out to be true of a prediction, as ``Client.feedback`` does."""
        call = calls.feedback(self._options.model_of(model), client_id, key, {"numbers": numbers} | truth)
        return await self._do(call, timeout)

    async def feedback_many(
        self,
        outcomes: Iterable[Mapping[str, Any]],
        *,
        batch: int = BATCH,
        at_once: int = 4,
        model: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> list[Outcome]:
        """Reports outcomes, as ``Client.feedback_many`` does."""
        return await self._do_all(
            calls.feedback_many(self._options.model_of(model), outcomes, batch), at_once, timeout
        )

    async def explain(
        self,
        client_id: str,
        inputs: Mapping[str, Any],
        *,
        label: str | None = None,
        head: str | None = None,
        seed: int | None = None,
        model: str | None = None,
        timeout: float = EXPLAIN_S,  # noqa: ASYNC109
    ) -> Explanation:
        """Says what the parts of one row do to its answer, as ``Client.explain`` does."""
        asked = {"label": label, "head": head, "seed": seed}
        name = self._options.model_of(model)
        return await self._do(await asyncio.to_thread(calls.explain, name, client_id, inputs, asked), timeout)

    async def verdict(
        self,
        *,
        model: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Verdict:
        """Returns what the evidence says about the challenger."""
        return await self._do(calls.verdict(self._options.model_of(model)), timeout)

    async def model(
        self,
        model: str | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Model:
        """Returns what a model takes and gives, and which versions are served."""
        return await self._do(calls.model(self._options.model_of(model)), timeout)

    async def models(self, *, timeout: float | None = None) -> list[Model]:  # noqa: ASYNC109
        """Returns all models that are served."""
        return await self._do(calls.models(), timeout)

    async def _do(self, call: Call[Read], timeout: float | None) -> Read:  # noqa: ASYNC109
        """Does what ``attempts`` says."""
        steps = attempts(call, self._options.timeout_of(timeout))
        came: CameOf = None
        try:
            while True:
                step = steps.send(came)
                came = await (self._send(call, step) if isinstance(step, Send) else asyncio.sleep(step.seconds))
        except StopIteration as done:
            answer: Read = done.value
            return answer

    async def _do_all(
        self,
        each: Iterator[Call[list[Read]]],
        at_once: int,
        timeout: float | None,  # noqa: ASYNC109
    ) -> list[Read]:
        """Does calls, a bounded number at the same time, and joins their answers in order."""
        if at_once < 1:
            raise ValueError("at_once must be 1 or more")
        answers: list[Read] = []
        sent: deque[asyncio.Task[list[Read]]] = deque()
        try:
            while (call := await asyncio.to_thread(next, each, None)) is not None:
                if len(sent) == at_once:
                    answers += await sent[0]
                    sent.popleft()
                sent.append(asyncio.create_task(self._do(call, timeout)))
            while sent:
                answers += await sent[0]
                sent.popleft()
        finally:
            for task in sent:
                task.cancel()
            await asyncio.gather(*sent, return_exceptions=True)
        return answers

    async def _send(self, call: Call[Any], step: Send) -> Came | ClientError:
        try:
            async with asyncio.timeout(step.seconds):
                async with self._http.stream(
                    call.method,
                    call.path,
                    content=call.body or None,
                    params=call.params,
                    headers=httpx.Headers({**call.headers, **step.headers}, encoding="utf-8"),
                    timeout=None,
                ) as response:
                    body = bytearray()
                    async for piece in response.aiter_raw():
                        body += piece
                        if len(body) > MOST_BYTES:
                            return too_large(response.status_code)
                    return Came(response.status_code, response.headers, bytes(body))
        except TimeoutError:
            return NoAnswerError()
        except httpx.RequestError as error:
            return UnreachableError(f"{self._options.url_shown}: {error or type(error).__name__}")
