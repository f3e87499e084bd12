"""The accuracy on all traffic, from a queue that is full of what the model was unsure of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import scipy.stats

from rollout.judge.accuracy import Reviewed, Stratum, estimate_accuracy


def stratum(items: int, right: int, *, weight: float = 1.0, total: float | None = None) -> Stratum:
    """A stratum of which ``items`` are decided, ``right`` of them in the model's favour."""
    reviewed = [Reviewed(weight, right=row < right) for row in range(items)]
    return Stratum(items * weight if total is None else total, reviewed)


def known(*, uncertain: Stratum, audit: Stratum) -> tuple[float, float, float]:
    accuracy = estimate_accuracy({"low_confidence": uncertain, "audit": audit})
    assert accuracy.estimate is not None
    assert accuracy.low is not None
    assert accuracy.high is not None
    return accuracy.estimate, accuracy.low, accuracy.high


def test_the_mean_of_the_queue_is_wrong_and_the_estimate_is_not() -> None:
    """10 % of the traffic is uncertain and right at 0.70; 2 % of the rest is audited and right at 0.98."""
    uncertain, audit = stratum(5_000, 3_500), stratum(900, 882, weight=50)
    assert pytest.approx(0.743, abs=0.0005) == (3_500 + 882) / 5_900
    estimate, low, high = known(uncertain=uncertain, audit=audit)
    assert estimate == pytest.approx(0.952)
    assert 0.93 < low < 0.952 < high < 0.97


def test_what_is_still_open_counts_with_its_weight() -> None:
    """Half of the uncertain are not decided yet: they are as many as before, and known less well."""
    whole = known(uncertain=stratum(5_000, 3_500), audit=stratum(900, 882, weight=50))
    half = known(uncertain=stratum(2_500, 1_750, total=5_000), audit=stratum(900, 882, weight=50))
    assert half[0] == pytest.approx(whole[0])
    assert half[1] < whole[1]
    assert half[2] > whole[2]


def test_a_stratum_of_which_nothing_is_decided_is_missing_and_not_ignored() -> None:
    accuracy = estimate_accuracy({"low_confidence": stratum(100, 70), "audit": Stratum(900, [])})
    assert accuracy.missing == ("audit",)
    assert (accuracy.estimate, accuracy.low, accuracy.high) == (None, None, None)
    assert accuracy.reviewed == 100


def test_a_stratum_into_which_nothing_came_is_not_missing() -> None:
    accuracy = estimate_accuracy({"low_confidence": stratum(100, 70), "disagreement": Stratum(0, [])})
    assert accuracy.missing == ()
    assert accuracy.estimate == pytest.approx(0.7)
    assert estimate_accuracy({}) == (None, None, None, 0, ())


def test_what_came_in_whole_and_is_decided_to_the_last_has_no_sampling_error() -> None:
    accuracy = estimate_accuracy({"low_confidence": stratum(100, 70), "disagreement": stratum(50, 20)})
    assert (accuracy.estimate, accuracy.low, accuracy.high) == pytest.approx((0.6, 0.6, 0.6))


def test_one_stratum_of_equal_weights_has_wilsons_interval() -> None:
    """Of so many that the part which is decided does not matter."""
    accuracy = estimate_accuracy({"audit": stratum(180, 176, weight=1e6)})
    wilson = scipy.stats.binomtest(176, 180).proportion_ci(method="wilson")
    assert accuracy.low == pytest.approx(wilson.low, abs=1e-5)
    assert accuracy.high == pytest.approx(wilson.high, abs=1e-5)


def test_what_is_right_in_part_has_the_interval_of_as_much_that_is_right() -> None:
    in_part = estimate_accuracy({"audit": Stratum(5_000, [Reviewed(50, right=0.9)] * 100)})
    wholly = estimate_accuracy({"audit": stratum(100, 90, weight=50)})
    assert in_part[:4] == pytest.approx(wholly[:4])


@pytest.mark.parametrize("right", [-0.1, 1.1, float("nan")])
def test_nothing_is_right_to_more_than_1(right: float) -> None:
    with pytest.raises(ValueError, match="right from 0 to 1"):
        estimate_accuracy({"audit": Stratum(2, [Reviewed(1, 1), Reviewed(1, right)])})


def test_uneven_weights_count_for_fewer_items() -> None:
    items = [Reviewed(100, right=row % 10 > 0) for row in range(100)]
    uneven = [Reviewed(190 if row < 50 else 10, item.right) for row, item in enumerate(items)]
    even = estimate_accuracy({"audit": Stratum(10_000, items)})
    other = estimate_accuracy({"audit": Stratum(10_000, uneven)})
    assert even.estimate == other.estimate == pytest.approx(0.9)
    assert even.low is not None
    assert other.low is not None
    assert other.low < even.low - 0.01


