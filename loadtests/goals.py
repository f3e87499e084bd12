"""What this service is to reach, and whether it does."""

from __future__ import annotations

from typing import NamedTuple

from loadtests.bodies import BATCH
from loadtests.contenders import (
    AS_IT_COMES,
    BENTOML,
    CONTENDERS,
    EVERYTHING_OFF,
    EVERYTHING_ON,
    FASTAPI,
    MOSEC_ONE,
    MOSEC_TWO,
    ONE,
    SHADOW_OFF,
    SHADOW_ON,
    TWO,
    Contender,
)
from loadtests.results import BINARY_CONNECTIONS, LARGE, MODELS, SMALL, Results

OTHERS = tuple(contender for contender in CONTENDERS if not contender.is_ours)


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
    found = [
        _at_least(2, "mosec", _ratio(results, SMALL, 32, TWO, (MOSEC_ONE, MOSEC_TWO)), 32),
        _at_least(20, "bare BentoML", _ratio(results, SMALL, 32, TWO, (BENTOML,)), 32),
        _at_least(1.1, "mosec with two workers", _ratio(results, SMALL, 128, TWO, (MOSEC_TWO,)), 128),
        _at_least(25, "bare BentoML", _ratio(results, SMALL, 128, TWO, (BENTOML,)), 128),
        _first_connection(results),
    ]
    for model in MODELS:
        of_ceiling = _divide(
            results.rate(model, ONE, BINARY_CONNECTIONS, BATCH), results.ceiling(model, lambda one: one.rows_64)
        )
        what = f"{BATCH}-row binary requests, {model}, one worker"
        found.append(_goal(what, "≥ 0.9 of onnxruntime in process", of_ceiling, at_least=0.9))
    like_for_like = "larger model, like for like (fp32), 128 connections"
    found += [
        _goal(
            f"{like_for_like}, one worker",
            "≥ 0.95 of onnxruntime in process",
            _divide(results.rate(LARGE, ONE, 128), results.ceiling(LARGE, lambda one: one.rows_64)),
            at_least=0.95,
        ),
        _goal(
            f"{like_for_like}, one worker",
            "ahead of every contender with one",
            _ratio(results, LARGE, 128, ONE, [other for other in OTHERS if other is not MOSEC_TWO]),
            at_least=1,
        ),
        _goal(
            f"{like_for_like}, two workers",
            "ahead of mosec with two",
            _ratio(results, LARGE, 128, TWO, (MOSEC_TWO,)),
            at_least=1,
        ),
        _goal(
            "larger model, out of the box, 128 connections",
            "≥ 2 × the best contender",
            _ratio(results, LARGE, 128, AS_IT_COMES, OTHERS),
            at_least=2,
        ),
        _cost_of_everything(results),
        _cost_of_shadow(results),
        _memory(results),
    ]
    return found


def _at_least(factor: float, whom: str, ratio: float | None, connections: int) -> Goal:
    what = f"single-row JSON, small model, {connections} connections"
    return _goal(what, f"≥ {factor:g} × {whom}", ratio, at_least=factor)


def _goal(what: str, wanted: str, figure: float | None, *, at_least: float) -> Goal:
    return Goal(what, wanted, None if figure is None else f"{figure:.2f}", (figure or 0) >= at_least)


def _ratio(
    results: Results,
    model: str,
    connections: int,
    ours: Contender,
    others: list[Contender] | tuple[Contender, ...],
) -> float | None:
    """Returns our rate over that of the fastest of the others."""
    rates = [results.rate(model, other, connections) for other in others]
    return _divide(
        results.rate(model, ours, connections), max((rate for rate in rates if rate is not None), default=None)
    )


def _divide(ours: float | None, other: float | None) -> float | None:
    return None if ours is None or not other else ours / other


def _first_connection(results: Results) -> Goal:
    ours, other = (results.median(lambda one: one.p50_ms, SMALL, who, 1) for who in (TWO, FASTAPI))
    what, wanted = "p50 at 1 connection, small model", "≤ FastAPI's"
    if ours is None or other is None:
        return Goal(what, wanted, None, reached=False)
    return Goal(what, wanted, f"{ours:.2f} ms to {other:.2f} ms", ours <= other)


def _cost_of_everything(results: Results) -> Goal:
    what, wanted = "A/B at 50 %, review and metrics on against off", "≤ 10 %"
    costs = {}
    for connections in (32, 128):
        ratio = _ratio(results, SMALL, connections, EVERYTHING_ON, (EVERYTHING_OFF,))
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
    what, wanted = "memory per worker beyond its models, without torch", "≤ 150 MiB"
    session = results.ceiling(SMALL, lambda one: one.session_mib)
    if not results.workers or session is None:
        return Goal(what, wanted, None, reached=False)
    # Both versions of the trial are loaded.
    beyond, resident = (
        max(getattr(worker, of) for worker in results.workers) - 2 * session for of in ("uss_mib", "rss_mib")
    )
    torch = any(worker.has_torch for worker in results.workers)
    found = f"{beyond:.0f} MiB its own (RSS {resident:.0f} MiB), torch {'is' if torch else 'is not'} imported"
    return Goal(what, wanted, found, beyond <= 150 and not torch)
