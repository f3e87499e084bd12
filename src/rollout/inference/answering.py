"""Answering the rows of a request under one revision of the split: assign, batch, run, decide, count."""

from __future__ import annotations

import time
from asyncio import Future
from collections.abc import Sequence

import numpy as np

from rollout.bundle.parity import take
from rollout.bundle.schema import Arrays
from rollout.errors import InvalidRequestError, PredictionFailedError, RolloutError
from rollout.inference.arm_counters import ArmCounters
from rollout.inference.batcher import Ran
from rollout.inference.decisions import Decisions
from rollout.inference.rows import Answers, Fallback, Preview, Rows, spans
from rollout.inference.snapshot import ServingSnapshot
from rollout.routing.assignment import Arm, Assignment, assign


async def answer(snapshot: ServingSnapshot, rows: Rows) -> Answers:
    """Scores each row with the version that its client is assigned.

    Raises:
        RolloutError: If any row is refused or fails; of several requests, those whose rows fail are taken out.
    """
    started = time.perf_counter()
    assignments = _assign_all(snapshot, rows)
    groups = _by_arm(assignments)
    parts = {arm: _part(rows.arrays, indexes, len(assignments)) for arm, indexes in groups.items()}
    champions: dict[Arm, Future[Ran]] = {}
    decided: list[tuple[Sequence[int], Decisions]] = []
    fallbacks: dict[int, Fallback] = {}
    waited = ran = 0.0
    try:
        for arm in groups if snapshot.trial is None else filter("challenger".__ne__, groups):
            champions[arm] = snapshot.champion.batcher.submit(parts[arm], rows.deadline, at_once=bool(rows.sizes))
        for arm in sorted(groups, key="challenger".__ne__):  # the champion is at work already
            sizes = rows.requests if len(groups) == 1 else [len(groups[arm])]
            if arm not in champions:
                assert snapshot.trial is not None  # noqa: S101  or the champion would be at work on it
                result = await snapshot.trial.score(parts[arm], rows.deadline, sizes)
                decisions, times = result.decisions, (result.waited, result.ran)
                fallbacks.update((groups[arm][index], why) for index, why in result.fallbacks.items())
                snapshot.counts[arm].failures.inc(result.failures)
                for own in spans(sizes):
                    attempts, failed = result.evidence(own.start, own.stop)
                    snapshot.counts[arm].record_evidence(attempts, failed=failed)
            else:
                done = await champions[arm]
                decisions, times = done.decisions, (done.waited, done.ran)
                _record_control_evidence(snapshot.counts[arm], decisions, sizes)
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
    answers = Answers(
        snapshot.split,
        snapshot.task,
        assignments,
        snapshot.variants,
        decisions if len(decided) == 1 else Decisions.placed(decided, len(assignments)),
        fallbacks,
        {},
        waited,
        ran,
        time.time(),
    )
    if answers.decisions.errors:
        answers = _refuse(snapshot, rows, answers)
    answers = _translate(snapshot, answers)
    _count(snapshot, rows, answers, time.perf_counter() - started)
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


def _by_arm(assignments: Sequence[Assignment]) -> dict[Arm, Sequence[int]]:
    """Returns the indexes of the rows of each arm."""
    if assignments and all(assignment is assignments[0] for assignment in assignments):
        return {assignments[0].arm: range(len(assignments))}
    groups: dict[Arm, list[int]] = {}
    for index, assignment in enumerate(assignments):
        groups.setdefault(assignment.arm, []).append(index)
    return {**groups}


def _part(arrays: Arrays, indexes: Sequence[int], rows: int) -> Arrays:
    return arrays if len(indexes) == rows else take(arrays, np.array(indexes))


def _record_control_evidence(counts: ArmCounters, decisions: Decisions, sizes: Sequence[int]) -> None:
    """Takes what the champion made of control's requests as evidence, to compare the challenger with."""
    if counts.arm != "control":
        return
    for own in spans(sizes):
        errors = decisions.part(own.start, own.stop).errors if decisions.errors else {}
        failures = sum(isinstance(error, PredictionFailedError) for error in errors.values())
        counts.record_evidence(len(own) - len(errors) + failures, failed=failures > 0)


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
    """Puts what was decided in the labels that callers see, where a version has others."""
    if not snapshot.translations:
        return answers
    by_version: dict[str, list[int]] = {}
    for index in range(len(answers.decisions)):
        by_version.setdefault(answers.version(index), []).append(index)
    parts: list[tuple[Sequence[int], Decisions]] = []
    for version, places in by_version.items():
        translate = snapshot.translations.get(version)
        outputs = snapshot.task.outputs if translate is None else translate.outputs
        own = answers.decisions.rows(places, outputs)
        parts.append((places, own if translate is None else translate(own)))
    return answers._replace(decisions=Decisions.placed(parts, len(answers.decisions)))


def _count(snapshot: ServingSnapshot, rows: Rows, answers: Answers, seconds: float) -> None:
    assignments, fallbacks = answers.assignments, answers.fallbacks
    if not assignments:
        return  # each of several requests was refused
    confidences: list[float] = answers.decisions.confidences.tolist()
    groups = _by_arm(assignments)
    for arm, indexes in groups.items():
        counted = confidences if len(groups) == 1 else [confidences[index] for index in indexes]
        why = [fallbacks[index] for index in indexes if index in fallbacks] if fallbacks else ()
        snapshot.counts[arm].count(counted, why, seconds, len(rows.requests) if len(groups) == 1 else 1)
        if arm != "champion":
            snapshot.counts[arm].record_clients(
                rows.client_ids[index] for index in indexes if assignments[index].rule is None
            )


def _of_instance(error: RolloutError, index: int, rows: int) -> RolloutError:
    if rows == 1:
        return error
    return type(error)(f"instance {index}: {error.detail}", headers=error.headers)