@pytest.mark.parametrize("right", [0, 1])
def test_one_decided_item_tells_next_to_nothing(right: int) -> None:
    accuracy = estimate_accuracy({"audit": stratum(1, right, weight=200)})
    assert accuracy.estimate == right
    assert accuracy.low is not None
    assert accuracy.high is not None
    assert 0 <= accuracy.low <= accuracy.high <= 1
    assert accuracy.high - accuracy.low > 0.7


class World(NamedTuple):
    """A day of traffic and what people saw of it."""

    uncertain: float  # share
    right_if_uncertain: float
    right_else: float
    audit: float
    decided: float  # share of what came in
    limited: float = 1.0  # pi of what is uncertain, in the second half of the day


WORLDS = {
    "the issue's": World(0.1, 0.7, 0.98, 0.02, 1.0),
    "half decided": World(0.1, 0.7, 0.98, 0.02, 0.5),
    "strata far apart, a thin audit": World(0.2, 0.4, 0.98, 0.01, 1.0),
    "a limit on what comes in": World(0.3, 0.5, 0.9, 0.05, 0.8, limited=0.2),
}


def live(
    world: World, generator: np.random.Generator, predictions: int = 10_000
) -> tuple[float, dict[str, Stratum]]:
    """Returns the true accuracy of that day, and the strata."""
    uncertain = generator.random(predictions) < world.uncertain
    chance = np.where(uncertain, world.right_if_uncertain, world.right_else)
    right = generator.random(predictions) < chance
    is_late = np.arange(predictions) >= predictions // 2
    pi = np.where(uncertain, np.where(is_late, world.limited, 1.0), world.audit)
    came_in = generator.random(predictions) < pi
    decided = came_in & (generator.random(predictions) < world.decided)
    strata = {}
    for name, rows in (("low_confidence", uncertain), ("audit", ~uncertain)):
        items = zip((1 / pi[rows & decided]).tolist(), right[rows & decided].tolist(), strict=True)
        strata[name] = Stratum(float((1 / pi[rows & came_in]).sum()), [Reviewed(*item) for item in items])
    return float(right.mean()), strata


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS.keys())
def test_the_interval_holds_the_truth_in_95_of_100_worlds(world: World) -> None:
    generator = np.random.default_rng(0)
    covered, errors, naive = 0, [], []
    for _ in range(1_000):
        truth, strata = live(world, generator)
        accuracy = estimate_accuracy(strata)
        assert accuracy.estimate is not None
        assert accuracy.low is not None
        assert accuracy.high is not None
        covered += accuracy.low <= truth <= accuracy.high
        errors.append(accuracy.estimate - truth)
        queue = [item.right for each in strata.values() for item in each.reviewed]
        naive.append(np.mean(queue) - truth)
    assert 930 <= covered <= 985
    assert abs(np.mean(errors)) < 0.002
    assert np.mean(naive) < -0.1


class Parts(NamedTuple):
    """How far answers are right: all of them, or a share, and the others as a beta distribution says."""

    wholly: float  # share that is right
    not_at_all: float  # share that is wrong
    first: float
    second: float


PARTS = {
    "spread evenly": Parts(0, 0, 1, 1),
    "nearly all alike": Parts(0, 0, 800, 200),
    "mostly right, in part or wholly": Parts(0.7, 0.02, 6, 2),
    "a small loss, seldom a whole one": Parts(0, 0.02, 900, 20),
    "right or wrong": Parts(0.9, 0.1, 1, 1),
}


@pytest.mark.parametrize("decided", [30, 300])
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS.keys())
def test_the_interval_holds_what_is_right_in_part(parts: Parts, decided: int) -> None:
    """What came in whole and what is audited are of the same distribution; the audit decides the width."""
    generator = np.random.default_rng(0)
    covered, errors = 0, []
    for _ in range(1_000):
        chance = generator.random(4_000)
        right = np.where(chance < parts.wholly, 1.0, generator.beta(parts.first, parts.second, 4_000))
        right[chance > 1 - parts.not_at_all] = 0
        audited, whole = right[:decided].tolist(), right[-400:].tolist()
        accuracy = estimate_accuracy(
            {
                "low_confidence": Stratum(400, [Reviewed(1, one) for one in whole]),
                "audit": Stratum(3_600, [Reviewed(3_600 / decided, one) for one in audited]),
            }
        )
        assert accuracy.estimate is not None
        assert accuracy.low is not None
        assert accuracy.high is not None
        covered += accuracy.low <= right.mean() <= accuracy.high
        errors.append(accuracy.estimate - right.mean())
    assert covered >= 930
    assert abs(np.mean(errors)) < 4 * np.std(errors) / 1_000**0.5
    if parts.wholly + parts.not_at_all == 1:
        assert covered <= 985
