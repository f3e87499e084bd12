"""Assignment: GrowthBook's hash, fixed ranges, shares as asked for, and trials that know nothing of each other."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest
from growthbook.core import gbhash
from hypothesis import given
from hypothesis import strategies as st

from rollout.errors import InvalidSplitError
from rollout.routing import assignment
from rollout.routing.assignment import Arm, assign, bucket, explain, fnv1a32
from rollout.routing.split import Split

ALPHABETS = (
    "abcxyzABCXYZ0123456789-_.:@/",
    "äöüßéñçøåİıſẞµ",
    "\u0300\u0301\u0308\u0323\u20e3\ufe0f\u200d",  # combining marks, a variation selector, a joiner
    "漢字かなカナ한글عربيעבריתไทย",
    "😀🚀🏳🧑𝒳𝔘𐍈𠜎\U000e0067\U0010ffff",  # beyond the basic plane: two code units each
    "\ud800\udbff\udc00\udfff",  # lone surrogates, which no encoding but UTF-16 can hold
    "\x00\x01\n\t \x7f\x80\u2028\ufeff\uffff",
)

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


def test_agrees_with_the_growthbook_package_for_100_000_ids_of_all_scripts() -> None:
    dice = random.Random(20261122)
    mixed = "".join(ALPHABETS)
    for number in range(100_000):
        alphabet = mixed if number % 2 else ALPHABETS[number // 2 % len(ALPHABETS)]
        client_id = "".join(dice.choices(alphabet, k=dice.randint(1, 24)))
        seed = ("digits-v1-v2", "prüfung-😀")[number % 3 == 0]
        assert bucket.__wrapped__(seed, client_id) == gbhash(seed, client_id, 2), (seed, client_id)


@pytest.mark.parametrize("seed", ["a", "b", "c", "d"])
def test_nobody_is_outside_the_trial(seed: str) -> None:
    assert assign(split(0.5, seed), "") == ("champion", "v1", None, None)


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


# 0.1 + 0.2 is more than 0.3.
@pytest.mark.parametrize("share", [0, 0.0001, 0.00034, 0.01, 0.07, 0.1, 0.29, 0.1 + 0.2, 1 / 3, 0.5])
def test_control_is_as_large_as_the_challenger_at_every_share(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(assignment, "bucket", lambda _, client_id: int(client_id) / 10_000)
    arms = [assign(split(share), str(position)).arm for position in range(10_000)]
    assert arms.count("control") == arms.count("challenger") == round(share * 10_000)
    assert set(arms[: arms.count("control")]) <= {"control"}
    assert set(arms[5000 : 5000 + arms.count("challenger")]) <= {"challenger"}


def test_realised_shares_of_a_million_clients_lie_within_binomial_error() -> None:
    clients = 1_000_000
    positions = (bucket.__wrapped__("digits-v1-v2", f"client-{number}") for number in range(clients))
    filled = np.bincount(np.rint(np.fromiter(positions, float, clients) * 10_000).astype(int), minlength=10_000)
    for share in (0.0001, 0.01, 0.05, 0.1, 0.25, 0.5):
        expected, width = clients * share, round(share * 10_000)
        for start in (0, 5000):
            realised = filled[start : start + width].sum()
            assert abs(realised - expected) < 4 * math.sqrt(expected * (1 - share)), (share, start)
    # Each bucket by itself: chi-square of 9,999 degrees of freedom.
    spread = float(((filled - clients / 10_000) ** 2 / (clients / 10_000)).sum())
    assert abs(spread - 9999) < 4 * math.sqrt(2 * 9999)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("digits-v1-v2", "languages-v1-v2"),
        ("digits-v1-v2", "departures-v1-v2"),
        ("languages-v1-v2", "departures-v1-v2"),
        ("digits-v1-v2", "digits-v2-v3"),
        ("digits-v1-v2", "digits-v1-v2-again"),
        ("a", "b"),
    ],
)
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_trials_are_independent_of_each_other(one: str, other: str, share: float) -> None:
    clients = 20_000
    names = [f"client-{number}" for number in range(clients)]
    pairs = Counter(
        (assign(split(share, one), name).arm, assign(split(share, other), name).arm) for name in names
    )
    size: dict[Arm, float] = {"champion": 1 - 2 * share, "control": share, "challenger": share}
    arms = [arm for arm in size if size[arm]]
    expected = {(a, b): clients * size[a] * size[b] for a in arms for b in arms}
    distance = math.fsum((pairs[cell] - wanted) ** 2 / wanted for cell, wanted in expected.items())
    freedom = len(expected) - 1
    assert distance < freedom + 4 * math.sqrt(2 * freedom), pairs


def test_versions_follow_the_arms() -> None:
    for number in range(200):
        assignment = assign(split(0.3), f"c{number}")
        assert assignment.version == ("v2" if assignment.arm == "challenger" else "v1")


def test_every_assignment_is_explained() -> None:
    trial = split(0.07)
    ends = {
        "control": "lies in [0, 0.07), the control of experiment digits-v1-v2",
        "challenger": "lies in [0.5, 0.57), the challenger of experiment digits-v1-v2",
        "champion": "lies in neither [0, 0.07) nor [0.5, 0.57)",
    }
    seen = {assign(trial, f"c{number}") for number in range(200)}
    assert {found.arm for found in seen} == ends.keys()
    for found in seen:
        assert explain(trial, found) == f"bucket {found.bucket:.4f} {ends[found.arm]}"
    assert explain(trial, assign(trial, "")) == "a client without an ID is outside the trial"
    alone = Split(champion="v1")
    assert explain(alone, assign(alone, "ada")) == "there is no challenger on trial"


def test_another_experiment_key_reshuffles() -> None:
    arms = [(assign(split(0.5), f"c{n}").arm, assign(split(0.5, "again"), f"c{n}").arm) for n in range(2000)]
    assert 0.4 < sum(one == other for one, other in arms) / 2000 < 0.6


def test_without_a_challenger_everybody_gets_the_champion() -> None:
    assert assign(Split(champion="v1"), "anyone") == ("champion", "v1", None, None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"challenger": "v2", "share": 0.6, "experiment": "e"}, "between 0 and 0.5, not 0.6"),
        ({"challenger": "v2", "share": -0.1, "experiment": "e"}, "between 0 and 0.5"),
        ({"challenger": "v2", "share": float("nan"), "experiment": "e"}, "between 0 and 0.5"),
        ({"challenger": "v2", "shadow": 1.1, "experiment": "e"}, "between 0 and 1, not 1.1"),
        ({"challenger": "v2", "shadow": -1, "experiment": "e"}, "between 0 and 1"),
        ({"share": 0.1}, "needs a challenger"),
        ({"shadow": 0.1}, "needs a challenger"),
        ({"challenger": "v2", "share": 0.1}, "needs an experiment key"),
        ({"challenger": "v1", "experiment": "e"}, "its own challenger"),
    ],
)
def test_splits_that_make_no_sense_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidSplitError, match=words):
        Split(champion="v1", **fields)  # type: ignore[arg-type]
