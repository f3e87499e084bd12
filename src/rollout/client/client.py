"""The client for code that waits."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from rollout.client import calls
from rollout.client.answers import Explanation, Model, Outcome, Prediction, Verdict
from rollout.client.calls import BATCH, BATCH_BYTES, Call
from rollout.client.deadlines import begin, hold_deadlines
from rollout.client.instances import has_columns
from rollout.client.options import EXPLAIN_S, TIMEOUT_S, make_options
from rollout.client.problems import MOST_BYTES, ClientError, NoAnswerError, UnreachableError, too_large
from rollout.client.retries import Came, CameOf, Send, attempts

Read = TypeVar("Read")


class Client:
    """A client of a Rollout service, with one pool of connections. Threads may share it.

    Each method takes ``model``, unless the client has one, and ``timeout``: the seconds that it may take with all
    repeats. A request is repeated where the service is overloaded, not before it says to (``Retry-After``), and
    where a connection breaks; repeating one changes nothing.

    Args:
        url: Where the service is, such as ``http://localhost:3000``.
        token: Sent as a bearer token. Neither ``repr`` nor an error shows it.
        model: The model that is meant where a call names none.
        timeout: Seconds that a call may take where it says nothing.
        user_agent: What calls, such as ``shop/1.2``.
        **http: For ``httpx.Client``, such as ``verify``, ``proxy`` and ``limits``.

    Raises:
        ValueError: If one of them does not fit.

    Example:
        >>> Client("http://localhost:3000", model="digits")
        Client(http://localhost:3000, model='digits')
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
        self._http = httpx.Client(**self._options.for_httpx(http))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._options!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def predict(
        self,
        client_id: str,
        inputs: Mapping[str, Any],
        key: str | None = None,
        *,
        segment: str | None = None,
        arm: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """Predicts one row.

        Args:
            client_id: Your own ID of the client, who gets the same arm each time.
            inputs: A value for each input of the model; see ``docs/client.md`` for what it may be.
            key: Your own ID of this prediction, by which its outcome is reported.
            segment: What the client belongs to, for the rules of the split.
            arm: The arm that an admin looks at, ``champion`` or ``challenger``.
            model: The model.
            timeout: Seconds.

        Raises:
            ValueError: If a value is none that the service takes.
            TypeError: If a value is of a type that none is.
            ClientError: If there is no answer, or the service refused.
        """
        call = calls.predict(
            self._options.model_of(model), client_id, inputs, key, calls.options_of(segment, arm)
        )
        return self._do(call, timeout)

    def predict_many(
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
        timeout: float | None = None,
    ) -> list[Prediction]:
        """Predicts many rows, and returns the answers in their order.

        Args:
            rows: A DataFrame of pandas or polars, an Arrow table or a mapping of columns: one for each input, of
                a ``Table`` its own ones, and ``client_id`` and perhaps ``key``; further ones are left out. Or an
                iterable of ``Instance``, or of mappings like one.
            client_id: The client of all rows, or one for each. With it, an iterable has inputs alone.
            key: A key for each row.
            batch: Rows of a request.
            batch_bytes: Bytes of a request.
            at_once: Requests at the same time.
            segment: What the clients belong to.
            model: The model.
            timeout: Seconds that each request may take.

        Raises:
            ValueError: If a value is none that the service takes; rows before it may have been sent.
            TypeError: If a value is of a type that none is.
            ClientError: If a request has no answer or was refused: pointers are into all rows.
        """
        name, options = self._options.model_of(model), calls.options_of(segment, None)
        fields = (self.model(name)).inputs if has_columns(rows) else None
        ids = {"client_id": client_id, "key": key, "fields": fields}
        each = calls.predict_many(name, rows, ids, batch, batch_bytes, options)
        return self._do_all(each, at_once, timeout)

    def feedback(
        self,
        client_id: str,
        key: str,
        *,
        numbers: Mapping[str, float] | None = None,
        model: str | None = None,
        timeout: float | None = None,
        **truth: Any,
    ) -> Outcome:
        """Reports what turned out to be true of a prediction. The same report again is no other one.

        Args:
            client_id: Its client.
            key: Its key.
            numbers: Numbers of your own.
            model: The model.
            timeout: Seconds.
            **truth: In the form that the model takes: ``label``, ``value``, ``labels``, ``values``, ``vector``,
                ``tensors``, ``spans``, ``boxes`` or ``heads``.

        Raises:
            OutcomeConflictError: If another outcome was reported before, which stays.
            ClientError: If there is no answer, or the service refused.
        """
        call = calls.feedback(self._options.model_of(model), client_id, key, {"numbers": numbers} | truth)
        return self._do(call, timeout)

    def feedback_many(
        self,
        outcomes: Iterable[Mapping[str, Any]],
        *,
        batch: int = BATCH,
        at_once: int = 4,
        model: str | None = None,
        timeout: float | None = None,
    ) -> list[Outcome]:
        """Reports outcomes, each with ``client_id``, ``key`` and what was true, and returns them in their order.

        Raises:
            OutcomeConflictError: If others were reported before, which stay; those of the same request that
                contradict nothing were taken.
            ClientError: If there is no answer, or the service refused.
        """
        return self._do_all(calls.feedback_many(self._options.model_of(model), outcomes, batch), at_once, timeout)

    def explain(
        self,
        client_id: str,
        inputs: Mapping[str, Any],
        *,
        label: str | None = None,
        head: str | None = None,
        seed: int | None = None,
        model: str | None = None,
        timeout: float = EXPLAIN_S,
    ) -> Explanation:
        """Says what the parts of one row do to its answer, where the service has what explains.

        Args:
            client_id: Your own ID of the client.
            inputs: As of ``predict``.
            label: The label whose score is explained; that which was decided unless you say.
            head: The head, of several.
            seed: Of the random orders in which parts are left out.
            model: The model.
            timeout: Seconds.

        Raises:
            ClientError: If there is no answer, or the service refused.
        """
        asked = {"label": label, "head": head, "seed": seed}
        return self._do(calls.explain(self._options.model_of(model), client_id, inputs, asked), timeout)

    def verdict(self, *, model: str | None = None, timeout: float | None = None) -> Verdict:
        """Returns what the evidence says about the challenger."""
        return self._do(calls.verdict(self._options.model_of(model)), timeout)

    def model(self, model: str | None = None, *, timeout: float | None = None) -> Model:
        """Returns what a model takes and gives, and which versions are served."""
        return self._do(calls.model(self._options.model_of(model)), timeout)

    def models(self, *, timeout: float | None = None) -> list[Model]:
        """Returns all models that are served."""
        return self._do(calls.models(), timeout)

    def _do(self, call: Call[Read], timeout: float | None, stop: threading.Event | None = None) -> Read:
        """Does what ``attempts`` says, until somebody stops it."""
        stop = stop or threading.Event()
        steps = attempts(call, self._options.timeout_of(timeout))
        came: CameOf = None
        try:
            while True:
                step = steps.send(came)
                came = None
                if isinstance(step, Send):
                    came = self._send(call, step)
                elif stop.wait(step.seconds):
                    raise ClientError("another request failed, and so this one is not sent again")
        except StopIteration as done:
            answer: Read = done.value
            return answer

    def _do_all(self, each: Iterator[Call[list[Read]]], at_once: int, timeout: float | None) -> list[Read]:
        """Does calls, a bounded number at the same time, and joins their answers in order."""
        if at_once < 1:
            raise ValueError("at_once must be 1 or more")
        answers: list[Read] = []
        sent: deque[Future[list[Read]]] = deque()
        stop = threading.Event()
        pool = ThreadPoolExecutor(at_once, thread_name_prefix="rollout-client")
        try:
            for call in each:
                if len(sent) == at_once:
                    answers += sent.popleft().result()
                sent.append(pool.submit(self._do, call, timeout, stop))
            while sent:
                answers += sent.popleft().result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
        return answers

    def _send(self, call: Call[Any], step: Send) -> Came | ClientError:
        begin(step.seconds)
        try:
            with self._http.stream(
                call.method,
                call.path,
                content=call.body or None,
                params=call.params,
                headers=httpx.Headers({**call.headers, **step.headers}, encoding="utf-8"),
                timeout=step.seconds,
                extensions={"trace": hold_deadlines},
            ) as response:
                body = bytearray()
                for piece in response.iter_raw():
                    body += piece
                    if len(body) > MOST_BYTES:
                        return too_large(response.status_code)
                return Came(response.status_code, response.headers, bytes(body))
        except (httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout):
            return NoAnswerError()
        except httpx.RequestError as error:
            return UnreachableError(f"{self._options.url_shown}: {error or type(error).__name__}")
