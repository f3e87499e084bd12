"""Answering the rows of a request under one revision of the split: assign, batch, run, decide, count."""

from __future__ import annotations

import random
import time
from asyncio import Future
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rollout.bundle.parity import take
from rollout.bundle.schema import Arrays
from rollout.errors import InvalidRequestError, PredictionFailedError, RolloutError
from rollout.inference.batcher import Begun, Ran
from rollout.inference.decisions import Decisions
from rollout.inference.row_sample import Numbers
from rollout.inference.rows import Answers, Fallback, Preview, Rows, spans
from rollout.inference.snapshot import ServingSnapshot
from rollout.inference.trial import TrialResult
from rollout.routing.assignment import Arm, Assignment, assign

# The indexes of the rows of each arm.
Groups = dict[Arm, Sequence[int]]


def answer_at_once(snapshot: ServingSnapshot, rows: Rows) -> Answers | None:
    """Scores rows that the champion answers, without waiting for anything.

    Args:
        snapshot: What answers.
        rows: Of one request or of several, each of one arm that is assigned already.

    Returns:
        The answers; ``None`` where the rows must wait: then nothing has happened.
    """
    started = time.perf_counter()
    done = snapshot.champion.batcher.run_at_once(rows.arrays, rows.deadline)
    if done is None:
        return None
    assignments = _assign_all(snapshot, rows)
    _record_control_evidence(snapshot, rows, _by_arm(assignments), done.decisions)
    return _finish(snapshot, rows, assignments, _Scored(done.decisions, {}, done.waited, done.ran), started)


class OnTrial(NamedTuple):
    """Rows that the challenger is at work on, in a thread.

    Attributes:
        snapshot: What answers.
        rows: Of one request or of several, all assigned to the challenger.
        batch: Their batch.
        started: ``time.perf_counter()`` when it began.
    """

    snapshot: ServingSnapshot
    rows: Rows
    batch: Begun
    started: float


def begin_trial(snapshot: ServingSnapshot, rows: Rows) -> OnTrial | None:
    """Has the challenger score rows that are assigned to it, while the event loop does something else.

    Returns:
        What ``end_trial`` takes in the same turn; ``None`` where the rows must wait: then nothing has happened.
    """
    started = time.perf_counter()
    batch = None if snapshot.trial is None else snapshot.trial.begin(rows.arrays, rows.deadline)
    return None if batch is None else OnTrial(snapshot, rows, batch, started)


def end_trial(begun: OnTrial) -> Answers | Future[Ran]:
    """Returns the answers; where the challenger is late or failed, what ``answer`` goes on with."""
    snapshot, rows, batch, started = begun
    assert snapshot.trial is not None  # noqa: S101  it began
    result = snapshot.trial.end(batch, rows.requests)
    if isinstance(result, Future):
        return result
    assignments = _assign_all(snapshot, rows)
    _record_trial_evidence(snapshot, rows, range(len(assignments)), rows.requests, result)
    scored = _Scored(result.decisions, {}, result.waited, result.ran)
    return _finish(snapshot, rows, assignments, scored, started)


async def answer(snapshot: ServingSnapshot, rows: Rows, asked: Future[Ran] | None = None) -> Answers:
    """Scores each row with the version that its client is assigned.

    Args:
        snapshot: What answers.
        rows: Of one request or of several.
        asked: What the challenger makes of them, if all are assigned to it and it is at work already.

    Raises:
        RolloutError: If any row is refused or fails; of several requests, those whose rows fail are taken out.
    """
    started = time.perf_counter()
    assignments = _assign_all(snapshot, rows)
    scored = await _score(snapshot, rows, _by_arm(assignments), asked)
    return _finish(snapshot, rows, assignments, scored, started)


class _Scored(NamedTuple):
    """What was decided on rows, before it is counted and put in the callers' layout."""

    decisions: Decisions
    fallbacks: dict[int, Fallback]
    waited: float
    ran: float


