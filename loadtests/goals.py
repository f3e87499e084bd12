"""What this service is to reach, and whether it does."""

from __future__ import annotations

from typing import NamedTuple

from loadtests.bodies import BATCH
from loadtests.contenders import (
    BENTOML,
    EVERYTHING_OFF,
    EVERYTHING_ON,
    FASTAPI,
    FLOOR,
    MOSEC_ONE,
    MOSEC_TWO,
    ONE,
    SHADOW_OFF,
    SHADOW_ON,
    TWO,
    Contender,
)
from loadtests.results import BINARY_CONNECTIONS, LARGE, SMALL, Results

SINGLE = "one row of JSON, small model"
MOST_CPU_US = 30


class Goal(NamedTuple):
    """A goal and what was found.

    Attributes:
        what: What is measured.
        wanted: What is wanted of it, in words.
        found: The figure; ``None`` where it was not measured.
        reached: Whether the figure is what is wanted.
    """

    what: str
    wanted: str
    found: str | None
    reached: bool

    @property
    def verdict(self) -> str:
        """``reached``, ``missed`` or ``not measured``."""
        if self.found is None:
            return "not measured"
        return "reached" if self.reached else "missed"


def goals(results: Results) -> list[Goal]:
    """Holds the figures against the goals."""
    found = [_cpu_against_the_floor(results, connections) for connections in (32, 128)]
    for connections, times in ((32, 5), (128, 2)):
        ratio = _ratio(results, SMALL, connections, ONE, MOSEC_ONE)
        found.append(
            _goal(f"{SINGLE}, {connections} connections, one worker", f"≥ {times} × mosec", ratio, times)
        )
    ratio = _ratio(results, SMALL, 128, TWO, MOSEC_TWO)
    found.append(_goal(f"{SINGLE}, 128 connections, two workers", "≥ 1.3 × mosec", ratio, 1.3))
    for connections in (32, 128):
        times_less = _divide(_cpu(results, SMALL, BENTOML, connections), _cpu(results, SMALL, ONE, connections))
        what = f"CPU a request, {connections} connections, one worker"
        found.append(_goal(what, "bare BentoML's ≥ 25 × ours", times_less, 25))
    found.append(_first_connection(results))
    for model, least in ((SMALL, 0.8), (LARGE, 0.95)):
        of_ceiling = _divide(
            results.rate(model, ONE, BINARY_CONNECTIONS, BATCH), results.ceiling(model, lambda one: one.rows_64)
        )
        what = f"{BATCH}-row binary requests, {model}, one worker"
        found.append(_goal(what, f"≥ {least} of onnxruntime in process", of_ceiling, least))
    return [
        *found,
        _larger_by_cpu(results),
        _cost_of_everything(results),
        _tail(results),
        _cost_of_shadow(results),
        _memory(results),
    ]


def _goal(what: str, wanted: str, figure: float | None, least: float) -> Goal:
    return Goal(what, wanted, None if figure is None else f"{figure:.2f}", (figure or 0) >= least)


def _ratio(results: Results, model: str, connections: int, ours: Contender, other: Contender) -> float | None:
    """Returns our rate over that of another."""
    return _divide(results.rate(model, ours, connections), results.rate(model, other, connections))


def _divide(ours: float | None, other: float | None) -> float | None:
    return None if ours is None or not other else ours / other


def _cpu(results: Results, model: str, contender: Contender, connections: int) -> float | None:
    """Returns the CPU time of a request, in microseconds."""
    milliseconds = results.median(lambda one: one.cpu_per_1000, model, contender, connections)
    return None if milliseconds is None else milliseconds * 1000


def _cpu_against_the_floor(results: Results, connections: int) -> Goal:
    what = f"CPU a request, {connections} connections, one worker"
    wanted = f"≤ {MOST_CPU_US} µs and ≤ 5 × a constant answer's"
    ours, floor = (_cpu(results, SMALL, who, connections) for who in (ONE, FLOOR))
    if ours is None or not floor:
        return Goal(what, wanted, None, reached=False)
    found = f"{ours:.0f} µs, {ours / floor:.1f} × {floor:.1f} µs"
    return Goal(what, wanted, found, ours <= min(MOST_CPU_US, 5 * floor))


def _first_connection(results: Results) -> Goal:
    ours, other = (results.median(lambda one: one.p50_ms, SMALL, who, 1) for who in (TWO, FASTAPI))
    what, wanted = "p50 at 1 connection, small model", "≤ 0.12 ms, or 0.6 of FastAPI's"
    if ours is None or not other:
        return Goal(what, wanted, None, reached=False)
    found = f"{ours:.2f} ms, {ours / other:.2f} of FastAPI's"
    return Goal(what, wanted, found, ours <= max(0.12, 0.6 * other))


def _larger_by_cpu(results: Results) -> Goal:
    """One row a request, but batches: what the model takes for a row in batches, of what the service takes."""
    rate = results.ceiling(LARGE, lambda one: one.rows_64)
    ratio = _divide(1e6 / rate if rate else None, _cpu(results, LARGE, ONE, 128))
    what = "larger model, one row a request, 128 connections, one worker, by CPU"
    return _goal(what, "≥ 0.85 of onnxruntime in process", ratio, 0.85)


def _tail(results: Results) -> Goal:
    ours, other = (results.median(lambda one: one.p99_ms, SMALL, who, 32) for who in (TWO, MOSEC_TWO))
    what, wanted = "p99 at 32 connections, two workers", "≤ mosec's"
    if ours is None or other is None:
        return Goal(what, wanted, None, reached=False)
    return Goal(what, wanted, f"{ours:.1f} ms to {other:.1f} ms", ours <= other)


def _cost_of_everything(results: Results) -> Goal:
    what, wanted = "A/B at 50 %, review and metrics on against off", "≤ 10 %"
    costs = {}
    for connections in (32, 128):
        ratio = _ratio(results, SMALL, connections, EVERYTHING_ON, EVERYTHING_OFF)
        if ratio is None:
            return Goal(what, wanted, None, reached=False)
        costs[connections] = 1 - ratio
    found = ", ".join(f"{cost:.1%} at {connections} connections" for connections, cost in costs.items())
    return Goal(what, wanted, found, max(costs.values()) <= 0.1)


def _cost_of_shadow(results: Results) -> Goal:
    what, wanted = "p99 with a shadow of 100 % on an idle machine", "≤ 1.1 × without"
    shadowed, alone = results.idle_p99(SHADOW_ON), results.idle_p99(SHADOW_OFF)
    if shadowed is None or not alone:
        return Goal(what, wanted, None, reached=False)
    ratio = shadowed / alone
    return Goal(what, wanted, f"{ratio:.2f} ({shadowed:.2f} ms to {alone:.2f} ms)", ratio <= 1.1)


def _memory(results: Results) -> Goal:
    what, wanted = "memory per worker beyond its models, without torch", "≤ 150 MiB resident"
    session = results.ceiling(SMALL, lambda one: one.session_mib)
    if not results.workers or session is None:
        return Goal(what, wanted, None, reached=False)
    # Both versions of the trial are loaded.
    own, resident = (
        max(getattr(worker, of) for worker in results.workers) - 2 * session for of in ("uss_mib", "rss_mib")
    )
    torch = any(worker.has_torch for worker in results.workers)
    found = f"{resident:.0f} MiB ({own:.0f} its own), torch {'is' if torch else 'is not'} imported"
    return Goal(what, wanted, found, resident <= 150 and not torch)
