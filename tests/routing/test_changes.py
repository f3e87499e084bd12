"""Changes: what each makes of a split, what follows for the clients, and that going back restores who was where."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.errors import InvalidSplitError
from rollout.routing import assignment
from rollout.routing.assignment import assign
from rollout.routing.changes import (
    BUCKETS,
    consequences,
    follow,
    moves,
    promote,
    ramp,
    rollback,
    trial_began,
)
from rollout.routing.split import Rule, Split
from rollout.words import percent

replace = msgspec.structs.replace
ALONE = Split(champion="v1")
TRIAL = Split(champion="v1", challenger="v2", share=0.1, experiment="digits-v1-v2", shadow=0.2)
DIGESTS = {"v1": "one", "v2": "two"}
shares = st.integers(0, 5000).map(lambda share: share / BUCKETS)


def test_a_ramp_changes_the_share_and_nothing_else() -> None:
    assert ramp(TRIAL, 0.25) == replace(TRIAL, share=0.25)
    with pytest.raises(InvalidSplitError, match="no challenger on trial whose share"):
        ramp(ALONE, 0.1)
    with pytest.raises(InvalidSplitError, match=r"between 0 and 0\.5"):
        ramp(TRIAL, 0.51)


def test_a_promotion_makes_the_challenger_champion_and_ends_the_trial() -> None:
    rules = (Rule(arm="champion", clients=("ada",)),)
    assert promote(replace(TRIAL, rules=rules)) == Split(champion="v2", rules=rules)
    with pytest.raises(InvalidSplitError, match="no challenger on trial that could be promoted"):
        promote(ALONE)


def test_a_rollback_ends_the_trial_and_leaves_nothing_further_to_go_back_to() -> None:
    known = DIGESTS | {"v0": "zero"}
    labels = {version: {"a": "b"} for version in known}
    trial = replace(TRIAL, revision=7, previous="v0", digests=known, labels=labels)
    assert rollback(trial) == (
        Split(revision=7, champion="v1", digests={"v1": "one"}, labels={"v1": {"a": "b"}}),
        "v2",
    )


def test_a_rollback_after_a_promotion_goes_back_to_the_champion_before_it() -> None:
    promoted = follow(replace(TRIAL, digests=DIGESTS), promote(TRIAL))
    assert (promoted.champion, promoted.previous, promoted.digests) == ("v2", "v1", DIGESTS)
    back, version = rollback(promoted)
    assert (back, version) == (Split(champion="v1", digests={"v1": "one"}), "v2")
    with pytest.raises(InvalidSplitError, match="neither a challenger on trial nor a promotion"):
        rollback(back)


def test_the_first_split_follows_nothing() -> None:
    claimed = replace(TRIAL, revision=7, previous="v0", digests=DIGESTS)
    assert follow(None, claimed) == TRIAL


def test_a_split_follows_the_one_before_it_whatever_the_caller_says() -> None:
    current = replace(TRIAL, revision=4, previous="v0", digests=DIGESTS | {"v0": "zero"})
    claimed = replace(ALONE, revision=99, previous="v9", digests={"v1": "forged"})
    assert follow(current, claimed) == Split(
        revision=4, champion="v1", previous="v0", digests={"v1": "one", "v0": "zero"}
    )


@pytest.mark.parametrize(
    ("current", "champion", "previous"),
    [
        (replace(TRIAL, previous="v0"), "v1", "v0"),  # stays
        (TRIAL, "v2", "v1"),  # promoted
        (TRIAL, "v3", "v1"),  # replaced without a trial
        (replace(ALONE, previous="v0"), "v0", None),  # went back
        (replace(TRIAL, previous="v2"), "v2", "v1"),  # came back by a trial
    ],
)
def test_the_champion_to_go_back_to(current: Split, champion: str, previous: str | None) -> None:
    assert follow(current, Split(champion=champion)).previous == previous


def test_labels_of_versions_that_leave_are_forgotten() -> None:
    labels = {version: {"a": "b"} for version in ("v0", "v1", "v2")}
    current = replace(TRIAL, previous="v0", labels=labels, digests=DIGESTS)
    assert follow(current, current).labels.keys() == {"v0", "v1", "v2"}
    assert follow(current, promote(current)).labels.keys() == {"v1", "v2"}, "v1 is what one could go back to"
    assert follow(current, replace(ALONE, labels=labels)).labels.keys() == {"v0", "v1"}


def versions_of_all_buckets(split: Split) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "bucket", lambda _, client_id: int(client_id) / BUCKETS)
        return [assign(split, str(position)).version for position in range(BUCKETS)]


SPLITS = [
    ALONE,
    TRIAL,
    *(replace(TRIAL, share=share) for share in (0, 0.0001, 0.07, 0.29, 0.5)),
    Split(champion="v2"),
    Split(champion="v2", challenger="v3", share=0.3, experiment="digits-v2-v3"),
    Split(champion="v2", challenger="v1", share=0.3, experiment="digits-v1-v2"),
]


@pytest.mark.parametrize("before", SPLITS)
def test_moves_are_those_of_every_bucket(before: Split) -> None:
    one = versions_of_all_buckets(before)
    for after in SPLITS:
        other = versions_of_all_buckets(after)
        if before.experiment == after.experiment or not before.challenger or not after.challenger:
            moved = Counter(pair for pair in zip(one, other, strict=True) if pair[0] != pair[1])
            assert moves(before, after) == pytest.approx({pair: n / BUCKETS for pair, n in moved.items()})


def test_moves_to_another_experiment_are_those_of_the_clients() -> None:
    before, after = replace(TRIAL, share=0.3), replace(TRIAL, share=0.2, experiment="again")
    clients = [f"client-{number}" for number in range(20_000)]
    moved = Counter((assign(before, one).version, assign(after, one).version) for one in clients)
    expected = moves(before, after)
    assert expected == pytest.approx({("v1", "v2"): 0.7 * 0.2, ("v2", "v1"): 0.3 * 0.8})
    for pair, share in expected.items():
        assert moved[pair] / 20_000 == pytest.approx(share, abs=0.012)  # 4 sigma


@pytest.mark.parametrize(
    ("before", "after", "sentences"),
    [
        (None, ALONE, ["Everybody gets v1."]),
        (
            None,
            TRIAL,
            ["v2 goes on trial with 10 % of the clients, and as many are its control; everybody else gets v1."],
        ),
        (TRIAL, replace(TRIAL, why="no change"), ["No client gets another version."]),
        (TRIAL, ramp(TRIAL, 0.1525), ["Moves about 5.25 % of the clients from v1 to v2, and none back."]),
        (TRIAL, ramp(TRIAL, 0.05), ["Moves about 5 % of the clients from v2 to v1, and none back."]),
        (Split(champion="v1"), Split(champion="v2"), ["Moves everybody from v1 to v2."]),
        (
            TRIAL,
            promote(TRIAL),
            ["Moves about 90 % of the clients from v1 to v2, and none back."],
        ),
        (
            TRIAL,
            rollback(TRIAL)[0],
            [
                "Moves about 10 % of the clients from v2 to v1, and none back.",
            ],
        ),
        (
            ALONE,
            TRIAL,
            [
                "Moves about 10 % of the clients from v1 to v2, and none back.",
                "v2 goes on trial with 10 % of the clients, and as many are its control; everybody else gets v1.",
                "v2 scores 20 % of the others' requests unseen.",
            ],
        ),
        (
            TRIAL,
            replace(TRIAL, experiment="again"),
            [
                "Moves about 9 % of the clients from v1 to v2.",
                "Moves about 9 % of the clients from v2 to v1.",
                "v2 goes on trial with 10 % of the clients, and as many are its control; everybody else gets v1.",
                "The new experiment key shuffles all clients: who was in the trial may now be out.",
            ],
        ),
        (TRIAL, replace(TRIAL, shadow=1), ["No client gets another version.", "v2 scores 100 % of the others'"]),
        (
            TRIAL,
            replace(TRIAL, rules=(Rule(arm="champion", clients=("ada",)), Rule(arm="champion", segments=("b",)))),
            ["No client gets another version.", "Rules before the hash: 0 → 2. Whom they move depends"],
        ),
    ],
)
def test_consequences_are_told_in_sentences(before: Split | None, after: Split, sentences: list[str]) -> None:
    told = consequences(before, after)
    assert len(told) == len(sentences), told
    for one, expected in zip(told, sentences, strict=True):
        assert one.startswith(expected)
        assert one.endswith(".")


def test_shares_are_written_without_noise() -> None:
    assert [percent(share) for share in (0, 0.0001, 0.07, 0.1 + 0.2, 0.5)] == [
        "0 %",
        "0.01 %",
        "7 %",
        "30 %",
        "50 %",
    ]


CLIENTS = [f"client-{number}" for number in range(150)] + ["tester-1", "tester-2", "ada", "😀", "e\u0301"]
RULES = [
    (),
    (Rule(arm="challenger", clients=("tester-*",)),),
    (Rule(arm="champion", clients=("ada", "client-1?")), Rule(arm="challenger", clients=("tester-*", "ada"))),
]
changes = st.one_of(
    st.tuples(st.just("ramp"), shares),
    st.tuples(st.just("ramp"), st.sampled_from([0.0, 0.01, 0.1, 0.5])),
    st.tuples(st.just("rules"), st.sampled_from(RULES)),
    st.tuples(st.just("trial"), st.sampled_from(["", "-again"])),
    st.tuples(st.sampled_from(["promote", "rollback"]), st.none()),
)


def changed(model: str, split: Split, change: tuple[str, object]) -> Split:
    """Carries out a change, if the split allows it."""
    kind, value = change
    try:
        if kind == "ramp":
            after = ramp(split, value)  # type: ignore[arg-type]
        elif kind == "rules":
            after = replace(split, rules=value)
        elif kind == "trial":
            challenger = split.challenger or ("v2" if split.champion == "v1" else "v1")
            experiment = f"{model}-{split.champion}-{challenger}{value}"
            after = replace(split, challenger=challenger, experiment=experiment)
        else:
            after = promote(split) if kind == "promote" else rollback(split)[0]
    except InvalidSplitError:
        return split
    return replace(follow(split, after), revision=split.revision + 1)


def arms(split: Split) -> list[str]:
    return [assign(split, client).arm for client in CLIENTS]


@given(st.lists(st.tuples(st.sampled_from(["digits", "languages"]), changes), max_size=25))
def test_whatever_changes_ramps_only_add_and_going_back_restores(
    steps: list[tuple[str, tuple[str, object]]],
) -> None:
    course = {model: [Split(champion="v1")] for model in ("digits", "languages")}
    for model, change in steps:
        course[model].append(changed(model, course[model][-1], change))
    for splits in course.values():
        seen: dict[object, list[str]] = {}
        for split in splits:
            key = (split.champion, split.challenger, split.experiment, split.rules, split.share)
            assert seen.setdefault(key, arms(split)) == arms(split), "the same trial again is the same assignment"
        for before, after in pairwise(splits):
            same = (before.champion, before.challenger, before.experiment, before.rules) == (
                after.champion,
                after.challenger,
                after.experiment,
                after.rules,
            )
            if same:
                low, high = sorted((before, after), key=lambda split: split.share)
                moved = {pair for pair in zip(arms(low), arms(high), strict=True) if pair[0] != pair[1]}
                assert moved <= {("champion", "control"), ("champion", "challenger")}


def test_a_trial_begins_where_its_bundles_came_in() -> None:
    trial = replace(TRIAL, digests=DIGESTS)
    course = [
        ALONE,
        trial,
        replace(trial, share=0.2),
        rollback(trial)[0],
        trial,
        replace(trial, share=0.3),
        replace(trial, digests={**DIGESTS, "v2": "mended"}),
        replace(trial, digests={**DIGESTS, "v2": "mended"}, shadow=0.0),
    ]
    splits = [replace(split, revision=revision) for revision, split in enumerate(course, start=1)]
    assert [trial_began(splits[: n + 1], split) for n, split in enumerate(splits)] == [1, 2, 2, 4, 5, 5, 7, 7]
    assert trial_began(splits, splits[2]) == 2, "what came later is not looked at"
    assert trial_began(splits[-1:], splits[-1]) == 8, "nor what is not told"
    assert trial_began([], splits[-1]) == 8