async def _score(snapshot: ServingSnapshot, rows: Rows, groups: Groups, asked: Future[Ran] | None) -> _Scored:
    parts = {arm: _part(rows.arrays, indexes, len(rows.client_ids)) for arm, indexes in groups.items()}
    champions: dict[Arm, Future[Ran]] = {}
    decided: list[tuple[Sequence[int], Decisions]] = []
    fallbacks: dict[int, Fallback] = {}
    waited = ran = 0.0
    try:
        for arm in groups if snapshot.trial is None else filter("challenger".__ne__, groups):
            champions[arm] = snapshot.champion.batcher.submit(parts[arm], rows.deadline)
        for arm in sorted(groups, key="challenger".__ne__):  # the champion is at work already
            if arm not in champions:
                assert snapshot.trial is not None  # noqa: S101  or the champion would be at work on it
                sizes = _sizes(rows, groups)[arm]
                result = await snapshot.trial.score(parts[arm], rows.deadline, sizes, asked)
                decisions, times = result.decisions, (result.waited, result.ran)
                fallbacks.update((groups[arm][index], why) for index, why in result.fallbacks.items())
                snapshot.counts[arm].failures.inc(result.failures)
                _record_trial_evidence(snapshot, rows, groups[arm], sizes, result)
            else:
                done = await champions[arm]
                decisions, times = done.decisions, (done.waited, done.ran)
                if arm == "challenger":
                    fallbacks.update((index, "missing") for index in groups[arm])
            decided.append((groups[arm], decisions))
            waited, ran = max(waited, times[0]), max(ran, times[1])
    except BaseException as error:
        if isinstance(error, RolloutError):  # all rows of an arm are shed
            snapshot.counts[arm].failures.inc(len(groups[arm]))
        for future in champions.values():
            future.cancel()
        raise
    whole = decisions if len(decided) == 1 else Decisions.placed(decided, len(rows.client_ids))
    _record_control_evidence(snapshot, rows, groups, whole)
    return _Scored(whole, fallbacks, waited, ran)


def _finish(
    snapshot: ServingSnapshot, rows: Rows, assignments: list[Assignment], scored: _Scored, started: float
) -> Answers:
    """Takes out what failed, counts the rest, and puts it in the layout that callers see."""
    answers = Answers(
        snapshot.split,
        snapshot.task,
        assignments,
        snapshot.variants,
        snapshot.heads,
        scored.decisions,
        scored.fallbacks,
        {},
        scored.waited,
        scored.ran,
        time.time(),
    )
    if answers.decisions.errors:
        answers = _refuse(snapshot, rows, answers)
    numbers = answers.decisions.numbers
    answers = _translate(snapshot, answers)
    _count(snapshot, rows, answers, numbers, time.perf_counter() - started)
    return answers


async def preview(snapshot: ServingSnapshot, rows: Rows, arm: Preview) -> Answers:
    """Scores rows with the version of an arm, whoever sent them; nothing is counted, and nothing falls back.

    Raises:
        RolloutError: If there is no such arm, or any row is refused or fails.
    """
    loaded = snapshot.champion if arm == "champion" else snapshot.challenger
    if loaded is None:
        raise InvalidRequestError(
            "there is no challenger on trial to look at: leave out the header X-Rollout-Arm"
        )
    done = await loaded.batcher.submit(rows.arrays, rows.deadline)
    assignments = [Assignment(arm, loaded.version, None)] * len(rows.client_ids)
    for index, error in sorted(done.decisions.errors.items()):
        raise _of_instance(error, index, len(assignments))
    answers = Answers(
        snapshot.split,
        snapshot.task,
        assignments,
        snapshot.variants,
        snapshot.heads,
        done.decisions,
        {},
        {},
        done.waited,
        done.ran,
        time.time(),
    )
    return _translate(snapshot, answers)


def _assign_all(snapshot: ServingSnapshot, rows: Rows) -> list[Assignment]:
    client_ids, split = rows.client_ids, snapshot.split
    if rows.assigned is not None:
        return rows.assigned
    if client_ids.count(client_ids[0]) == len(client_ids):
        return [assign(split, client_ids[0], rows.segment)] * len(client_ids)
    return [assign(split, client_id, rows.segment) for client_id in client_ids]


def _by_arm(assignments: Sequence[Assignment]) -> Groups:
    """Returns the indexes of the rows of each arm."""
    arms = [assignment.arm for assignment in assignments]
    if arms.count(arms[0]) == len(arms):
        return {arms[0]: range(len(arms))}
    groups: dict[Arm, list[int]] = {}
    for index, arm in enumerate(arms):
        groups.setdefault(arm, []).append(index)
    return {**groups}


def _sizes(rows: Rows, groups: Groups) -> dict[Arm, Sequence[int]]:
    """Returns the rows of each request in each arm; of several requests, each is in one."""
    if len(groups) == 1:
        return dict.fromkeys(groups, rows.requests)
    if not rows.sizes:
        return {arm: [len(indexes)] for arm, indexes in groups.items()}
    size_at = {own.start: len(own) for own in spans(rows.sizes)}
    return {arm: [size_at[at] for at in indexes if at in size_at] for arm, indexes in groups.items()}


def _part(arrays: Arrays, indexes: Sequence[int], rows: int) -> Arrays:
    return arrays if len(indexes) == rows else take(arrays, np.array(indexes))


def _record_trial_evidence(
    snapshot: ServingSnapshot, rows: Rows, indexes: Sequence[int], sizes: Sequence[int], result: TrialResult
) -> None:
    """Takes what the challenger made of its requests as evidence."""
    for own in spans(sizes):
        attempts, failed = result.evidence(own.start, own.stop)
        client_id = rows.client_ids[indexes[own.start]]
        snapshot.counts["challenger"].record_evidence(client_id, attempts, failed=failed)


