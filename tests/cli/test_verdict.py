"""``rollout verdict``: a sentence for people, JSON for programs, an exit code for pipelines."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rollout.cli.verdict import CODES, show_verdict
from rollout.judge.policy import Policy
from rollout.judge.verdict import judge
from rollout.routing.changes import promote, rollback
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.routing.traffic import Worker, add_traffic
from rollout.routing.verdict import VerdictView
from rollout.store import Redis
from tests.cli.test_split import Command
from tests.judge.cases import fair


@pytest.fixture
def verdict(tmp_path: Path, valkey_url: str, redis: Redis) -> Command:
    return Command(tmp_path, valkey_url, "verdict")


async def test_the_exit_code_says_what_to_do(verdict: Command, redis: Redis) -> None:
    verdict("digits", code=1)
    assert "digits has no split; `rollout split set digits --champion VERSION` makes one" in verdict.errors
    await write_split(redis, "digits", Split(champion="v1"))
    assert "hold: there is no challenger on trial" in verdict("digits", code=75)
    trial = Split(champion="v1", challenger="v2", share=0.1, experiment="e", revision=1)
    await write_split(redis, "digits", trial)
    counts = {("control", "v1", "evidence.2.requests"): 500, ("challenger", "v2", "evidence.2.requests"): 500}
    await add_traffic(redis, "digits", counts, Worker(id="a", revision=2, variants={}))  # type: ignore[arg-type]
    printed = " ".join(verdict("digits", code=75).split())
    assert "waits for labels" in printed
    assert "failures 0 -0.0" in printed
    failed = {("challenger", "v2", "evidence.2.failures"): 100}
    await add_traffic(redis, "digits", failed, Worker(id="a", revision=2, variants={}))  # type: ignore[arg-type]
    assert "rollback: the challenger failed in 100 of 500 requests (20.0%)" in verdict("digits", code=70)


async def test_as_json_it_is_what_the_service_answers(verdict: Command, redis: Redis) -> None:
    await write_split(redis, "digits", Split(champion="v1", challenger="v2", share=0.1, experiment="e"))
    found = verdict.json("digits", code=75)
    assert (found["verdict"], found["reason"], found["revision"]) == ("hold", "no_data", 1)
    assert found["findings"][1]["state"] == "missing"
    assert set(found) == {*VerdictView.__struct_fields__, "ended"}
    assert found["ended"] is None


async def test_of_a_trial_that_is_over_the_exit_code_says_how_it_ended(verdict: Command, redis: Redis) -> None:
    """A script that asks again until it is known sees the end, whoever made it."""
    digests = {"v1": "1" * 64, "v2": "2" * 64, "v3": "3" * 64}
    trial = Split(champion="v1", challenger="v2", share=0.1, experiment="e", digests=digests)
    trial = await write_split(redis, "digits", trial)
    over = msgspec.structs.replace(promote(trial), previous="v1", by="rollout", why="it is better")
    over = await write_split(redis, "digits", over)
    printed = " ".join(verdict("digits", code=0).split())
    assert "hold: there is no challenger on trial" in printed
    assert "the last trial is over: v2 was promoted at " in printed
    assert printed.endswith("by rollout: it is better")
    ended = verdict.json("digits", code=0)["ended"]
    assert (ended["outcome"], ended["version"], ended["revision"]) == ("promote", "v2", 2)
    back, left = rollback(over)
    back = await write_split(redis, "digits", back, quarantine={digests[left]: left})
    assert "v2 was rolled back" in verdict("digits", code=70)
    again = msgspec.structs.replace(back, challenger="v3", share=0.1, experiment="f", digests=digests)
    again = await write_split(redis, "digits", again)
    assert "the last trial" not in verdict("digits", code=75)
    await write_split(redis, "digits", again.without_trial())
    assert "the last trial" not in verdict("digits", code=75), "nobody said what became of v3"


def test_a_promotion_is_shown_with_its_proof(capsys: pytest.CaptureFixture[str]) -> None:
    judged = judge(fair(), Policy(margin=0.02))
    figures = {name: getattr(judged, name) for name in judged.__struct_fields__}
    show_verdict(VerdictView(model="digits", revision=3, evidence={}, **figures))
    printed = " ".join(capsys.readouterr().out.split())
    assert "promote: accuracy differs from control's by +0.00 points" in printed
    assert "cleared" in printed
    figures |= {"labels_wanted": 1234}
    show_verdict(VerdictView(model="digits", revision=3, evidence={}, **figures))
    assert "about 1,234 more of disagreements until a verdict" in " ".join(capsys.readouterr().out.split())
    assert CODES == {"promote": 0, "hold": 75, "rollback": 70}
