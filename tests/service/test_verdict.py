"""The verdict of a running service, and the gauges that say what all replicas share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollout.inference import gauges
from rollout.routing.assignment import assign
from tests.conftest import Service, run_service, set_split
from tests.images import image, three_or_eight
from tests.service.test_challenger import BLACK, CHALLENGED, HALF, SPLIT, metric, run_with

VERDICT = "/v1/models/digits/verdict"
CONTROL = [f"c-{n}" for n in range(100) if assign(SPLIT, f"c-{n}").arm == "control"]


def send(client: httpx.Client, client_ids: list[str], pixels: Any, times: int = 1) -> None:
    instances = [{"client_id": client_id, "inputs": {"image": pixels}} for client_id in client_ids]
    for _ in range(times):
        response = client.post("/v1/models/digits/predict", json={"instances": instances})
        assert response.status_code == 200, response.text


def wait_for(service: Service, name: str, expected: float, *labels: str) -> None:
    give_up = time.monotonic() + 4 * gauges.SHOW_EVERY_S
    while (found := metric(service, name, *labels)) != pytest.approx(expected, rel=0.05):
        assert time.monotonic() < give_up, f"{name} is {found}, not {expected}"
        time.sleep(0.2)


def test_a_challenger_that_fails_is_to_be_rolled_back(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, *HALF)
    with run_with(tmp_path, "raises", ROLLOUT_BREAKER_RATE="0.99") as service, service.client() as client:
        before = client.get(VERDICT).json()
        assert (before["verdict"], before["reason"], before["revision"]) == ("hold", "undecided", 1)
        assert before["evidence"]["challenger"] == {"clients": 0, "rows": 0, "asked": 0, "failures": 0}
        send(client, CONTROL, image(), 4)
        send(client, CHALLENGED, image(), 4)
        send(client, CHALLENGED, BLACK, 1)
        wait_for(service, "rollout_trial_clients", len(CHALLENGED), 'arm="challenger"', 'revision="1"')
        wait_for(service, "rollout_trial_clients", len(CONTROL), 'arm="control"', 'revision="1"')
        verdict = client.get(VERDICT).json()
        assert (verdict["verdict"], verdict["reason"]) == ("rollback", "failures"), verdict
        assert verdict["evidence"] == {
            "control": {
                "clients": len(CONTROL),
                "rows": 4 * len(CONTROL),
                "asked": 4 * len(CONTROL),
                "failures": 0,
            },
            "challenger": {
                "clients": len(CHALLENGED),
                "rows": 5 * len(CHALLENGED),
                "asked": 5 * len(CHALLENGED),
                "failures": len(CHALLENGED),
            },
        }


def test_what_all_replicas_share(bundles: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('[{"arm": "challenger", "clients": ["tester"]}]')
    set_split(tmp_path, *HALF, "--rules", str(rules))
    with run_service(tmp_path) as service, service.client() as client:
        send(client, ["tester", *CONTROL[:3]], image())
        wait_for(service, "rollout_trial_clients", 3, 'arm="control"', 'revision="1"')
        assert metric(service, "rollout_trial_clients", 'arm="challenger"') == 0, "a rule is no sample"
        send(client, CONTROL[:1], three_or_eight())
        wait_for(service, "rollout_review_open", 1, 'model="digits"')
        assert 0 < metric(service, "rollout_review_oldest_seconds", 'model="digits"') < 60
        assert metric(service, "rollout_split_share") == 0.5
        assert metric(service, "rollout_split_latest") == metric(service, "rollout_split_revision") == 1
        assert "rollout_spool_bytes 0.0" in client.get("/metrics").text
        set_split(tmp_path, "--champion", "v1")
        wait_for(service, "rollout_trial_clients", 0, 'arm="control"', 'revision="1"')
        wait_for(service, "rollout_split_latest", 2)
        verdict = client.get(VERDICT).json()
        assert (verdict["verdict"], verdict["reason"], verdict["evidence"]) == ("hold", "no_trial", {})
        assert client.get("/v1/models/none/verdict").status_code == 404
