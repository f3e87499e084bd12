"""The micro-batcher: at once when idle, together when busy, each row on its own when something is wrong."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.bundle.columns import ragged
from rollout.bundle.schema import Arrays
from rollout.errors import DeadlineExceededError, OverloadedError, PredictionFailedError, RolloutError
from rollout.inference import batcher as batcher_module
from rollout.inference.batcher import REST_S, Batcher, BatchReport, Begun, Ran
from rollout.inference.decisions import Decisions
from rollout.inference.load import NOTHING, SMALL_BYTES, WASTE, Load, loads
from rollout.inference.profile import LIGHTEST, Profile

Run = Callable[[Arrays], Sequence[int]]
QUICK, SLOW = 1e-6, 0.01


class Doubler:
    """Doubles numbers, remembers its batches, and fails on batches that hold a poisonous number."""

    def __init__(self, poison: frozenset[int] = frozenset()) -> None:
        self.batches: list[list[int]] = []
        self.poison = poison

    def __call__(self, arrays: Arrays) -> list[int]:
        numbers: list[int] = arrays["x"].tolist()
        self.batches.append(numbers)
        if self.poison & set(numbers):
            raise ValueError("poison")
        return [number * 2 for number in numbers]


class Held:
    """Waits in its thread until it is let go."""

    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Event()
        self.batches: list[int] = []

    def __call__(self, arrays: Arrays) -> list[int]:
        self.batches.append(len(arrays["x"]))
        self.entered.set()
        self.gate.wait(10)
        numbers: list[int] = arrays["x"].tolist()
        return numbers


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def of_numbers(numbers: Sequence[int]) -> Decisions:
    return Decisions(np.array(numbers, float)[:, None], np.zeros(len(numbers), bool))


def results_of(ran: Ran) -> list[int | RolloutError]:
    """Returns the number of each row, or its error."""
    numbers, errors = ran.decisions.numbers, ran.decisions.errors
    return [errors.get(row) or int(numbers[row, 0]) for row in range(len(ran.decisions))]


def batcher(run: Run, pool: Any, *, row_s: float = QUICK, max_batch: int = 8, **options: Any) -> Batcher:
    """A batcher for a runtime that takes ``row_s`` for each row: in a thread if that is ``SLOW``."""
    profile = Profile(
        seconds=[row_s * rows for rows in range(max_batch + 1)], in_flight=options.pop("in_flight", 1)
    )
    return Batcher(
        lambda arrays: of_numbers(run(arrays)), profile, executor=pool, **{"longest_wait": 10.0, **options}
    )


def submit(to: Batcher, *numbers: int, seconds: float = 30) -> asyncio.Future[Ran]:
    return to.submit({"x": np.array(numbers)}, time.monotonic() + seconds)


async def results(*futures: asyncio.Future[Ran]) -> list[list[int | RolloutError]]:
    return [results_of(done) for done in await asyncio.wait_for(asyncio.gather(*futures), 5)]


async def test_one_row_is_dispatched_at_once(pool: ThreadPoolExecutor) -> None:
    run = Doubler()
    future = submit(batcher(run, pool), 4)
    await asyncio.sleep(0)  # one turn of the event loop: no window to wait out
    await asyncio.sleep(0)
    assert future.done()
    assert results_of(future.result()) == [8]
    assert run.batches == [[4]]


async def test_quick_rows_run_without_a_turn_unless_others_wait(pool: ThreadPoolExecutor) -> None:
    def at_once(under_test: Batcher, *numbers: int, seconds: float = 30) -> Ran | None:
        return under_test.run_at_once({"x": np.array(numbers)}, time.monotonic() + seconds)

    run = Doubler(frozenset({5}))
    reports: list[BatchReport] = []
    under_test = batcher(run, pool, on_batch=reports.append)
    done = at_once(under_test, 4, 5)
    assert done is not None
    good, bad = results_of(done)
    assert good == 8
    assert isinstance(bad, PredictionFailedError)
    assert [report.rows for report in reports] == [2]
    run.batches.clear()
    assert at_once(under_test, *range(9)) is None, "more than a batch"
    assert at_once(under_test, 4, seconds=-1) is None, "too late: it is refused as others are"
    future = submit(under_test, 6)
    assert at_once(under_test, 4) is None, "nobody overtakes"
    under_test.inline = False
    await results(future)
    assert at_once(under_test, 4) is None, "a challenger that hangs must not take the event loop with it"
    assert at_once(batcher(run, pool, row_s=SLOW), 4) is None, "slow"
    assert run.batches == [[6]]


async def test_quick_rows_in_a_thread_are_there_in_the_same_turn(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher_module, "INLINE_BELOW_S", 5.0)  # however busy the machine is
    run = Doubler(frozenset({5}))
    reports: list[BatchReport] = []
    under_test = batcher(run, pool, on_batch=reports.append)
    under_test.inline = False
    begun = under_test.begin({"x": np.array([4, 5])}, time.monotonic() + 30)
    assert begun is not None
    done = under_test.end(begun)
    assert done.done()
    good, bad = results_of(done.result())
    assert good == 8
    assert isinstance(bad, PredictionFailedError)
    assert [report.rows for report in reports] == [2]
    assert under_test.is_idle


async def test_rows_in_a_thread_that_take_longer_keep_the_event_loop_a_moment_at_most(
    pool: ThreadPoolExecutor,
) -> None:
    run = Held()
    under_test = batcher(run, pool, in_flight=2, hang_s=0.01)
    under_test.inline = False

    def begin() -> Begun | None:
        return under_test.begin({"x": np.array([4])}, time.monotonic() + 30)

    begun = begin()
    assert begun is not None
    started = time.perf_counter()
    late = under_test.end(begun)
    assert time.perf_counter() - started < 1, "it would wait for ten seconds"
    assert not late.done()
    assert begin() is None, "one runs"
    await asyncio.sleep(0.05)
    assert under_test.hangs()
    run.gate.set()
    assert results_of(await late) == [4]
    assert under_test.is_idle
    assert begin() is None, "the last one was late"
    await asyncio.sleep(REST_S)
    assert begin() is not None


async def test_rows_in_a_thread_that_are_too_late_are_given_up(pool: ThreadPoolExecutor) -> None:
    run = Held()
    under_test = batcher(run, pool)
    under_test.inline = False
    begun = under_test.begin({"x": np.array([4])}, time.monotonic() + 0.1)
    assert begun is not None
    (error,) = results_of(await under_test.end(begun))
    assert isinstance(error, DeadlineExceededError)
    run.gate.set()


@pytest.mark.parametrize("row_s", [QUICK, SLOW])
async def test_rows_of_many_callers_share_batches_and_keep_their_order(
    row_s: float, pool: ThreadPoolExecutor
) -> None:
    run = Doubler()
    reports: list[BatchReport] = []
    under_test = batcher(run, pool, row_s=row_s, on_batch=reports.append)
    futures = [submit(under_test, 3 * n, 3 * n + 1, 3 * n + 2) for n in range(10)]
    assert await results(*futures) == [[6 * n, 6 * n + 2, 6 * n + 4] for n in range(10)]
    assert [len(batch) for batch in run.batches] == [6, 6, 6, 6, 6], "requests that fit stay together"
    assert [report.rows for report in reports] == [6, 6, 6, 6, 6]
    assert [report.left for report in reports] == ["full"] * 4 + ["freed"]


async def test_a_request_larger_than_a_batch_is_cut_and_put_together_again(pool: ThreadPoolExecutor) -> None:
    run = Doubler()
    ((first,), (many), (last,)) = await results(
        *(
            submit(under_test, *numbers)
            for under_test in [batcher(run, pool)]
            for numbers in ([1], range(21), [2])
        )
    )
    assert (first, many, last) == (2, [2 * number for number in range(21)], 4)
    assert [len(batch) for batch in run.batches] == [1, 8, 8, 6]


async def test_collects_only_while_the_runtime_is_busy(pool: ThreadPoolExecutor) -> None:
    run = Held()
    reports: list[BatchReport] = []
    under_test = batcher(run, pool, row_s=SLOW, on_batch=reports.append)
    futures = [submit(under_test, 0)]
    await asyncio.to_thread(run.entered.wait, 10)
    futures += [submit(under_test, number) for number in range(1, 6)]
    await asyncio.sleep(0.05)
    assert run.batches == [1]
    run.gate.set()
    first, *others = await asyncio.gather(*futures)
    assert run.batches == [1, 5]
    assert [report.left for report in reports] == ["idle", "freed"]
    assert first.waited < 0.04 < others[0].waited, "how long rows waited is told"


async def test_as_many_batches_are_in_flight_as_are_worth_it(pool: ThreadPoolExecutor) -> None:
    run = Held()
    under_test = batcher(run, pool, row_s=SLOW, max_batch=1, in_flight=3)
    futures = [submit(under_test, number) for number in range(5)]
    await asyncio.sleep(0.1)
    assert len(run.batches) == 3
    run.gate.set()
    assert await results(*futures) == [[0], [1], [2], [3], [4]]


@pytest.mark.parametrize("row_s", [QUICK, SLOW])
async def test_a_poisonous_row_fails_alone(
    row_s: float, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    run = Doubler(frozenset({5}))
    under_test = batcher(run, pool, row_s=row_s)
    outcomes = await results(*(submit(under_test, number) for number in range(8)))
    for number, (outcome,) in enumerate(outcomes):
        if number == 5:
            assert isinstance(outcome, PredictionFailedError)
            assert "poison" not in outcome.detail, "callers do not learn what is inside"
            assert "poison" in caplog.text
        else:
            assert outcome == number * 2


@settings(max_examples=40)
@given(st.sets(st.integers(0, 30)), st.integers(1, 31))
def test_whatever_is_poisonous_is_found(poison: set[int], max_batch: int) -> None:
    async def go() -> list[int | RolloutError]:
        with ThreadPoolExecutor(1) as pool:
            under_test = batcher(Doubler(frozenset(poison)), pool, max_batch=max_batch)
            return results_of(await submit(under_test, *range(31)))

    for number, outcome in enumerate(asyncio.run(go())):
        assert isinstance(outcome, PredictionFailedError) == (number in poison)


async def test_a_run_that_loses_rows_is_a_failure_not_a_shift(pool: ThreadPoolExecutor) -> None:
    def lossy(arrays: Arrays) -> list[int]:
        numbers: list[int] = arrays["x"].tolist()
        return numbers[: max(1, len(numbers) - 1)]

    assert await results(submit(batcher(lossy, pool), 1, 2)) == [[1, 2]], "halves of one row each still fit"


async def test_a_row_past_its_deadline_costs_nothing(pool: ThreadPoolExecutor) -> None:
    run = Doubler()
    under_test = batcher(run, pool)
    ((late,), (fine,)) = await results(submit(under_test, 1, seconds=-1), submit(under_test, 2))
    assert isinstance(late, DeadlineExceededError)
    assert late.headers == {"Retry-After": "1"}
    assert fine == 4
    assert run.batches == [[2]]


async def test_rows_that_cannot_make_it_are_refused_before_they_cost_anything(pool: ThreadPoolExecutor) -> None:
    run = Doubler()
    under_test = batcher(run, pool, row_s=SLOW)
    with pytest.raises(DeadlineExceededError, match="100 rows would take about 1 s from now") as caught:
        submit(under_test, *range(100), seconds=0.5)
    assert caught.value.headers == {"Retry-After": "1"}
    (hurried,), (patient,) = await results(submit(under_test, 1, seconds=0.005), submit(under_test, 2))
    assert isinstance(hurried, DeadlineExceededError), "a single row takes longer than that"
    assert patient == 4
    assert run.batches == [[2]]


async def test_a_runtime_that_hangs_keeps_nobody_beyond_the_deadline(pool: ThreadPoolExecutor) -> None:
    run = Held()
    under_test = batcher(run, pool, row_s=SLOW, max_batch=1, hang_s=0.3)
    hanging = submit(under_test, 1, seconds=0.1), submit(under_test, 2, seconds=0.1)
    for (outcome,) in await results(*hanging):
        assert isinstance(outcome, DeadlineExceededError)
    assert not under_test.hangs()
    await asyncio.sleep(0.3)
    assert under_test.hangs(), "whoever watches the worker sees that it hangs"
    run.gate.set()
    assert await results(submit(under_test, 3)) == [[3]], "it goes on once the runtime does"
    assert not under_test.hangs()


async def test_those_who_wait_are_looked_after_once_however_many_batches_there_were(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps: list[float] = []
    sweep = Batcher._sweep

    def counted(swept: Batcher) -> None:
        sweeps.append(time.monotonic())
        sweep(swept)

    monkeypatch.setattr(Batcher, "_sweep", counted)
    run = Held()
    under_test = batcher(run, pool, row_s=SLOW)
    run.gate.set()
    for number in range(30):
        await submit(under_test, number)
    run.gate.clear()
    held = submit(under_test, 0)
    sweeps.clear()
    await asyncio.sleep(0.5)
    assert 1 <= len(sweeps) <= 11
    run.gate.set()
    assert await results(held) == [[0]]


async def test_more_work_than_can_wait_is_refused_at_once(pool: ThreadPoolExecutor) -> None:
    under_test = batcher(Doubler(), pool, row_s=SLOW, longest_wait=0.5)
    accepted = [submit(under_test, number) for number in range(51)]
    with pytest.raises(OverloadedError, match="51 rows are waiting already; try again shortly") as caught:
        submit(under_test, 51)
    assert caught.value.headers == {"Retry-After": "1"}
    assert await results(*accepted) == [[2 * number] for number in range(51)]
    assert await results(submit(under_test, 1)) == [[2]]


async def test_a_machine_that_became_slower_takes_on_less(pool: ThreadPoolExecutor) -> None:
    def slow(arrays: Arrays) -> list[int]:
        time.sleep(0.05)
        numbers: list[int] = arrays["x"].tolist()
        return numbers

    under_test = batcher(slow, pool, row_s=SLOW, max_batch=1)
    for number in range(20):
        await submit(under_test, number)
    with pytest.raises(DeadlineExceededError, match=r"100 rows would take about [4-9](\.\d)? s"):
        submit(under_test, *range(100), seconds=2)


async def test_a_caller_that_went_away_costs_nothing(pool: ThreadPoolExecutor) -> None:
    run = Doubler()
    under_test = batcher(run, pool)
    gone, here = submit(under_test, 1), submit(under_test, 2)
    gone.cancel()
    assert await results(here) == [[4]]
    assert run.batches == [[2]]


def of_lengths(*lengths: int) -> Arrays:
    """Rows of so many kilobytes, each of its own length as the number."""
    return {"x": ragged([np.full(length * 1024, length, np.uint8) for length in lengths])}


class Padder:
    """Answers a row with its length, and remembers the lengths of each batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, arrays: Arrays) -> list[int]:
        self.batches.append([len(row) // 1024 for row in arrays["x"]])
        return [int(row[0]) for row in arrays["x"]]


async def test_rows_of_one_request_are_cut_by_length_and_answered_in_their_order(
    pool: ThreadPoolExecutor,
) -> None:
    run = Padder()
    numbers = [200, 1, 190, 2, 100, 3, 90, 1]
    (found,) = await results(batcher(run, pool).submit(of_lengths(*numbers), time.monotonic() + 9))
    assert found == numbers
    assert run.batches == [[1, 1, 2, 3], [90, 100, 190, 200]], "at most a third of a batch is padding"


async def test_a_batch_takes_those_that_fit_the_row_that_waits_longest(pool: ThreadPoolExecutor) -> None:
    held, run = Held(), Padder()

    def first_held(arrays: Arrays) -> Sequence[int]:
        return run(arrays) if held.gate.is_set() else (held(arrays), run(arrays))[1]

    to = batcher(first_held, pool, row_s=SLOW, max_batch=4)
    waiting = [to.submit(of_lengths(7), time.monotonic() + 9)]
    await asyncio.to_thread(held.entered.wait, 5)
    waiting += [to.submit(of_lengths(length), time.monotonic() + 9) for length in (240, 1, 250, 2, 230, 220, 3)]
    held.gate.set()
    assert await results(*waiting) == [[length] for length in (7, 240, 1, 250, 2, 230, 220, 3)]
    assert run.batches == [[7], [240, 250, 230, 220], [1, 2, 3]]


@given(st.lists(st.integers(1, 250), min_size=1, max_size=30))
def test_no_batch_wastes_more_than_it_says(lengths: list[int]) -> None:
    profile = Profile(seconds=[0.001 * rows for rows in range(9)], in_flight=1)
    _, rows = loads(of_lengths(*lengths))
    load = NOTHING
    for row in rows:
        if profile.takes(wider := load.beside(row)):
            load = wider
    assert 1 <= load.rows <= 8
    assert load.rows * load.longest[0] <= max(SMALL_BYTES, WASTE * load.held)


def test_a_long_row_counts_for_more_and_a_batch_of_them_takes_fewer() -> None:
    profile = Profile(
        seconds=[0.0, 0.001, 0.002, 0.003, 0.004], in_flight=1, typical=100, longest=300, stretch=5.0
    )
    short, typical, long = (Load(1, (size,), size) for size in (1, 100, 300))
    assert [profile.weigh(one) for one in (short, typical, long)] == [LIGHTEST, 1, 5]
    assert profile.estimate(long) == pytest.approx(0.005)
    assert profile.slowest == pytest.approx(0.005)
    assert profile.takes(typical.beside(typical).beside(typical).beside(typical))
    assert not profile.takes(Load(1, (200,), 200).beside(Load(1, (200,), 200)))
