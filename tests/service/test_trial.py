"""A trial in a running service: what its policy allows happens by itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from rollout.routing.by_itself import CONTROLLER
from tests.conftest import Service, run_service, set_split, settled, wait_for_metric
from tests.images import held_out, image
from tests.service.test_challenger import BLACK, CHALLENGED, HALF, run_with
from tests.service.test_verdict import CONTROL, send

POLICY = {"least_s": 0, "least_clients": 20, "by_itself": ["rollback"]}


def set_policy(home: Path, **changes: Any) -> None:
    file = home / "policy.json"
    file.write_bytes(msgspec.json.encode(POLICY | changes))
    set_split(home, *HALF, "--policy", str(file))


def wait_for_revision(service: Service, revision: int) -> dict[str, Any]:
    with service.admin() as admin:
        give_up = time.monotonic() + 60
        while True:
            split: dict[str, Any] = admin.get("/v1/models/digits/split").json()
            if split["revision"] == revision:
                return split
            assert time.monotonic() < give_up, admin.get("/v1/models/digits/verdict").json()
            time.sleep(0.1)


def test_a_challenger_that_fails_is_gone_within_seconds(bundles: str, tmp_path: Path) -> None:
    set_policy(tmp_path)
    with run_with(tmp_path, "raises", ROLLOUT_BREAKER_RATE="0.99") as service, service.client() as client:
        send(client, CONTROL, image(), 48)
        send(client, CHALLENGED, BLACK, 20)
        split = wait_for_revision(service, 2)
        assert (split["champion"], split["challenger"], split["by"]) == ("v1", None, CONTROLLER)
        assert split["verdict"]["reason"] == "failures"
        body = {"client_id": CHALLENGED[0], "inputs": {"image": image()}}
        give_up = time.monotonic() + 60
        while (answer := client.post("/v1/models/digits/predict", json=body).json())["revision"] != 2:
            assert time.monotonic() < give_up, "the worker does not follow"
            time.sleep(0.1)
        assert (answer["version"], answer["arm"], answer["fallback"]) == ("v1", "champion", None)
        wait_for_metric(client, 1, "rollout_trial_acts_total", 'act="rollback"')
        assert settled(client, "rollout_trial_acts_total", 'act="rollback"') == 1
        with service.admin() as admin:
            back = {"champion": "v1", "challenger": "v2", "share": 0.5}
            refused = admin.put("/v1/models/digits/split", json=back, headers={"If-Match": '"2"'})
            assert refused.status_code == 409, "it is in quarantine"


def test_reported_outcomes_promote_it(bundles: str, tmp_path: Path) -> None:
    set_policy(
        tmp_path,
        margin=0.05,
        by_itself=["promote"],
        tuned_for=500,
        guardrails={"failures": 0.2, "fallbacks": None},
    )
    part = held_out()
    images, targets = part.inputs["image"], part.targets
    with run_service(tmp_path, ROLLOUT_TIMEOUT_MS="10000") as service, service.client() as client:
        for start in range(0, 3000, 50):
            places = [at % len(images) for at in range(start, start + 50)]
            instances = [
                {"client_id": f"u-{start + n}", "key": f"k-{start + n}", "inputs": {"image": images[at].tolist()}}
                for n, at in enumerate(places)
            ]
            answered = client.post("/v1/models/digits/predict", json={"instances": instances})
            assert answered.status_code == 200
            reports = [
                {"client_id": one["client_id"], "key": one["key"], "label": str(targets[at])}
                for one, at in zip(instances, places, strict=True)
            ]
            assert client.post("/v1/models/digits/feedback", json={"outcomes": reports}).status_code == 200
        split = wait_for_revision(service, 2)
        assert (split["champion"], split["previous"], split["by"]) == ("v2", "v1", CONTROLLER)
        accuracy = split["verdict"]["findings"][0]
        assert accuracy["state"] == "cleared"
        assert accuracy["low"] > -0.05
