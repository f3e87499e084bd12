"""The policy of a trial in the split: what it may say, who may say it, and when it goes."""

from __future__ import annotations

import msgspec
import pytest

from rollout.errors import InvalidSplitError
from rollout.judge.policy import Guardrails, Policy
from rollout.routing.changes import consequences, follow, promote, ramp, rollback
from rollout.routing.client_counts import add_clients
from rollout.routing.policy_words import describe_policy
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.routing.traffic import Worker, add_traffic
from rollout.routing.verdict import read_verdict
from rollout.store import Redis

POLICY = Policy(by_itself=("step", "promote", "rollback"), guardrails=Guardrails(late_ms=200))
TRIAL = Split(champion="v1", challenger="v2", share=0.1, experiment="e", policy=POLICY)


def test_it_belongs_to_a_trial() -> None:
    with pytest.raises(InvalidSplitError, match="a policy needs a challenger"):
        Split(champion="v1", policy=POLICY)
    assert ramp(TRIAL, 0.2).policy == POLICY
    assert promote(TRIAL).policy is None
    assert rollback(TRIAL)[0].policy is None


def test_a_verdict_is_not_the_callers_to_say() -> None:
    said = msgspec.structs.replace(TRIAL, verdict={"verdict": "promote"})
    for before in (None, TRIAL):
        assert follow(before, said).verdict is None
    assert rollback(said)[0].verdict is None


def test_it_is_sent_as_json_and_wrong_ones_are_refused() -> None:
    sent = b'{"champion":"v1","challenger":"v2","experiment":"e","policy":{"margin":0.02,"by_itself":["step"]}}'
    assert msgspec.json.decode(sent, type=Split).policy == Policy(margin=0.02, by_itself=("step",))
    with pytest.raises(InvalidSplitError, match="stages are 1 to 20 rising shares"):
        msgspec.json.decode(sent.replace(b'"margin":0.02', b'"stages":[0.5,0.1]'), type=Split)
    with pytest.raises(msgspec.ValidationError, match="Invalid enum value 'dance'"):
        msgspec.json.decode(sent.replace(b"step", b"dance"), type=Split)
    for name in ("late", "Basket", "a|b", ""):
        with pytest.raises(InvalidSplitError, match="cannot be the name of a number"):
            Guardrails(numbers={name: 1.0})
    with pytest.raises(InvalidSplitError, match="cannot be the name of a number"):
        Policy(metric="late")


def test_in_words() -> None:
    assert describe_policy(None) == "none: nothing happens by itself"
    policy = Policy(
        metric="basket",
        margin=0.5,
        aim="better",
        least_s=120,
        guardrails=Guardrails(late_ms=200, numbers={"n": 2}),
    )
    assert describe_policy(policy) == (
        "basket better by at least 0.5; at most 1 % more answers over 200 ms; n falls by at most 2; "
        "stages 1 % → 5 % → 10 % → 25 % → 50 %, each 2 min and 100 clients; nothing happens by itself"
    )
    without = msgspec.structs.replace(TRIAL, policy=None)
    assert consequences(without, TRIAL) == [
        "No client gets another version.",
        "By itself, the service gives v2 the next share of the ramp, makes v2 champion, rolls v2 back, when the "
        "evidence says so.",
    ]
    assert consequences(TRIAL, without)[-1] == "Nothing happens by itself."


@pytest.mark.parametrize(("own", "state"), [(dict.fromkeys(range(200), 20), "broken"), ({3: 4_000}, "open")])
async def test_fallbacks_of_one_client_are_no_proof(redis: Redis, own: dict[int, int], state: str) -> None:
    """A fifth of 20,000 rows: of everybody's, or of one client that sends much and slow ones."""
    split = await write_split(redis, "digits", TRIAL)
    counts = {("challenger", "v2", f"evidence.1.fallbacks|{group}|y"): count for group, count in own.items()}
    counts |= {
        ("challenger", "v2", f"evidence.1.fallbacks|{group}|n"): max(80, own.get(group, 0))
        for group in range(200)
    }
    counts |= {
        (arm, version, f"evidence.1.{name}"): 20_000
        for arm, version in (("control", "v1"), ("challenger", "v2"))
        for name in ("requests", "rows")
    }
    counts["challenger", "v2", "evidence.1.late"] = 4_000
    await add_traffic(redis, "digits", counts, Worker(id="a", revision=1, variants={}))  # type: ignore[arg-type]
    clients = {arm: {f"{arm}-{number}" for number in range(1000)} for arm in ("control", "challenger")}
    await add_clients(redis, "digits", 1, clients)  # type: ignore[arg-type]
    findings = {one.question: one for one in (await read_verdict(redis, "digits", split)).findings}
    assert findings["fallbacks"].state == state


async def test_the_verdict_goes_by_it(redis: Redis) -> None:
    split = await write_split(redis, "digits", TRIAL)
    counts = {
        ("challenger", "v2", f"evidence.1.late|{group}|{part}"): count
        for group in range(200)
        for part, count in (("y", 30), ("n", 100))
    }
    counts |= {("control", "v1", f"evidence.1.late|{group}|n"): 100 for group in range(200)}
    counts |= {
        (arm, version, "evidence.1.requests"): 20_000
        for arm, version in (("control", "v1"), ("challenger", "v2"))
    }
    await add_traffic(redis, "digits", counts, Worker(id="a", revision=1, variants={}))  # type: ignore[arg-type]
    clients = {arm: {f"{arm}-{number}" for number in range(1000)} for arm in ("control", "challenger")}
    await add_clients(redis, "digits", 1, clients)  # type: ignore[arg-type]
    verdict = await read_verdict(redis, "digits", split)
    assert (verdict.verdict, verdict.reason) == ("rollback", "guardrail")
    assert "share of answers over 200 ms differs from control's by +30.00 points" in verdict.detail
    asked = {finding.question for finding in verdict.findings}
    assert asked == {"accuracy", "failures", "fallbacks", "late"}
    unasked = msgspec.structs.replace(split, policy=None)
    assert (await read_verdict(redis, "digits", unasked)).reason != "guardrail"
