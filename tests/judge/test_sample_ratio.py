"""Arms that should be of the same size."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from rollout.judge import sample_ratio
from rollout.judge.sample_ratio import COUNTING_ERROR, is_mismatch


def test_the_example() -> None:
    assert doctest.testmod(sample_ratio) == (0, 1)


@pytest.mark.parametrize("clients", [300, 3000, 100_000])
def test_honest_arms_are_taken_for_honest(clients: int) -> None:
    """Chance and HyperLogLog's own error, 100,000 times: 1e-4 of them, 10, may look wrong."""
    generator = np.random.default_rng(7)
    control = generator.binomial(clients, 0.5, 100_000)
    noise = 1 + COUNTING_ERROR * generator.standard_normal((2, 100_000))
    counted = np.stack([control, clients - control]) * noise
    assert 0 <= sum(is_mismatch(round(a), round(b)) for a, b in counted.T.tolist()) < 30


@pytest.mark.parametrize(("control", "challenger"), [(200, 300), (3000, 2500), (100_000, 105_000), (400, 0)])
def test_a_loss_is_noticed(control: int, challenger: int) -> None:
    assert is_mismatch(control, challenger)
    assert is_mismatch(challenger, control)


def test_a_handful_says_nothing() -> None:
    assert not is_mismatch(0, 150)
