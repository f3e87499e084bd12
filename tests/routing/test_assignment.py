"""Assignment: GrowthBook's hash, fixed ranges, and the ramp rule."""

from __future__ import annotations

import math

import pytest
from growthbook.core import gbhash
from hypothesis import given
from hypothesis import strategies as st

from rollout import RolloutError
from rollout.routing import assignment
from rollout.routing.assignment import assign, bucket, fnv1a32
from rollout.routing.split import Split

shares = st.integers(0, 5000).map(lambda share: share / 10_000)


def split(share: float, experiment: str = "digits-v1-v2") -> Split:
    return Split(champion="v1", challenger="v2", share=share, experiment=experiment)


@pytest.mark.parametrize(("text", "value"), [("", 0x811C9DC5), ("a", 0xE40C292C), ("foobar", 0xBF9CF968)])
def test_published_fnv_vectors(text: str, value: int) -> None:
    assert fnv1a32(text) == value


# The hash vectors (version 2) of GrowthBook's SDK test cases.
@pytest.mark.parametrize(
    ("seed", "value", "position"),
    [
        ("seed", "a", 0.0505),
        ("seed", "b", 0.2696),
        ("foo", "ab", 0.2575),
        ("foo", "def", 0.2019),
        ("89123klj", "8952klfjas09ujkasdf", 0.124),
        ("90850943850283058242805", "123", 0.7516),
        ("()**(%$##$%#$#", '___)((*":&', 0.0128),
    ],
)
def test_growthbooks_published_vectors(seed: str, value: str, position: float) -> None:
    assert bucket(seed, value) == position


@given(st.text(max_size=30), st.text(max_size=130))
def test_agrees_with_the_growthbook_package(seed: str, client_id: str) -> None:
    assert bucket(seed, client_id) == gbhash(seed, client_id, 2)


@pytest.mark.parametrize("seed", ["a", "b", "c", "d"])
def test_nobody_is_outside_the_trial(seed: str) -> None:
    assert assign(split(0.5, seed), "") == ("champion", "v1", None)


@given(st.text(min_size=1), shares, shares)
def test_a_ramp_only_moves_clients_into_the_trial(client_id: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    before, after = assign(split(low), client_id), assign(split(high), client_id)
    if before.arm != "champion":
        assert after.arm == before.arm
    assert assign(split(low), client_id) == before, "going back restores exactly who was where"


@given(st.text(min_size=1))
def test_at_one_half_everybody_is_in_the_trial(client_id: str) -> None:
    assert assign(split(0.5), client_id).arm == (
        "control" if bucket("digits-v1-v2", client_id) < 0.5 else "challenger"
    )
    assert assign(split(0), client_id).arm == "champion"


@pytest.mark.parametrize("share", [0, 0.0001, 0.01, 0.07, 0.1, 0.29, 0.5])
def test_control_is_as_large_as_the_challenger_at_every_share(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(assignment, "bucket", lambda _, client_id: int(client_id) / 10_000)
    arms = [assign(split(share), str(position)).arm for position in range(10_000)]
    assert arms.count("control") == arms.count("challenger") == round(share * 10_000)
    assert set(arms[: arms.count("control")]) <= {"control"}
    assert set(arms[5000 : 5000 + arms.count("challenger")]) <= {"challenger"}


def test_realised_shares_lie_within_binomial_error() -> None:
    clients, share = 20_000, 0.1
    arms = [assign(split(share), f"client-{number}").arm for number in range(clients)]
    allowed = 4 * math.sqrt(clients * share * (1 - share))
    assert abs(arms.count("challenger") - clients * share) < allowed
    assert abs(arms.count("control") - clients * share) < allowed


def test_versions_follow_the_arms() -> None:
    for number in range(200):
        assignment = assign(split(0.3), f"c{number}")
        assert assignment.version == ("v2" if assignment.arm == "challenger" else "v1")


def test_another_experiment_key_reshuffles() -> None:
    arms = [(assign(split(0.5), f"c{n}").arm, assign(split(0.5, "again"), f"c{n}").arm) for n in range(2000)]
    assert 0.4 < sum(one == other for one, other in arms) / 2000 < 0.6


def test_without_a_challenger_everybody_gets_the_champion() -> None:
    assert assign(Split(champion="v1"), "anyone") == ("champion", "v1", None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"challenger": "v2", "share": 0.6, "experiment": "e"}, "between 0 and 0.5, not 0.6"),
        ({"challenger": "v2", "share": -0.1, "experiment": "e"}, "between 0 and 0.5"),
        ({"challenger": "v2", "share": float("nan"), "experiment": "e"}, "between 0 and 0.5"),
        ({"share": 0.1}, "needs a challenger"),
        ({"challenger": "v2", "share": 0.1}, "needs an experiment key"),
        ({"challenger": "v1", "experiment": "e"}, "its own challenger"),
    ],
)
def test_splits_that_make_no_sense_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(RolloutError, match=words):
        Split(champion="v1", **fields)  # type: ignore[arg-type]
