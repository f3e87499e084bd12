"""Drift in a running service: rows are counted once, whoever answers them, and what moves is told."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from rollout.inference.drift_watch import LOOK_EVERY_S
from rollout.inference.live_sketches import FLUSH_EVERY_S
from tests.commands import rollout
from tests.conftest import Service, run_service, set_split, wait_ready
from tests.images import held_out, row

DRIFT = "/v1/models/digits/drift"
BRIGHTER = 60
# A flush, a look, and time for a busy machine.
SEEN_WITHIN_S = 3 * (FLUSH_EVERY_S + LOOK_EVERY_S)


@pytest.fixture(scope="module")
def service(bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("drift")
    set_split(home, "--champion", "v1")
    with run_service(home) as running:
        yield running


def send(client: httpx.Client, rows: int, brighter: int = 0) -> None:
    """Sends rows of the evaluation part, each a request of its own."""
    images = held_out().inputs["image"].astype(int)
    for number in range(rows):
        image = np.minimum(images[random.randrange(len(images))] + brighter, 255).tolist()
        body = {"client_id": f"c-{number}", "inputs": {"image": image}}
        response = client.post("/v1/models/digits/predict", json=body)
        assert response.status_code == 200, response.text


def wait_for(client: httpx.Client, is_there: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    give_up = time.monotonic() + SEEN_WITHIN_S
    while True:
        answer = client.get(DRIFT)
        found: dict[str, Any] = answer.json()
        if answer.status_code == 200 and is_there(found):
            return found
        assert time.monotonic() < give_up, found
        time.sleep(0.2)


def rows_of(found: dict[str, Any]) -> int:
    return sum(int(arm["found"]["rows"]) for arm in found["arms"])


def feature(found: dict[str, Any], name: str) -> dict[str, Any]:
    (arm,) = found["arms"]
    found_features: list[dict[str, Any]] = arm["found"]["features"]
    (one,) = [one for one in found_features if one["feature"] == name]
    return one


def test_rows_are_counted_once_and_a_shift_of_brightness_is_told(service: Service) -> None:
    with service.client() as client:
        send(client, 240)  # no more than a sample holds: on a busy machine they may be of one second
        found = wait_for(client, lambda found: rows_of(found) >= 240)
        assert (found["state"], rows_of(found)) == ("quiet", 240)
        begin = time.time()
        while time.time() // 60 == begin // 60:  # rows of a new minute are told from those before
            time.sleep(0.2)
        send(client, 150, BRIGHTER)
        found = wait_for(client, lambda found: found["state"] == "drifted" and rows_of(found) == 390)
        moved = feature(found, "image.brightness")
        assert moved["moved"]
        assert moved["now"] > moved["before"]
        assert moved["rows"] <= 150
        assert sum(moved["found"]) == pytest.approx(1)
        assert service.metric("rollout_drift_moved", 'arm="champion"', 'feature="image.brightness"') == 1
        done = rollout("drift", "digits", environment=os.environ | {"ROLLOUT_HOME": str(service.home)})
        assert (done.returncode, "image.brightness moved" in done.stdout) == (70, True), done.stdout


def test_what_a_killed_worker_had_counted_stays(service: Service) -> None:
    with service.client() as client:
        before = rows_of(client.get(DRIFT).json())
        send(client, 40)
        wait_for(client, lambda found: rows_of(found) == before + 40)
        service.workers()[0].kill()
    wait_ready(service.base, service.process, service.log)
    with service.client() as client:
        sent = 0
        give_up = time.monotonic() + SEEN_WITHIN_S
        while sent < 10 and time.monotonic() < give_up:  # a worker that starts answers 503
            sent += client.post("/v1/models/digits/predict", json=row(sent, f"k-{sent}")).status_code == 200
        wait_for(client, lambda found: rows_of(found) == before + 50)


def test_a_field_that_is_dropped_is_told_by_what_is_refused(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, "--champion", "v1")
    with run_service(tmp_path) as service, service.client() as client:
        send(client, 100)
        for number in range(60):
            body = {"client_id": f"c-{number}", "inputs": {}}
            assert client.post("/v1/models/digits/predict", json=body).status_code == 422
        found = wait_for(client, lambda found: found["state"] == "drifted")
        moved = feature(found, "image.brightness")
        assert moved["moved"]
        refused = dict(zip(moved["labels"], moved["found"], strict=True))["refused"]
        assert 0.2 < refused <= 1
        assert rows_of(found) == 100, "what is refused is no row"
        assert service.metric("rollout_refused_inputs_total", 'input="image"') == 60
