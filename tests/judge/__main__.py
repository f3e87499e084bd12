"""``make judge``: simulates trials whose truth is known, and prints what is wanted beside what was found."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from rollout.config import Settings
from rollout.embedded import running_redis
from rollout.store import connect
from tests.inference.killed import Ramped, ramp_up
from tests.judge import drift_simulations as traffic
from tests.judge import review_simulations as reviewed
from tests.judge import simulations as trials
from tests.judge.cases import held


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        simulated: What.
        wanted: What should come of it.
        found: What did.
        holds: Whether that is as wanted.
    """

    simulated: str
    wanted: str
    found: str
    holds: bool


def often(scale: float) -> Iterator[Row]:
    """Yields what a thousand looks make of identical models, and of one at the margin's edge."""
    runs = max(20, int(2_000 * scale))
    looks = max(50, int(1_000 * scale**0.5))
    for what, margin, worse in (("A/A", 0.0, 0.0), ("worse by the margin", 0.02, 0.02)):
        found = trials.look_often(runs, looks, margin, worse, seed=1)
        yield Row(
            f"{what}: {looks:,} looks, {runs:,} runs, client effects, a ramp",
            "false promote and rollback each ≤ 5 %",
            f"{found.promoted:.1%}, {found.rolled_back:.1%}",
            max(found) <= trials.ALPHA,
        )


def coverage(scale: float) -> Iterator[Row]:
    """Yields how often the truth stayed within each sequence at all times."""
    runs = max(100, int(2_000 * scale))
    covered = {
        "bounded_mean, beta(2, 6), 2,000 values": trials.cover_bounded(runs, 2_000, seed=2),
        "asymptotic_mean, exponential, 100 to 5,000 values": trials.cover_asymptotic(runs, 5_000, seed=3),
        "proportion, 2 % of 1,000": trials.cover_proportion(runs, 1_000, 0.02, seed=4),
        "least_difference, 2 % and 1 % of 3,000, 100 looks": trials.cover_difference(
            max(20, int(400 * scale)), 100, (0.02, 0.01), seed=16
        ),
        "accuracy_difference, 400 labels, two probabilities": trials.cover_disagreements(runs, 400, seed=5),
    }
    for what, share in covered.items():
        yield Row(f"coverage at all times: {what}", "≥ 95 %", f"{share:.1%}", share >= 1 - trials.ALPHA)


def ramps(scale: float) -> Iterator[Row]:
    """Yields what becomes of identical models whose base rate drifts."""
    told = trials.simpson(max(20, int(400 * scale)), seed=6)
    said = ", ".join(f"{verdict} {count}" for verdict, count in sorted(told.items()))
    yield Row("Simpson ramp, identical models", "never rollback", said, "rollback" not in told)


def failing(scale: float) -> Iterator[Row]:
    """Yields how soon a challenger that fails is rolled back."""
    runs = max(21, int(150 * scale))
    for rate, most in ((0.2, 150), (0.05, 600)):
        found = trials.requests_until_rollback(rate, 0.005, runs, seed=7)
        yield Row(
            f"challenger fails in {rate:.0%} of its requests, control in 0.5 %",
            f"rollback after ≤ {most}, at the median",
            f"{found:.0f}",
            found <= most,
        )


def labels(scale: float) -> Iterator[Row]:
    """Yields how many labels it takes."""
    few, many = trials.labels_until_verdict(max(11, int(100 * scale)), seed=8)
    yield Row(
        "2 points better, disagreement 5 %: labels until a verdict",
        "≤ 1/10 of those of rows drawn from all",
        f"{few:.0f} and {many:.0f}: 1/{many / few:.0f}",
        10 * few <= many,
    )


