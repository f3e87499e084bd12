"""The difference of two arms whose units are clients."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.errors import InvalidSplitError
from rollout.judge import client_sums, policy
from rollout.judge.client_sums import as_arm, design_effect, difference, sum_clients
from rollout.judge.policy import Guardrails, Policy
from rollout.judge.sequences import Floats
from tests.judge.simulations import GrowingArms


def clients(count: int, stages: int, seed: int, rate: float = 0.8, spread: float = 0.2) -> Floats:
    """Clients that are in all stages, each with a rate of its own."""
    generator = np.random.default_rng(seed)
    own = np.clip(rate + spread * generator.standard_normal((count, 1)), 0, 1)
    rows = generator.poisson(4, (count, stages))
    return np.stack([generator.binomial(rows, own), rows], axis=-1).reshape(count, -1).astype(float)


def test_the_examples() -> None:
    assert doctest.testmod(client_sums).failed == 0
    assert doctest.testmod(policy).failed == 0


def test_the_mean_is_that_over_rows() -> None:
    control, challenger = clients(200, 1, 1), clients(200, 1, 2, rate=0.7)
    found = difference(as_arm(sum_clients(control)), as_arm(sum_clients(challenger)), is_share=True)
    means = [arm[:, 0].sum() / arm[:, 1].sum() for arm in (control, challenger)]
    assert float(found.mean) == pytest.approx(means[1] - means[0])


def test_stages_count_by_their_size_and_not_by_their_arms() -> None:
    """The paradox: identical in each stage, and pooled .853 against .894."""
    control = np.array([[0.9 * 100, 100, 0, 0]] * 200 + [[0, 0, 0.8 * 100, 100]] * 177)
    challenger = np.array([[0.9 * 100, 100, 0, 0]] * 188 + [[0, 0, 0.8 * 100, 100]] * 12)
    pooled = [arm[:, 0::2].sum() / arm[:, 1::2].sum() for arm in (control, challenger)]
    assert pooled == pytest.approx([0.853, 0.894], abs=1e-3)
    found = difference(as_arm(sum_clients(control)), as_arm(sum_clients(challenger)), is_share=True)
    assert float(found.mean) == pytest.approx(0, abs=1e-12)


def test_a_stage_with_one_arm_says_nothing() -> None:
    both, alone = clients(200, 2, 1), clients(200, 2, 2)
    alone[:, 2:] = 0
    found = difference(as_arm(sum_clients(both)), as_arm(sum_clients(alone)), is_share=True)
    first = difference(as_arm(sum_clients(both[:, :2])), as_arm(sum_clients(alone[:, :2])), is_share=True)
    assert float(found.mean) == pytest.approx(float(first.mean))


def test_the_variance_is_that_between_samples() -> None:
    """Of 2,000 pairs of samples whose clients are in three stages: what they have in common counts."""
    found = [
        difference(
            as_arm(sum_clients(clients(60, 3, seed))),
            as_arm(sum_clients(clients(60, 3, 10_000 + seed))),
            is_share=False,
        )
        for seed in range(2_000)
    ]
    seen = np.var([float(one.mean) for one in found])
    said = np.mean([float(one.variance / one.rows) for one in found])
    assert said == pytest.approx(seen, rel=0.1)
    alone = np.mean([_without_what_stages_share(seed) for seed in range(200)])
    assert alone < 0.8 * seen, "stages by themselves would promise too much"


def _without_what_stages_share(seed: int) -> float:
    arms = [as_arm(sum_clients(clients(60, 3, offset + seed))) for offset in (0, 10_000)]
    blocks = np.kron(np.eye(3), np.ones((2, 2)))
    one, other = (arm._replace(products=arm.products * blocks) for arm in arms)
    found = difference(one, other, is_share=False)
    return float(found.variance / found.rows)


def test_sums_that_grow_row_by_row_are_those_of_the_clients() -> None:
    arms = GrowingArms(3, 0.1, 0.0, np.random.default_rng(1))
    for row in range(500):
        arms.add_rows(row // 100)
    for run in range(3):
        sums = sum_clients(arms._vectors[run])
        assert sums.clients == arms.clients[run]
        assert sums.sums == pytest.approx(arms.sums[run].tolist())
        assert np.array(sums.products) == pytest.approx(arms.products[run])


@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 100))
def test_many_looks_at_once_are_those_one_by_one(count: int, stages: int, seed: int) -> None:
    pairs = [
        [as_arm(sum_clients(clients(count, stages, seed + arm + look))) for arm in (0, 50)] for look in range(3)
    ]
    stacked = [
        client_sums.Arm(*(np.stack(parts) for parts in zip(*(pair[arm] for pair in pairs), strict=True)))
        for arm in (0, 1)
    ]
    together = difference(*stacked, is_share=True)
    for look, pair in enumerate(pairs):
        alone = difference(*pair, is_share=True)
        assert [float(figure[look]) for figure in together] == pytest.approx(
            [float(one) for one in alone], nan_ok=True
        )


def test_the_design_effect() -> None:
    independent = np.array([[row % 2, 1.0] for row in range(200)])
    assert design_effect(sum_clients(independent)) == pytest.approx(1, abs=0.01)
    together = np.array([[10.0 * (row % 2), 10.0] for row in range(200)])
    assert design_effect(sum_clients(together)) == pytest.approx(10, rel=0.01)
    assert design_effect(sum_clients(np.array([[0.0, 10.0]] * 5))) == 1


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"margin": -0.1}, "margin"),
        ({"alpha": 0.0}, "alpha"),
        ({"least_s": -1.0}, "least_s"),
        ({"least_clients": 1}, "least_clients"),
        ({"tuned_for": 0}, "tuned_for"),
        ({"stages": (0.1, 0.05)}, "rising"),
        ({"stages": (0.1, 0.6)}, "0.5"),
        ({"stages": ()}, "stages"),
        ({"metric": "failures"}, "at once"),
        ({"metric": "basket", "compare": "disagreements"}, "disagreements"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(parts: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidSplitError, match=said):
        Policy(**parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "parts", [{"failures": 1.0}, {"fallbacks": -0.1}, {"late_ms": 0}, {"numbers": {"basket": 0}}]
)
def test_guardrails_that_make_no_sense_are_refused(parts: dict[str, object]) -> None:
    with pytest.raises(InvalidSplitError):
        Guardrails(**parts)  # type: ignore[arg-type]
