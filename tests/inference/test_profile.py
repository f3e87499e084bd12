"""The knee of a throughput curve is found, whatever the runtime is like."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from rollout.bundle.columns import ragged
from rollout.bundle.parity import MAX_BATCH
from rollout.bundle.schema import Arrays
from rollout.inference.profile import measure

EXAMPLES = {"x": np.arange(7)}


class Runtime:
    """Takes a while for each batch and for each row of it."""

    def __init__(self, batch_s: float, row_s: float, *, lock: bool = True) -> None:
        self.batch_s, self.row_s = batch_s, row_s
        self.lock = threading.Lock() if lock else None
        self.sizes: set[int] = set()

    def __call__(self, arrays: Arrays) -> None:
        rows = len(arrays["x"])
        self.sizes.add(rows)
        if self.lock is None:
            time.sleep(self.batch_s + rows * self.row_s)
        else:
            with self.lock:
                time.sleep(self.batch_s + rows * self.row_s)


def test_batches_are_as_large_as_is_worth_it() -> None:
    runtime = Runtime(batch_s=0.004, row_s=0.0)
    profile = measure(runtime, EXAMPLES, cores=1)
    assert profile.max_batch == MAX_BATCH
    assert runtime.sizes == set(range(1, MAX_BATCH + 1)), "every size that it will use is warm"
    assert profile.seconds[1] == pytest.approx(0.004, rel=0.5)
    assert profile.rate == pytest.approx(MAX_BATCH / 0.004, rel=0.5)


def test_no_larger_than_is_worth_it() -> None:
    runtime = Runtime(batch_s=0.0, row_s=0.004)
    profile = measure(runtime, EXAMPLES, cores=1)
    assert profile.max_batch <= 2
    assert profile.seconds[0] == 0


def test_a_slow_model_is_not_tried_with_batches_that_nobody_would_wait_for() -> None:
    runtime = Runtime(batch_s=0.1, row_s=0.01)
    measure(runtime, EXAMPLES, cores=1)
    assert max(runtime.sizes) <= 4


@pytest.mark.parametrize(("lock", "in_flight"), [(True, 1), (False, 4)])
def test_batches_run_side_by_side_where_that_is_worth_it(lock: bool, in_flight: int) -> None:
    assert measure(Runtime(0.004, 0.0, lock=lock), EXAMPLES, cores=4).in_flight == in_flight


def test_one_core_runs_one_batch() -> None:
    assert measure(Runtime(0.001, 0.0, lock=False), EXAMPLES, cores=1).in_flight == 1


class OfLengths:
    """Takes a while for each step of a padded batch."""

    def __call__(self, arrays: Arrays) -> None:
        time.sleep(0.0005 + 0.00002 * len(arrays["x"]) * max(map(len, arrays["x"])))


def test_long_rows_are_measured_beside_typical_ones() -> None:
    rows = ragged([np.zeros(size, np.uint8) for size in (10, 100, 10, 1, 10)])
    profile = measure(OfLengths(), {"x": rows}, cores=1)
    assert (profile.typical, profile.longest) == (10, 100)
    assert 5 < profile.stretch < 11