def ratios(scale: float) -> Iterator[Row]:
    """Yields what the sample ratio says."""
    runs = max(20, int(10_000 * scale))
    for counted in (False, True):
        by = "HyperLogLogs" if counted else "counts"
        found = trials.ratio_alarms(runs, 1_000, 200_000, (1, 1), seed=9, counted=counted)
        what = f"sample ratio, perfect, 1,000 looks, {runs:,} runs, by {by}"
        yield Row(what, "≤ 0.5 %", f"{found:.2%}", found <= 0.005)
    found = trials.ratio_alarms(max(20, runs // 100), 1_000, 200_000, (50, 48), seed=10, counted=False)
    yield Row("sample ratio 50/48 at 200,000 clients", "found", f"{found:.1%}", found == 1)


def reviews(scale: float) -> Iterator[Row]:
    """Yields what labels of review make of arms of which one is unsure more often, while people are at it."""
    runs, looks = max(20, int(400 * scale)), 40
    few = "people take the least certain first, of which the challenger has three times as many"
    for what, margin in (("A/A", 0.0), ("worse by the margin", 0.03)):
        found = reviewed.look_often(runs, looks, margin, worse=margin, rows=12_000, seed=14)
        yield Row(
            f"by reviews, {what}: {few}; {looks} looks, {runs:,} runs",
            "false promote and rollback each ≤ 5 %",
            f"{found.promoted:.1%}, {found.rolled_back:.1%}",
            max(found) <= trials.ALPHA,
        )
    found = reviewed.look_often(max(20, runs // 10), 5, 0.0, worse=0.0, rows=30_000, seed=14, takes_all=True)
    yield Row(
        "by reviews, A/A, if every label counted that there is, and not only as far as everything is decided",
        "what that is good for: a wrong rollback in > 50 %",
        f"{found.rolled_back:.0%}",
        found.rolled_back > 0.5,
    )
    found = reviewed.look_often(max(20, runs // 4), looks, 0.02, worse=0.12, rows=12_000, seed=15)
    yield Row(
        "by reviews, 12 points worse, where 2 may be: 12,000 rows of each arm",
        "rolled back in ≥ 90 %",
        f"{found.rolled_back:.0%}",
        found.rolled_back >= 0.9,
    )


def drift(scale: float) -> Iterator[Row]:
    """Yields what many looks make of unchanged traffic, and how soon what changed is told."""
    runs, looks = max(10, int(100 * scale)), max(100, int(1_000 * scale**0.5))
    for rows in (100, 1_000):
        found = traffic.look_often(runs, looks, rows, 20, seed=12, alpha=0.05, least=0.0)
        yield Row(
            f"drift: unchanged traffic, {looks:,} looks, {runs:,} runs, {rows:,} evaluation rows, any distance",
            "told in ≤ 5 %",
            f"{found:.1%}",
            found <= 0.05,
        )
    changes = {
        "another unit, ×1,000": (traffic.scaled, 20),
        "a new category in a quarter of the rows": (traffic.new_category, 60),
        "a field that is not sent any more": (traffic.dropped, 30),
        "what belongs together otherwise": (traffic.turned, 400),
    }
    for what, (change, most) in changes.items():
        median, largest = traffic.until_told(change, 400, max(9, int(50 * scale)), seed=13)
        yield Row(
            f"drift: {what}, after 1,000 rows as ever",
            f"told within {most} rows, at the median",
            f"{median}, {largest} at most",
            median <= most,
        )


def holds(_: float) -> Iterator[Row]:
    """Yields what holds, and why."""
    for what, (reason, found) in held().items():
        said = f"{found.verdict}, {found.reason}"
        yield Row(what, f"hold, {reason}", said, said == f"hold, {reason}")


def kills(scale: float) -> Iterator[Row]:
    """Yields what becomes of a ramp whose controllers are killed, on a real Valkey."""
    shares = [round(0.02 * step, 2) for step in range(1, max(4, int(20 * scale)) + 1)]

    async def ramp(url: str) -> Ramped:
        redis = await connect(url)
        try:
            return await ramp_up(redis, url, shares, kill_every=1, seed=11)
        finally:
            await redis.aclose()

    with TemporaryDirectory() as home, running_redis(Settings(home=Path(home))) as url:
        found = asyncio.run(ramp(url))
    steps = Counter(one.share for one in found.history[1:])
    twice = sum(count > 1 for count in steps.values())
    yield Row(
        f"two controllers, one killed in each of {len(shares) - 1} steps of a ramp",
        "each step once",
        f"{steps.total()} steps, {twice} twice; {found.killed} killed",
        found.is_each_once(shares) and found.killed == len(shares) - 1,
    )


SIMULATIONS: tuple[Callable[[float], Iterator[Row]], ...] = (
    holds,
    kills,
    failing,
    labels,
    ramps,
    ratios,
    coverage,
    often,
    reviews,
    drift,
)


def main(asked: Sequence[str] = ()) -> bool:
    """Prints the table.

    Args:
        asked: The scale of the runs, 1 for all, and the names of simulations, of which all run where none is named.

    Returns:
        Whether everything is as wanted.
    """
    by_name = {simulation.__name__: simulation for simulation in SIMULATIONS}
    names = [one for one in asked if not one[0].isdigit()]
    scale = next((float(one) for one in asked if one[0].isdigit()), 1.0)
    if unknown := set(names) - set(by_name):
        sys.exit(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(by_name)}")
    print("| simulated | wanted | found | |\n| --- | --- | --- | --- |")  # noqa: T201
    fine, began = True, time.monotonic()
    for name in names or by_name:
        for row in by_name[name](scale):
            fine &= row.holds
            print(f"| {row.simulated} | {row.wanted} | {row.found} | {'✓' if row.holds else '✗'} |", flush=True)  # noqa: T201
    print(f"\n{time.monotonic() - began:.0f} s")  # noqa: T201
    return fine


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1:]))
