"""Predictions that arrive in one turn of the event loop, answered together: one batch a version, and no task."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

from rollout.bundle.schema import Arrays
from rollout.errors import RolloutError
from rollout.http.files import reader_of
from rollout.http.gateway import Gateway
from rollout.http.predict import Row, decode_quickly, encode_response, make_rows, server_timing
from rollout.http.problems import as_rollout_error
from rollout.http.quick import QuickExchange
from rollout.inference.answering import OnTrial
from rollout.inference.batcher import Batcher, Ran
from rollout.inference.reviewing import Pick
from rollout.inference.rows import Answers, Rows, make_predictions, spans
from rollout.inference.served_model import ServedModel
from rollout.routing.assignment import Assignment, assign
from rollout.routing.split import Split

# A larger body is decoded by itself, and lets others have the event loop in between.
LARGEST_BODY = 64 * 1024
# So many seconds of a turn go into decoding; what is left then has the next one.
LONGEST_S = 0.002

logger = logging.getLogger(__name__)


class _Asked(NamedTuple):
    """A request whose rows are decoded."""

    exchange: QuickExchange
    instances: Sequence[Row]
    decoded: Sequence[Arrays]
    single: bool
    split: Split
    assignments: Sequence[Assignment]
    is_trial: bool  # whether the challenger answers


class Turn:
    """Puts together what one version answers quickly; every other request goes its own way.

    The challenger's rows run in a thread while the champion's run here; both are answered in the same turn. What
    the challenger takes longer for, or a person is to look at, has a task. A request that is wrong, holds a file,
    has rows of several arms, or meets a version that is busy or slow, is answered by its own handler: nobody has
    to wait for another's.

    Args:
        gateway: Lets requests through to the engine.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._waiting: list[QuickExchange] = []

    def add(self, exchange: QuickExchange) -> None:
        """Takes a request that has arrived."""
        exchange.arrived = time.monotonic()
        self._waiting.append(exchange)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, []
        together: dict[tuple[ServedModel, bool], list[_Asked]] = {}
        end = time.monotonic() + LONGEST_S
        for number, exchange in enumerate(waiting):
            if number and time.monotonic() > end:
                self._waiting = waiting[number:]
                asyncio.get_running_loop().call_soon(self._begin)
                break
            model = self._model(exchange)
            # Where the champion is slow or busy, the handler decodes, and nothing is decoded twice.
            asked = self._decode(model, exchange) if model and model.champion.batcher.quick_rows else None
            if model is None or asked is None:
                exchange.start()
            else:
                together.setdefault((model, asked.is_trial), []).append(asked)
        groups = [
            (model, is_trial, group)
            for (model, is_trial), requests in together.items()
            for group in _cut(requests, _batcher(model, is_trial=is_trial).quick_rows)
        ]
        begun = [(model, group, self._begin_trial(model, group)) for model, is_trial, group in groups if is_trial]
        for model, is_trial, group in groups:
            if not is_trial:
                self._answer(model, group)
        for model, group, on_trial in begun:
            self._end_trial(model, group, on_trial)

    def _model(self, exchange: QuickExchange) -> ServedModel | None:
        try:
            return self._gateway.engine.model(exchange.scope["name"])
        except RolloutError:  # its own handler says what is wrong
            return None

    def _decode(self, model: ServedModel, exchange: QuickExchange) -> _Asked | None:
        """Decodes a request and finds the arm of its clients; ``None`` where it goes its own way."""
        try:
            most = self._gateway.settings.max_instances
            read = reader_of(exchange.scope, model.schema, exchange.scope["media_type"], most)
            found = decode_quickly(exchange.whole_body(), model.schema, most, read)
        except Exception:  # its own handler says what is wrong
            return None
        if found is None:
            return None
        instances, decoded, single = found
        split = model.split
        assignments = [assign(split, instance.client_id) for instance in instances]
        arm = assignments[0].arm
        if any(one.arm != arm for one in assignments):
            return None
        is_trial = arm == "challenger"
        if not _batcher(model, is_trial=is_trial).quick_rows:
            return None
        return _Asked(exchange, instances, decoded, single, split, assignments, is_trial)

    def _answer(self, model: ServedModel, group: Sequence[_Asked]) -> None:
        """Answers requests of the champion's."""
        rows = _join(group, self._gateway.settings.timeout_ms / 1000)
        try:
            scored = self._gateway.engine.score_at_once(model, rows)
            if scored is not None:
                self._deliver(model, group, rows, *scored)
        except Exception as error:  # nobody is left without an answer
            _refuse(model, group, error)
            return
        if scored is None:
            group[0].exchange.start(self._answer_later(model, group, rows))

    def _begin_trial(self, model: ServedModel, group: Sequence[_Asked]) -> OnTrial | None:
        """Has the challenger begin with requests of its own; in a task where it cannot now."""
        rows = _join(group, self._gateway.settings.timeout_ms / 1000)
        try:
            begun = self._gateway.engine.begin_trial(model, rows)
        except Exception as error:  # nobody is left without an answer
            _refuse(model, group, error)
            return None
        if begun is None:
            group[0].exchange.start(self._answer_later(model, group, rows))
        return begun

    def _end_trial(self, model: ServedModel, group: Sequence[_Asked], begun: OnTrial | None) -> None:
        """Answers the requests with which the challenger has begun; in a task where it is late or failed."""
        if begun is None:
            return
        try:
            scored = self._gateway.engine.end_trial(model, begun)
            if isinstance(scored, tuple):
                self._deliver(model, group, begun.rows, *scored)
                return
        except Exception as error:  # nobody is left without an answer
            _refuse(model, group, error)
            return
        group[0].exchange.start(self._answer_later(model, group, begun.rows, scored))

    async def _answer_later(
        self, model: ServedModel, group: Sequence[_Asked], rows: Rows, asked: asyncio.Future[Ran] | None = None
    ) -> None:
        try:
            if group[0].split is not model.split:  # it has changed since, and with it the arms perhaps
                for request in group:
                    request.exchange.start()
                return
            self._deliver(model, group, rows, *await self._gateway.engine.score(model, rows, asked))
        except Exception as error:
            _refuse(model, group, error)

    def _deliver(
        self, model: ServedModel, group: Sequence[_Asked], rows: Rows, answers: Answers, picks: Sequence[Pick]
    ) -> None:
        """Answers; those whose rows a person is to look at wait until that is stored, and nobody else does."""
        for number, refused in answers.refused.items():
            group[number].exchange.refuse(refused, model.name)
        reviewed = {pick.row for pick in picks}
        now: list[tuple[range, _Asked]] = []
        later: list[tuple[range, _Asked]] = []
        kept = [asked for number, asked in enumerate(group) if number not in answers.refused]
        for places, asked in zip(spans(rows.sizes), kept, strict=True):
            (now if reviewed.isdisjoint(places) else later).append((places, asked))
        _write(model, rows, answers, now)
        if later:
            later[0][1].exchange.start(self._review(model, rows, answers, picks, later))

    async def _review(
        self,
        model: ServedModel,
        rows: Rows,
        answers: Answers,
        picks: Sequence[Pick],
        later: Sequence[tuple[range, _Asked]],
    ) -> None:
        try:
            await self._gateway.engine.review(model, rows, answers, picks)
            _write(model, rows, answers, later)
        except Exception as error:
            _refuse(model, [asked for _, asked in later], error)


