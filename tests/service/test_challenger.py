"""A challenger that fails costs callers nothing but the fallback's latency."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollout.inference.watchdog import HANG_S
from rollout.routing.assignment import assign
from rollout.routing.split import Split
from tests.conftest import Service, run_service, set_split
from tests.images import image
from tests.service.test_overload import FAULTS

HALF = ("--champion", "v1", "--challenger", "v2", "--share", "0.5")
BLACK = [[0] * 32 for _ in range(32)]
SPLIT = Split(champion="v1", challenger="v2", share=0.5, experiment="digits-v1-v2")
CHALLENGED = [f"c-{n}" for n in range(100) if assign(SPLIT, f"c-{n}").arm == "challenger"]


def run_with(home: Path, fault: str, **environment: str) -> AbstractContextManager[Service]:
    """Runs a service whose challenger has a fault."""
    faults = {"PYTHONPATH": FAULTS, "FAULT": fault, "FAULT_VERSION": "v2", "ROLLOUT_WORKERS": "1"}
    return run_service(home, None, **faults, **environment)


def ask(client: httpx.Client, client_id: str, pixels: Any, key: str | None = None) -> dict[str, Any]:
    """Returns the prediction; there is always one."""
    body = {"client_id": client_id, "inputs": {"image": pixels}, "key": key}
    response = client.post("/v1/models/digits/predict", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert answer["arm"] == "challenger"
    return answer


@pytest.mark.parametrize("fault", ["raises", "not_a_number", "wrong_shape"])
def test_its_errors_are_answered_by_the_champion(bundles: str, tmp_path: Path, fault: str) -> None:
    set_split(tmp_path, *HALF)
    with run_with(tmp_path, fault, ROLLOUT_BREAKER_RATE="0.9") as service, service.client() as client:
        good = ask(client, CHALLENGED[0], image())
        assert (good["version"], good["fallback"]) == ("v2", None)
        for number in range(4):
            answer = ask(client, CHALLENGED[number], BLACK)
            assert (answer["version"], answer["fallback"], answer["revision"]) == ("v1", "error", 1)
            assert answer["label"] in answer["scores"]
        mixed = {
            "instances": [
                {"client_id": CHALLENGED[number], "inputs": {"image": pixels}}
                for number, pixels in enumerate([image(0), BLACK, image(1), BLACK])
            ]
        }
        predictions = client.post("/v1/models/digits/predict", json=mixed).json()["predictions"]
        assert [one["fallback"] for one in predictions] == [None, "error", None, "error"]
        assert [one["version"] for one in predictions] == ["v2", "v1", "v2", "v1"]
        give_up = time.monotonic() + 30
        while service.metric("rollout_predictions_total", 'arm="challenger"') < 9:  # written now and then
            assert time.monotonic() < give_up
            time.sleep(0.1)
        assert service.metric("rollout_fallbacks_total", 'why="error"') == 6
        assert service.metric("rollout_failures_total", 'arm="challenger"', 'version="v2"') == 6
        assert service.metric("rollout_predictions_total", 'arm="challenger"', 'version="v1"') == 6
        assert service.metric("rollout_predictions_total", 'arm="challenger"', 'version="v2"') == 3


def test_one_that_hangs_costs_a_part_of_the_deadline_and_then_nothing(bundles: str, tmp_path: Path) -> None:
    """The worker lives on, its breaker opens, and a probe that hangs does not close it."""
    set_split(tmp_path, *HALF)
    with run_with(tmp_path, "hangs") as service, service.client() as client:
        assert ask(client, CHALLENGED[0], image())["version"] == "v2"
        seconds, fallbacks = [], []
        for number in range(12):
            since = time.monotonic()
            fallbacks.append(ask(client, CHALLENGED[number], BLACK)["fallback"])
            seconds.append(time.monotonic() - since)
        assert fallbacks[:5] == ["timeout"] * 5
        assert fallbacks[5:] == ["breaker"] * 7
        assert max(seconds) < HANG_S / 2, "the deadline holds: later, it would not have been 200"
        time.sleep(HANG_S + 2)  # longer than the watchdog lets a champion hang
        assert ask(client, CHALLENGED[0], image())["fallback"] == "breaker"
        assert client.get("/readyz").status_code == 200
        assert service.metric("rollout_breaker_open") == 1
        log = service.log.read_text()
        assert "digits:v2 fails too often; its clients get v1" in log
        assert "to be replaced" not in log
        assert service.stop() == 0
    assert "a runtime hangs; this worker ends without it" in service.log.read_text()


def test_callers_in_a_hurry_open_no_breaker(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, *HALF)
    with run_with(tmp_path, "hangs") as service, service.client() as client:
        for number in range(8):
            body = {"client_id": CHALLENGED[number], "inputs": {"image": BLACK}}
            hurry = {"X-Request-Timeout": "90"}
            assert client.post("/v1/models/digits/predict", json=body, headers=hurry).status_code in (200, 503)
        assert service.metric("rollout_breaker_open") == 0


def test_the_breaker_closes_by_probing(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, *HALF)
    with run_with(tmp_path, "raises") as service, service.client() as client:
        for number in range(5):
            assert ask(client, CHALLENGED[number], BLACK)["fallback"] == "error"
        assert ask(client, CHALLENGED[0], image())["fallback"] == "breaker"
        give_up = time.monotonic() + 60
        while ask(client, CHALLENGED[0], image())["fallback"] is not None:
            assert time.monotonic() < give_up
            time.sleep(0.1)
        assert "digits:v2 answers again; its clients get it" in service.log.read_text()
        assert ask(client, CHALLENGED[0], image())["version"] == "v2"
        with service.admin() as admin:
            split = admin.get("/v1/models/digits/split").json()
        assert split["revision"] == 1


def test_disagreements_in_shadow_are_offered_for_review(bundles: str, tmp_path: Path) -> None:
    """The challenger gives nonsense for black images; nobody sees it, the review queue does."""
    set_split(tmp_path, "--champion", "v1", "--challenger", "v2", "--shadow", "1")
    with run_service(tmp_path, ROLLOUT_WORKERS="1") as service, service.client() as client:
        for number in range(60):
            body = {"client_id": f"c-{number}", "key": f"k-{number}", "inputs": {"image": image(number)}}
            assert client.post("/v1/models/digits/predict", json=body).json()["version"] == "v1"
        give_up = time.monotonic() + 60
        while service.metric("rollout_shadow_total") < 60:
            assert time.monotonic() < give_up
            time.sleep(0.2)
        agreed, disagreed = (
            service.metric("rollout_shadow_total", f'outcome="{outcome}"') for outcome in ("agreed", "disagreed")
        )
        assert agreed + disagreed == 60
        assert agreed > 40
        assert service.metric("rollout_shadow_distance_count") == 60
        with service.admin() as admin:
            items = admin.get("/v1/models/digits/reviews").json()["reviews"]
        unseen = [item for item in items if item["reason"] == "disagreement"]
        unsure = [item for item in items if item["reason"] == "low_confidence"]
        assert len({item["key"] for item in items}) == len(items), "one item for each prediction"
        for item in unseen:
            assert item["pi"] == 1
            assert item["arm"] == "champion"
            assert item["version"] == "v1"
            assert item["other"]["version"] == "v2"
            assert item["other"]["label"] != item["answer"]["label"]
        assert len(unseen) <= disagreed <= len(unseen) + len(unsure)


def test_one_that_hangs_in_shadow_costs_nobody_anything(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, "--champion", "v1", "--challenger", "v2", "--shadow", "1")
    with run_with(tmp_path, "hangs") as service, service.client() as client:
        for number in range(40):
            body = {"client_id": f"c-{number}", "inputs": {"image": BLACK}}
            since = time.monotonic()
            assert client.post("/v1/models/digits/predict", json=body).json()["version"] == "v1"
            assert time.monotonic() - since < HANG_S / 2
            time.sleep(0.02)
        time.sleep(HANG_S + 2)  # longer than the watchdog lets a champion hang
        assert client.post("/v1/models/digits/predict", json=body).status_code == 200
        assert "to be replaced" not in service.log.read_text()
        assert service.stop() == 0
