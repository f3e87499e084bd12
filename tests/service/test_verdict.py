"""The verdict of a running service, and the gauges that say what all replicas share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from rollout.judge.evidence import ArmCounts
from rollout.routing.assignment import Arm, assign
from rollout.routing.changes import rollback
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.routing.traffic import Worker, add_traffic
from rollout.routing.verdict import read_verdict
from rollout.store import Redis
from tests.conftest import Service, run_service, set_split
from tests.images import image, three_or_eight
from tests.service.test_challenger import BLACK, CHALLENGED, HALF, SPLIT, run_with

NOTHING = {"clients": 0, "rows": 0, "requests": 0, "failures": 0, "late": 0}
VERDICT = "/v1/models/digits/verdict"
CONTROL = [f"c-{n}" for n in range(100) if assign(SPLIT, f"c-{n}").arm == "control"]


def send(client: httpx.Client, client_ids: list[str], pixels: Any, times: int = 1) -> None:
    instances = [{"client_id": client_id, "inputs": {"image": pixels}} for client_id in client_ids]
    for _ in range(times):
        response = client.post("/v1/models/digits/predict", json={"instances": instances})
        assert response.status_code == 200, response.text


def wait_for(service: Service, name: str, expected: float, *labels: str) -> None:
    give_up = time.monotonic() + 60
    while (found := service.metric(name, *labels)) != pytest.approx(expected, rel=0.05):
        assert time.monotonic() < give_up, f"{name} is {found}, not {expected}"
        time.sleep(0.2)


def test_a_challenger_that_fails_is_to_be_rolled_back(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, *HALF)
    with run_with(tmp_path, "raises", ROLLOUT_BREAKER_RATE="0.99") as service, service.client() as client:
        before = client.get(VERDICT).json()
        assert (before["verdict"], before["reason"], before["revision"]) == ("hold", "no_data", 1)
        assert before["evidence"]["challenger"] == NOTHING
        send(client, CONTROL, image(), 48)
        send(client, CHALLENGED, image(), 4)
        send(client, CHALLENGED, BLACK, 20)
        wait_for(service, "rollout_trial_clients", len(CHALLENGED), 'arm="challenger"', 'revision="1"')
        wait_for(service, "rollout_trial_clients", len(CONTROL), 'arm="control"', 'revision="1"')
        give_up = time.monotonic() + 10  # what was counted is told a moment later
        while (verdict := client.get(VERDICT).json())["evidence"]["challenger"]["requests"] < 24:
            assert time.monotonic() < give_up, verdict
            time.sleep(0.2)
        assert (verdict["verdict"], verdict["reason"]) == ("rollback", "failures"), verdict
        assert verdict["evidence"] == {
            "control": {
                "clients": len(CONTROL),
                "rows": 48 * len(CONTROL),
                "requests": 48,
                "failures": 0,
                "late": 0,
            },
            "challenger": {
                "clients": len(CHALLENGED),
                "rows": 24 * len(CHALLENGED),
                "requests": 24,
                "failures": 20,
                "late": 0,
            },
        }


def test_what_all_replicas_share(bundles: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('[{"arm": "challenger", "clients": ["tester"]}]')
    set_split(tmp_path, *HALF, "--rules", str(rules))
    with run_service(tmp_path) as service, service.client() as client:
        send(client, ["tester", *CONTROL[:3]], image())
        wait_for(service, "rollout_trial_clients", 3, 'arm="control"', 'revision="1"')
        assert service.metric("rollout_trial_clients", 'arm="challenger"') == 0, "a rule is no sample"
        send(client, CONTROL[:1], three_or_eight())
        wait_for(service, "rollout_review_open", 1, 'model="digits"')
        assert 0 < service.metric("rollout_review_oldest_seconds", 'model="digits"') < 60
        assert service.metric("rollout_split_share") == 0.5
        assert service.metric("rollout_split_latest") == service.metric("rollout_split_revision") == 1
        assert "rollout_spool_bytes 0.0" in client.get("/metrics").text
        set_split(tmp_path, "--champion", "v1")
        wait_for(service, "rollout_trial_clients", 0, 'arm="control"', 'revision="1"')
        wait_for(service, "rollout_split_latest", 2)
        verdict = client.get(VERDICT).json()
        assert (verdict["verdict"], verdict["reason"], verdict["evidence"]) == ("hold", "no_trial", {})
        assert client.get("/v1/models/none/verdict").status_code == 404


async def add_evidence(redis: Redis, revision: int, failures: int, outside: int) -> None:
    """Adds 10,000 requests to each arm."""
    counts: dict[tuple[Arm, str, str], int] = {
        ("control", "v1", f"evidence.{revision}.requests"): 10_000,
        ("challenger", "v2", f"evidence.{revision}.requests"): 10_000,
        ("challenger", "v2", f"evidence.{revision}.failures"): failures,
        ("champion", "v1", f"evidence.{revision}.rows"): outside,
    }
    await add_traffic(redis, "digits", counts, Worker(id="a", revision=revision, variants={}))


async def test_only_what_was_seen_of_this_trial_counts(redis: Redis) -> None:
    trial = msgspec.structs.replace(SPLIT, digests={"v1": "one", "v2": "two"}, share=0.1)
    first = await write_split(redis, "digits", trial)
    await add_evidence(redis, 1, 5000, 10_000)
    ramped = await write_split(redis, "digits", msgspec.structs.replace(first, share=0.2))
    verdict = await read_verdict(redis, "digits", ramped)
    assert (verdict.verdict, verdict.reason) == ("rollback", "failures"), "a ramp forgets nothing"
    off = await write_split(redis, "digits", rollback(ramped)[0])
    assert (await read_verdict(redis, "digits", off)).reason == "no_trial"
    again = await write_split(redis, "digits", msgspec.structs.replace(trial, revision=off.revision))
    verdict = await read_verdict(redis, "digits", again)
    assert (verdict.verdict, verdict.reason) == ("hold", "no_data")
    assert verdict.evidence["challenger"] == ArmCounts()


async def test_rows_from_before_the_share_was_set_make_no_arm_silent(redis: Redis) -> None:
    before = await write_split(redis, "digits", Split(champion="v1"))
    await add_evidence(redis, before.revision, 0, 10_000)
    split = await write_split(redis, "digits", msgspec.structs.replace(SPLIT, revision=1, share=0.01))
    assert (await read_verdict(redis, "digits", split)).reason == "no_data"
    await add_evidence(redis, split.revision, 0, 10_000)
    assert (await read_verdict(redis, "digits", split)).reason == "silent_arm"