def _batcher(model: ServedModel, *, is_trial: bool) -> Batcher:
    """Returns what the rows of an arm wait for."""
    challenger = model.snapshot.challenger if is_trial else None
    return (challenger or model.champion).batcher


def _refuse(model: ServedModel, group: Sequence[_Asked], error: Exception) -> None:
    """Answers those who have no answer yet."""
    ours = as_rollout_error(error)
    for asked in group:
        if not asked.exchange.response_complete:
            asked.exchange.refuse(ours, model.name)


def _write(model: ServedModel, rows: Rows, answers: Answers, group: Sequence[tuple[range, _Asked]]) -> None:
    if not group:
        return
    own = chain.from_iterable(places for places, _ in group)
    predictions = iter(make_predictions(model.name, rows, answers, own))
    head = group[0][1].exchange.head(server_timing(answers))
    for places, asked in group:
        asked.exchange.scope["answers"], asked.exchange.scope["places"] = answers, places
        body = encode_response(list(islice(predictions, len(places))), single=asked.single)
        try:
            asked.exchange.answer(body, head)
        except Exception:  # of what this connection asks next, which is nobody else's affair
            logger.exception("a connection failed after its answer")
            asked.exchange.close()
        model.latency.observe(time.monotonic() - asked.exchange.arrived)


def _cut(requests: Sequence[_Asked], most: int) -> Iterator[list[_Asked]]:
    """Cuts requests into groups of as many rows as a quick batch may have; a larger one stays alone."""
    group: list[_Asked] = []
    rows = 0
    for asked in requests:
        if group and rows + len(asked.instances) > most:
            yield group
            group, rows = [], 0
        group.append(asked)
        rows += len(asked.instances)
    if group:
        yield group


def _join(group: Sequence[_Asked], timeout_s: float) -> Rows:
    rows = make_rows(
        [instance for asked in group for instance in asked.instances],
        [arrays for asked in group for arrays in asked.decoded],
        min(asked.exchange.arrived for asked in group) + timeout_s,
    )
    rows.sizes = [len(asked.instances) for asked in group]
    rows.traceparents = [
        trace
        for asked in group
        for trace in [asked.exchange.scope["traceparent"].decode()] * len(asked.instances)
    ]
    rows.assigned = [one for asked in group for one in asked.assignments]
    return rows