def _record_control_evidence(snapshot: ServingSnapshot, rows: Rows, groups: Groups, decisions: Decisions) -> None:
    """Takes what the champion made of control's requests as evidence, to compare the challenger with."""
    indexes = groups.get("control")
    if indexes is None:
        return
    for own in spans(_sizes(rows, groups)["control"]):
        places = indexes[own.start : own.stop]
        errors = [error for place in places if (error := decisions.errors.get(place)) is not None]
        failures = sum(isinstance(error, PredictionFailedError) for error in errors)
        attempts = len(own) - len(errors) + failures
        snapshot.counts["control"].record_evidence(rows.client_ids[places[0]], attempts, failed=failures > 0)


def _refuse(snapshot: ServingSnapshot, rows: Rows, answers: Answers) -> Answers:
    """Takes out the requests of which a row failed, with all of their rows.

    Raises:
        RolloutError: If there is only one request.
    """
    errors = answers.decisions.errors
    for index in errors:
        snapshot.counts[answers.assignments[index].arm].failures.inc()
    refused: dict[int, RolloutError] = {}
    places: list[int] = []
    for number, own in enumerate(spans(rows.requests)):
        wrong = next((index for index in own if index in errors), None)
        if wrong is None:
            places += own
        else:
            refused[number] = _of_instance(errors[wrong], wrong - own.start, len(own))
    if not rows.sizes:
        raise refused[0]
    fallbacks = {at: why for at, place in enumerate(places) if (why := answers.fallbacks.get(place))}
    rows.keep(places, [size for number, size in enumerate(rows.sizes) if number not in refused])
    return answers._replace(
        assignments=[answers.assignments[place] for place in places],
        decisions=answers.decisions.rows(places),
        fallbacks=fallbacks,
        refused=refused,
    )


def _translate(snapshot: ServingSnapshot, answers: Answers) -> Answers:
    """Puts what was decided in the layout that callers see, where a version has another."""
    if not snapshot.translations:
        return answers
    by_version: dict[str, list[int]] = {}
    for index in range(len(answers.decisions)):
        by_version.setdefault(answers.version(index), []).append(index)
    parts: list[tuple[Sequence[int], Decisions]] = []
    for version, places in by_version.items():
        own = answers.decisions.rows(places, snapshot.columns[version])
        parts.append((places, own.translated(snapshot.translations.get(version))))
    return answers._replace(decisions=Decisions.placed(parts, len(answers.decisions)))


def _count(snapshot: ServingSnapshot, rows: Rows, answers: Answers, numbers: Numbers, seconds: float) -> None:
    assignments, fallbacks = answers.assignments, answers.fallbacks
    if not assignments:
        return  # each of several requests was refused
    found = answers.task.confidences(answers.decisions.numbers)
    confidences: list[float] = [] if found is None else found.tolist()
    groups = _by_arm(assignments)
    sizes = _sizes(rows, groups)
    for arm, indexes in groups.items():
        own = confidences if len(groups) == 1 or not confidences else [confidences[index] for index in indexes]
        why = [fallbacks[index] for index in indexes if index in fallbacks] if fallbacks else ()
        snapshot.counts[arm].count(len(indexes), own, why, seconds, len(sizes[arm]))
        if (sample := snapshot.counts[arm].sample) is not None:
            places = _one_of_each(rows, indexes, sizes[arm])
            if fallbacks:
                places = [place for place in places if place not in fallbacks]
            sample.offer(rows.arrays, numbers, rows.client_ids, places)
        if arm != "champion":
            ids = [rows.client_ids[index] for index in indexes if assignments[index].rule is None]
            snapshot.counts[arm].record_clients(ids)
            snapshot.counts[arm].record_times(ids, seconds)
        if arm == "challenger":
            snapshot.counts[arm].record_fallbacks(
                (rows.client_ids[index], fallbacks.get(index))
                for index in indexes
                if assignments[index].rule is None
            )


def _one_of_each(rows: Rows, indexes: Sequence[int], sizes: Sequence[int]) -> Sequence[int]:
    """Returns a random row of each client in each request: the others are not independent of it."""
    if len(sizes) == len(indexes):
        return indexes
    places: list[int] = []
    for own in spans(sizes):
        mine = indexes[own.start : own.stop]
        clients = {rows.client_ids[index] for index in mine}
        if len(clients) == 1:
            places.append(random.choice(mine))  # noqa: S311  nothing is secret
        elif len(clients) == len(mine):
            places += mine
        else:
            places += {rows.client_ids[index]: index for index in random.sample(mine, len(mine))}.values()
    return places


def _of_instance(error: RolloutError, index: int, rows: int) -> RolloutError:
    if rows == 1:
        return error
    return type(error)(f"instance {index}: {error.detail}", headers=error.headers)
