"""What a wanted rate takes, beside what a batcher does with rows that come at random."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rollout.cost import Point
from rollout.cost_at_rate import BUSY, describe_plans, plans

SIZES = (1, 8, 32, 64)


def points(variant: str, device: str, base: float, row: float) -> list[Point]:
    """A device whose batches cost ``base`` and ``row`` for each row, in seconds."""
    return [Point(variant, device, size, size / (base + row * size)) for size in SIZES]


BOTH = points("onnx", "cpu", 0.001, 0.005) + points("torchscript", "cuda", 0.002, 0.0002)


def p99_of_a_batcher(rate: float, base: float, row: float, rows: int = 20_000) -> float:
    """Runs a batcher on rows of a Poisson stream: idle, it takes what is there; else the next batch gathers."""
    arrived = np.cumsum(np.random.default_rng(0).exponential(1 / rate, rows))
    free, at, took = 0.0, 0, []
    while at < rows:
        start = max(free, arrived[at])
        end = min(max(at + 1, int(np.searchsorted(arrived, start, "right"))), at + 64)
        free = start + base + row * (end - at)
        took += (free - arrived[at:end]).tolist()
        at = end
    return float(np.percentile(took, 99))


def test_the_fewest_devices_are_found() -> None:
    by_device = {plan.device: plan for plan in plans(BOTH, 1000, {"cpu": 0.04, "cuda": 2.5})}
    assert by_device["cpu"].devices == math.ceil(1000 / (BUSY * 64 / (0.001 + 64 * 0.005)))
    assert by_device["cpu"].price == pytest.approx(by_device["cpu"].devices * 0.04)
    assert by_device["cuda"].devices == 1
    assert by_device["cuda"].batch_size == 4  # 2 + 4 x 0.2 ms, in which 2.8 rows come


@pytest.mark.parametrize("rate", [50, 500, 1500, 2500])
def test_about_99_of_100_rows_are_in_time(rate: float) -> None:
    (plan,) = plans(points("torchscript", "cuda", 0.002, 0.0002), rate, {})
    assert plan.devices == 1
    assert 0.5 * plan.p99 < p99_of_a_batcher(rate, 0.002, 0.0002) < 1.3 * plan.p99


def test_the_cheapest_that_is_in_time() -> None:
    prices = {"cpu": 0.04, "cuda": 2.5}
    in_time = plans(BOTH, 100, prices, longest=0.02)
    assert [plan.device for plan in in_time] == ["cpu", "cuda"]
    assert all(plan.p99 <= 0.02 for plan in in_time)
    assert describe_plans(BOTH, 100, prices, 0.02)[-1] == "The cheapest of these is onnx on cpu."
    assert [plan.device for plan in plans(BOTH, 100, prices, longest=0.008)] == ["cuda"]
    assert describe_plans(BOTH, 100, prices, 0.001) == [
        "Nothing scores 100 rows a second with p99 under 1 ms: one row at a time has 4.4 ms."
    ]


def test_it_is_said_in_a_sentence() -> None:
    first, last = describe_plans(BOTH, 500, {"cuda": 2.5})[:2]
    assert first == (
        "At 500 rows a second, torchscript on cuda: 1 GPU, batches of about 2, p99 about 4.8 ms, 2.5 an hour."
    )
    assert last.startswith("At 500 rows a second, onnx on cpu: 4 cores, batches of about ")
