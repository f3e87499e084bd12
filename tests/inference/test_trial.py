"""A trial: what the challenger cannot score the champion does, and what is held against the challenger."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from rollout.config import Settings
from rollout.errors import DeadlineExceededError, OverloadedError, PredictionFailedError, RolloutError
from rollout.inference.batcher import Ran
from rollout.inference.breaker import FEWEST_FAILURES
from rollout.inference.decisions import Decisions
from rollout.inference.trial import HURRY, Trial, TrialResult

SETTINGS = Settings(timeout_ms=1000)
GOOD = "a decision"  # which is 7
ERROR = PredictionFailedError("no light")
LATE = DeadlineExceededError("too late")
SHED = OverloadedError("too much")
HANGS: list[Any] = []


def scripted(does: list[Any]) -> Decisions:
    return Decisions(
        np.full((len(does), 1), 7.0),
        np.zeros(len(does), bool),
        {row: one for row, one in enumerate(does) if one is not GOOD},
    )


class Scripted:
    """A batcher that always does the same: hangs, sheds, or gives results."""

    def __init__(self, does: RolloutError | list[Any]) -> None:
        self.does = does

    def seconds_for(self, rows: int) -> float:
        return 0.0

    def submit(self, arrays: object, deadline: float) -> asyncio.Future[Ran]:
        if isinstance(self.does, RolloutError):
            raise self.does
        future: asyncio.Future[Ran] = asyncio.get_running_loop().create_future()
        if self.does is not HANGS:
            future.set_result(Ran(scripted(self.does), 0.0, 0.0))
        return future


def make_trial(challenger: RolloutError | list[Any], champion: RolloutError | list[Any]) -> Trial:
    versions: list[Any] = [
        SimpleNamespace(
            version=version, batcher=Scripted(does), manifest=SimpleNamespace(tag=f"digits:{version}")
        )
        for version, does in (("v1", champion), ("v2", challenger))
    ]
    return Trial(versions[0], versions[1], SETTINGS)


async def score(trial: Trial, rows: int = 1, seconds: float = 0.2) -> TrialResult | RolloutError:
    try:
        return await trial.score({"x": np.zeros(rows)}, time.monotonic() + seconds, [rows])
    except RolloutError as error:
        return error


async def is_open_after(challenger: RolloutError | list[Any], champion: RolloutError | list[Any]) -> bool:
    trial = make_trial(challenger, champion)
    for _ in range(FEWEST_FAILURES):
        await score(trial)
    return trial.breaker.state == "open"


async def test_a_challenger_that_is_late_opens_the_breaker_whatever_the_champion_does() -> None:
    for late in (HANGS, SHED, [LATE]):
        for champion in ([GOOD], SHED, LATE, [LATE], [ERROR]):
            assert await is_open_after(late, champion), (late, champion)


async def test_an_error_is_the_fault_of_the_row_only_where_the_champion_errs_too() -> None:
    assert await is_open_after([ERROR], [GOOD])
    assert await is_open_after([ERROR], [LATE])
    assert not await is_open_after([ERROR], [ERROR])


async def test_callers_in_a_hurry_neither_open_the_breaker_nor_keep_it_closed() -> None:
    trial = make_trial(HANGS, [GOOD])
    for _ in range(10 * FEWEST_FAILURES):
        await score(trial, seconds=HURRY / 10)
    assert trial.breaker.state == "closed"
    for _ in range(FEWEST_FAILURES):
        await score(trial)
    assert str(trial.breaker.state) == "open"


async def test_rows_that_were_late_are_answered_and_prove_nothing() -> None:
    for late in (HANGS, SHED, [LATE] * 3):
        tried = await score(make_trial(late, [GOOD] * 3), rows=3)
        assert isinstance(tried, TrialResult)
        assert tried.fallbacks == dict.fromkeys(range(3), "timeout")
        assert (tried.failures, tried.evidence(0, 3)) == (3, (0, False))


async def test_rows_that_the_challenger_came_to() -> None:
    tried = await score(make_trial([GOOD, ERROR, LATE], [GOOD, GOOD]), rows=3)
    assert isinstance(tried, TrialResult)
    assert tried.fallbacks == {1: "error", 2: "timeout"}
    assert (tried.decisions.numbers.tolist(), tried.decisions.errors) == ([[7.0]] * 3, {})
    assert tried.evidence(0, 3) == (2, True)
    assert [tried.evidence(row, row + 1) for row in range(3)] == [(1, False), (1, True), (0, False)]


async def test_requests_that_are_asked_together_are_judged_one_by_one() -> None:
    trial = make_trial([GOOD, ERROR, ERROR, LATE], [GOOD, ERROR, GOOD])
    recorded: list[bool] = []
    trial.breaker.record = lambda *, failed: recorded.append(failed)  # type: ignore[method-assign]
    tried = await trial.score({"x": np.zeros(4)}, time.monotonic() + 0.2, [1, 1, 1, 1])
    assert tried.fallbacks == {1: "error", 3: "timeout"}
    assert sorted(recorded) == [False, False, True, True], "the third row is at fault itself"
