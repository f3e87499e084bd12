"""``rollout review list``, ``stats``, ``policy`` and ``access``, as they are typed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rollout.heads import Truth
from rollout.inference.intake import Intake
from rollout.judge.policy import Policy
from rollout.keys import Keys
from rollout.review import actions
from rollout.review.access_log import record_access
from rollout.review.item import ReviewItem, item_id
from rollout.review.others import keep_other
from rollout.review.outcomes import Outcome, record_outcomes
from rollout.review.policy import DAY_S, ReviewPolicy, read_policy, write_policy
from rollout.review.queue import add_items
from rollout.review.state import iso
from rollout.routing.split import Split
from rollout.routing.splits import read_split, write_split
from rollout.store import Redis
from tests.cli.reviews import Review
from tests.cli.test_split import Command
from tests.review.decisions import decide, fill
from tests.review.items import make_guess, make_item

THREE, EIGHT = Truth(label="3"), Truth(label="8")


@pytest.fixture
def review(redis: Redis, valkey_url: str, tmp_path: Path) -> Review:
    return Review(tmp_path, valkey_url)


def audit(number: int, **changes: Any) -> ReviewItem:
    values: dict[str, Any] = {"reason": "audit", "pi": 0.02, "confidence": 0.9}
    return make_item(number, **values | changes)


async def answer(redis: Redis, reviewer: str, label: str, *, escalated: bool = False) -> None:
    (leased,) = (await actions.claim(redis, "digits", reviewer, escalated=escalated)).items
    await actions.resolve(redis, "digits", leased.item.id, leased.token, Truth(label=label))


async def test_list_shows_the_queue_without_inputs(review: Review, redis: Redis) -> None:
    await fill(redis, [make_item(1, arm="challenger"), audit(2), make_item(3, version="v2", key=None)])
    await decide(redis, {make_item(1).id: THREE})
    printed = " ".join(review.lines("list", "digits"))
    assert "digits, open" in printed
    assert "low_confidence 2026-11-22T10:00:03.003Z v2 3 at 0.4 client-3 –" in printed
    assert "audit 2026-11-22T10:00:02.002Z v1 3 at 0.9 client-2 key-2" in printed
    assert "client-1" not in printed
    (item,) = review.json("list", "digits", "--state", "resolved", "--arm", "challenger")
    assert (item["state"], item["id"], item["answer"]["label"]) == ("resolved", make_item(1).id, "3")
    assert "inputs" not in item
    for options, count in (
        (("--reason", "audit"), 1),
        (("--version", "v2"), 1),
        (("--client", "client-2"), 1),
        (("--client", "client-1"), 0),
        (("--since", "2026-11-22T10:00:03Z"), 1),
        (("--limit", "1"), 1),
    ):
        assert len(review.json("list", "digits", *options)) == count, options
    assert "These are the first 1; --limit shows more." in review("list", "digits", "--limit", "1")
    review("list", "digits", "--since", "yesterday", code=1)
    assert "--since must be a time in ISO 8601" in review.errors


async def test_what_is_for_a_trial_says_so_and_not_which_version_said_what(review: Review, redis: Redis) -> None:
    policy = Policy(compare="disagreements", by_itself=("step",))
    split = Split(champion="v1", challenger="v2", share=0.1, experiment="e", policy=policy)
    await write_split(redis, "digits", split)
    other = {"version": "v2", "label": "8", "confidence": 0.4, "scores": {"3": 0.35, "8": 0.4}}
    there = make_item(1, reason="disagreement", other=other)
    await fill(redis, [there, make_item(2), make_item(3)])
    await keep_other(redis, make_item(2, reason="disagreement", other=other), 60)
    lines = review.lines("list", "digits")
    for one in (there, make_item(2)):
        first = there.head.says(msgspec.structs.replace(one, other=other).said[0])
        (at,) = (number for number, line in enumerate(lines) if f" {one.at} " in line)
        assert f"disagreement, {one.at} – {first} or" in lines[at], "no version beside what was said"
        assert lines[at + 1].startswith("for the trial at 0.4")
        assert lines[at + 2].startswith("of v2")
    assert "low_confidence 2026-11-22T10:00:03.003Z v1 3 at 0.4 client-3 key-3" in " ".join(lines)
    await redis.hset(Keys("digits").evidence(1), mapping={"champion|shadowed": 500, "champion|disagreed": 25})
    await decide(redis, {there.id: EIGHT})
    await Intake(redis, "digits", lambda: there.head).gather()
    found = review.json("stats", "digits")["trial"]
    assert (found["version"], found["compare"], found["disagreed"]) == ("v2", "disagreements", 25)
    assert found["labelled"] == 1
    assert f"trial about {found['wanted']:,} more labels are expected until a verdict on v2; 1 of 25" in " ".join(
        review.lines("stats", "digits")
    )
    await write_split(redis, "digits", (await read_split(redis, "digits") or split).without_trial())
    assert review.json("stats", "digits")["trial"] is None


async def test_the_audit_makes_the_accuracy_unbiased(review: Review, redis: Redis) -> None:
    """A tenth of 50,000 is uncertain and right at 70 %; of the rest, a fiftieth is audited and right at 98 %."""
    items = [*(make_item(number) for number in range(5000)), *(audit(5000 + number) for number in range(900))]
    await fill(redis, items)
    wrong = {items[number].id for number in (*range(1500), *range(5000, 5018))}
    await decide(redis, {item.id: EIGHT if item.id in wrong else THREE for item in items})
    found = review.json("stats", "digits")
    for one in (found["overall"], found["versions"][0]):
        assert round(one["estimate"], 3) == 0.952
        assert round(one["raw"], 3) == 0.743
        assert one["low"] < 0.952 < one["high"]
        assert one["high"] - one["low"] < 0.03
        assert one["notes"] == []
    assert [
        (one["reason"], one["entered"], one["weight"], one["right"]) for one in found["overall"]["strata"]
    ] == [
        ("low_confidence", 5000, 5000, pytest.approx(0.7)),
        ("audit", 900, pytest.approx(45_000), pytest.approx(0.98)),
    ]
    lines = review.lines("stats", "digits")
    (line,) = [line for line in lines if line.startswith("all ")]
    assert line.startswith("all 5,900 0.743 0.952 0.9")
    assert "v1 audit 900 45,000 900 0.980" in lines


async def test_links_are_predictions_of_their_own_and_versions_are_told_apart(
    review: Review, redis: Redis
) -> None:
    first = make_item(1)
    linked = [
        make_item(
            number,
            id=item_id("client-1", f"key-{number}", b""),
            client_id="client-1",
            same=first.same,
            version="v2",
            label="8",
            reason=reason,
            pi=pi,
        )
        for number, reason, pi in ((2, "low_confidence", 1.0), (3, "audit", 0.5))
    ]
    more = [audit(4, pi=0.5), make_item(5, reason="disagreement"), audit(6, pi=0.1)]
    await fill(redis, [first, *linked, *more])
    await decide(redis, {first.id: THREE} | {item.id: EIGHT for item in more[:2]} | {more[2].id: THREE})
    found = review.json("stats", "digits")
    v1, v2 = found["versions"]
    assert (v1["version"], v1["reviewed"], v1["raw"]) == ("v1", 4, 0.5)
    # The audit stands for 12 predictions, of which 10 are right; what the versions disagree on is left out.
    assert v1["estimate"] == pytest.approx(11 / 13)
    assert (v2["version"], v2["reviewed"], v2["raw"], v2["estimate"]) == ("v2", 2, 0.0, 0.0)
    assert found["overall"]["estimate"] == pytest.approx(11 / 16)
    assert [one["reason"] for one in v1["strata"]] == ["low_confidence", "audit", "disagreement"]


async def test_stats_say_what_is_not_known(review: Review, redis: Redis) -> None:
    items = [make_item(number) for number in range(10)]
    await fill(redis, items)
    await decide(redis, {items[0].id: THREE})
    (note,) = review.json("stats", "digits")["overall"]["notes"]
    assert note.startswith("nothing of audit has entered, so that nothing is known of what the model was sure of")
    await fill(redis, [audit(number) for number in range(20, 24)])
    found = review.json("stats", "digits")["overall"]
    assert (found["estimate"], found["low"], found["raw"]) == (None, None, 1.0)
    assert found["notes"] == ["nothing of audit is reviewed yet, and 4 entered: there is no estimate without"]
    assert "– –" in " ".join(review.lines("stats", "digits"))
    await decide(redis, {audit(20).id: THREE})
    found = review.json("stats", "digits")["overall"]
    assert found["estimate"] == 1.0
    assert found["notes"] == [
        "1 of 10 of low_confidence are reviewed: the estimate assumes that what was not looked at is like what was, "
        "while the least certain come first, and what versions disagree on",
        "1 of 4 of audit are reviewed: the estimate assumes that what was not looked at is like what was",
    ]
    whole = " ".join(review.lines("stats", "digits"))
    assert "all 1 of 10 of low_confidence are reviewed" in whole
    assert whole.count("1 of 10 of low_confidence") == 1


async def test_what_a_limit_keeps_out_is_spoken_for(review: Review, redis: Redis) -> None:
    """1,000 are uncertain and right at 70 %, of which 100 find room; of 9,000 right at 98 %, 100 are audited."""
    uncertain = [make_item(number) for number in range(1000)]
    policies = {"digits": ReviewPolicy(limits={"low_confidence": 100})}
    for start in range(0, 1000, 200):
        await add_items(redis, uncertain[start : start + 200], 10_000, policies)
    audits = [audit(1000 + number, pi=1 / 90) for number in range(100)]
    await fill(redis, audits)
    await decide(redis, {item.id: EIGHT if number < 30 else THREE for number, item in enumerate(uncertain[:100])})
    await decide(redis, {item.id: EIGHT if number < 2 else THREE for number, item in enumerate(audits)})
    found = review.json("stats", "digits")["overall"]
    assert found["estimate"] == pytest.approx(0.952)
    stratum = found["strata"][0]
    assert (stratum["entered"], stratum["kept_out"], stratum["weight"]) == (100, 900, 1000)
    assert found["notes"] == [
        "limits kept out 900 of low_confidence: the estimate assumes that they are like those that entered"
    ]


async def test_a_regression_is_right_where_its_interval_has_the_value(review: Review, redis: Redis) -> None:
    items = [make_guess(number) for number in range(3)] + [make_guess(3, reason="audit", pi=0.02)]
    await fill(redis, items)
    for item, value in zip(items, (4.0, 14.1, 9.0, 14.0), strict=True):
        await actions.take_over(redis, "digits", item.id, "ada", Truth(value=value))
    found = review.json("stats", "digits")
    assert found["measure"] == "interval"
    assert found["overall"]["raw"] == 0.75
    assert found["overall"]["estimate"] == pytest.approx((2 + 50) / 53)
    assert "How often the model is right, by its interval" in review("stats", "digits")


async def test_stats_show_the_queue_and_the_reviewers(review: Review, redis: Redis) -> None:
    await write_policy(redis, "digits", ReviewPolicy(required_reviews=2))
    await fill(redis, [make_item(number) for number in range(9)])
    assert await add_items(redis, [make_item(99)], 9) == [False]
    for label in ("3", "8", "3", "8"):
        await answer(redis, "ada", label)
    for label in ("3", "8", "8"):  # the second reviews come first: of the third, they differ
        await answer(redis, "bob", label)
    await answer(redis, "eve", "8", escalated=True)
    (leased,) = (await actions.claim(redis, "digits", "eve")).items
    await actions.skip(redis, "digits", leased.item.id, leased.token, "unclear")
    (leased,) = (await actions.claim(redis, "digits", "bob")).items
    await actions.take_over(redis, "digits", make_item(8).id, "carl", THREE)
    found = review.json("stats", "digits")
    states = {state: counts.get("low_confidence", 0) for state, counts in found["states"].items()}
    assert states == {"open": 3, "leased": 1, "resolved": 4, "skipped": 1, "escalated": 0}
    assert found["excess"] == {"low_confidence": 1}
    assert found["oldest"] is not None
    assert {
        one["reviewer"]: (one["decisions"], one["shared"], one["agreement"]) for one in found["reviewers"]
    } == {
        "ada": (4, 3, pytest.approx(2 / 3)),
        "bob": (3, 3, 1.0),
        "eve": (2, 1, 1.0),
        "carl": (1, 0, None),
    }
    assert found["pace"] == {"hour": 9.0, "day": 9 / 24}
    pairs = {tuple(one["reviewers"]): one for one in found["pairs"]}
    assert pairs.keys() == {("ada", "bob"), ("ada", "eve"), ("bob", "eve")}
    assert (pairs["ada", "bob"]["items"], pairs["ada", "bob"]["share"]) == (3, pytest.approx(2 / 3))
    assert pairs["ada", "bob"]["kappa"] == pytest.approx(0.4)
    assert pairs["bob", "eve"]["kappa"] is None
    lines = review.lines("stats", "digits")
    assert "resolved 4 0 0 0 4" in lines
    assert "did not enter 1 0 0 0 1" in lines
    assert "decisions 9 in the last hour, 0.4 an hour in the last day" in lines
    assert "ada 4 0 3 66.7 %" in lines
    assert "ada and bob 3 66.7 % 0.40" in lines
    assert "bob and eve 1 100 % –" in lines


async def test_a_policy_is_shown_and_changed(review: Review, redis: Redis) -> None:
    await write_split(redis, "digits", Split(champion="v1"))
    assert review.json("policy", "digits")["audit"] == 0.005
    assert "required_reviews 1" in review.lines("policy", "digits")
    change = (
        "--set",
        "audit=0.01",
        "--set",
        "redact=name, address",
        "--set",
        "rates.audit=",
        "--set",
        "limits.audit=9",
    )
    review("policy", "digits", *change, code=2)
    assert review.errors.endswith("say --yes to change this without being asked; nothing changed\n")
    assert await read_policy(redis, "digits") == ReviewPolicy()
    assert review("policy", "digits", *change, "--yes") == "digits has a new review policy\n"
    shown = [" ".join(line.split()) for line in review.errors.splitlines()]
    assert shown == [
        "digits",
        "audit 0.005 → 0.01",
        "redact – → name, address",
        "rates.audit 6,000 → –",
        "limits.audit – → 9",
    ]
    stored = await read_policy(redis, "digits")
    assert (stored.audit, stored.redact, stored.limits) == (0.01, ["name", "address"], {"audit": 9})
    assert stored.rates == {"low_confidence": 6000, "disagreement": 6000}
    assert (
        review("policy", "digits", "--set", "audit=0.010") == "nothing to change: that is the policy of digits\n"
    )
    assert review.json("policy", "digits", "--set", "redact=", "--yes")["redact"] == []


async def test_a_shorter_retention_holds_for_what_is_there(review: Review, redis: Redis) -> None:
    def days_ago(days: int) -> str:
        return iso(round((time.time() - days * DAY_S) * 1000))

    await write_split(redis, "digits", Split(champion="v1"))
    old, recent = make_item(1, at=days_ago(10)), make_item(2, at=days_ago(3))
    resolved = make_item(3, at=days_ago(10))
    await fill(redis, [old, recent, resolved, make_item(1, model="texts", at=days_ago(10))])
    await decide(redis, {resolved.id: THREE})
    outcome = Outcome(client_id="client-1", key="key-1", at=days_ago(0), label="3")
    await record_outcomes(redis, "digits", [outcome], 30 * DAY_S)
    names = Keys("digits")

    async def days_left(*keys: str) -> list[float]:
        return [round(await redis.pttl(key) / 1000 / DAY_S, 2) for key in keys]

    kept = (names.review(recent.id, ":inputs"), names.same_inputs(recent.same), names.outcome(outcome.id))
    review("policy", "digits", "--set", "retention_days=40", "--yes")
    assert await days_left(*kept) == [30, 30, 30]
    review("policy", "digits", "--set", "retention_days=7", "--yes")
    assert await days_left(*kept) == [4, 4, 7]
    for gone in (old, resolved):
        assert not await redis.exists(names.review(gone.id, ":inputs"), names.same_inputs(gone.same))
    assert await days_left(Keys("texts").review(old.id, ":inputs")) == [30]


async def test_a_change_of_the_policy_is_asked_for(review: Review, redis: Redis) -> None:
    await write_split(redis, "digits", Split(champion="v1"))
    change = ("policy", "digits", "--set", "audit=0.01")
    terminal = Command(review.folder, review.environment["ROLLOUT_REDIS_URL"], "review")
    assert terminal.ask(*change, answer=b"n\n", code=4).endswith("nothing changed\n")
    assert await read_policy(redis, "digits") == ReviewPolicy()

    def somebody_else() -> None:
        review("policy", "digits", "--set", "audit=0.02", "--yes")

    printed = terminal.ask(*change, answer=b"y\n", code=1, meanwhile=somebody_else)
    assert "the review policy of digits was changed concurrently: nothing was stored; read it again" in printed
    assert (await read_policy(redis, "digits")).audit == 0.02
    assert "digits has a new review policy" in terminal.ask(*change, answer=b"y\n", code=0)
    assert (await read_policy(redis, "digits")).audit == 0.01


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("audits=1", "--set audits=1: a setting is NAME=VALUE, where NAME is one of audit, required_reviews, "),
        ("audit", "--set audit: a setting is NAME=VALUE"),
        ("audit.audit=1", "--set audit.audit=1: a setting is NAME=VALUE"),
        ("rates=5", "rates.low_confidence, rates.disagreement, rates.audit"),
        ("rates.luck=5", "--set rates.luck=5: a setting is NAME=VALUE"),
        ("required_reviews=two", "--set required_reviews=two: Expected `int`"),
        ("audit=2", "audit must be a share from 0 to 1, not 2.0"),
        ("required_reviews=0", "required_reviews must be 1 to 5, not 0"),
    ],
)
async def test_a_setting_that_is_none_is_refused(review: Review, redis: Redis, setting: str, says: str) -> None:
    await write_split(redis, "digits", Split(champion="v1"))
    review("policy", "digits", "--set", setting, "--yes", code=1)
    assert says in review.errors
    assert await read_policy(redis, "digits") == ReviewPolicy()


async def test_access_says_who_saw_what(review: Review, redis: Redis) -> None:
    await fill(redis, [make_item(1), make_item(2)])
    await record_access(redis, "digits", "bob", "reviewer", "claim", [make_item(1).id])
    review("list", "digits")
    review.rows("--since", "0")
    await decide(redis, {make_item(1).id: THREE})
    review.rows()
    found = review.json("access", "digits")
    assert [(one["who"], one["role"], one["did"], len(one["ids"])) for one in found] == [
        ("bob", "reviewer", "claim", 1),
        ("ada", "terminal", "list", 2),
        ("ada", "terminal", "export", 1),
    ]
    printed = " ".join(review.lines("access", "digits"))
    assert f"bob reviewer claim {make_item(1).id}" in printed
    assert "ada terminal list" in printed
    assert "and 1 more" in printed
    assert review.json("access", "digits", "--since", "2090-01-01") == []
    assert len(review.json("access", "digits", "--since", found[1]["at"])) == 2


async def test_a_model_that_nobody_knows_is_refused(review: Review) -> None:
    for command in ("list", "stats", "policy", "access", "export"):
        review(command, "cats", code=1)
        assert review.errors.startswith("rollout: cats has neither a split nor review items")
