"""The breaker: opens on a rate of failures, probes, closes."""

from __future__ import annotations

import pytest

from rollout.inference.breaker import FEWEST_FAILURES, LONGEST_PAUSE_S, PAUSE_S, PROBES, Breaker


class Clock:
    """Seconds that pass when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def states() -> list[str]:
    return []


@pytest.fixture
def breaker(clock: Clock, states: list[str]) -> Breaker:
    return Breaker(0.2, 10, states.append, clock)


def fail(breaker: Breaker, times: int = FEWEST_FAILURES) -> None:
    for _ in range(times):
        breaker.record(failed=True)


def test_a_few_failures_say_nothing(breaker: Breaker) -> None:
    fail(breaker, FEWEST_FAILURES - 1)
    assert breaker.state == "closed"
    assert not breaker.wants_probe()


def test_it_is_the_rate_that_opens_it(breaker: Breaker) -> None:
    for _ in range(80):
        breaker.record(failed=False)
    fail(breaker, 20)
    assert breaker.state == "closed", "20 of 100 are not more than a fifth"
    fail(breaker, 1)
    assert str(breaker.state) == "open"


def test_failures_of_long_ago_do_not_count(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FEWEST_FAILURES - 1)
    clock.now += 12
    fail(breaker, FEWEST_FAILURES - 1)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert str(breaker.state) == "open"


def test_good_probes_in_a_row_close_it(breaker: Breaker, clock: Clock, states: list[str]) -> None:
    fail(breaker)
    assert not breaker.wants_probe(), "not at once"
    clock.now += PAUSE_S
    for _ in range(PROBES):
        assert breaker.wants_probe()
        assert not breaker.wants_probe(), "one at a time"
        breaker.probed(failed=False)
    assert states == ["open", "probing", "closed"]
    fail(breaker, FEWEST_FAILURES - 1)
    assert breaker.state == "closed", "what was before is forgotten"


def test_a_bad_probe_opens_it_for_twice_as_long(breaker: Breaker, clock: Clock, states: list[str]) -> None:
    fail(breaker)
    pause = PAUSE_S
    for _ in range(8):
        clock.now += pause
        assert breaker.wants_probe()
        breaker.probed(failed=True)
        assert str(breaker.state) == "open"
        pause = min(2 * pause, LONGEST_PAUSE_S)
        clock.now += pause - 0.1
        assert not breaker.wants_probe()
        clock.now -= pause - 0.1
    assert states[:4] == ["open", "probing", "open", "probing"]


def test_a_probe_that_fails_later_starts_over(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += PAUSE_S
    assert breaker.wants_probe()
    breaker.probed(failed=False)
    assert breaker.wants_probe()
    breaker.probed(failed=True)
    clock.now += 2 * PAUSE_S
    for _ in range(PROBES - 1):
        assert breaker.wants_probe()
        breaker.probed(failed=False)
    assert breaker.state == "probing"


def test_calls_that_end_after_it_opened_change_nothing(breaker: Breaker, states: list[str]) -> None:
    fail(breaker, 20)
    breaker.record(failed=False)
    assert states == ["open"]
