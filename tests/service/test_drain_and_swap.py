"""Replicas come, go and change their versions, and no request notices."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import httpx

from rollout.routing.assignment import assign
from rollout.routing.split import Split
from tests.conftest import BIN, TRIAL, Service, free_port, run_service, set_split
from tests.images import row


def keep_asking(service: Service, stop: threading.Event, statuses: list[int]) -> None:
    with service.client() as client:
        while not stop.is_set():
            try:
                statuses.append(client.post("/v1/models/digits/predict", json=row()).status_code)
            except httpx.TransportError:
                statuses.append(0)


def wait_for_version(version: str, service: Service, client_id: str) -> None:
    """Waits until a client gets a version, on ten connections in a row."""
    give_up, found = time.monotonic() + 30, 0
    while found < 10:
        assert time.monotonic() < give_up
        with service.client() as client:
            answer = client.post("/v1/models/digits/predict", json=row(client_id=client_id)).json()
        found = found + 1 if answer["version"] == version else 0


def test_sigterm_is_a_drain(bundles: str, tmp_path: Path) -> None:
    """Not ready at once, serving for the grace period, and connections that are kept alive are let go."""
    set_split(tmp_path, *TRIAL)
    with (
        run_service(tmp_path, ROLLOUT_GRACE_S="3") as running,
        running.client() as kept,
        running.client() as other,
    ):
        assert "connection" not in kept.post("/v1/models/digits/predict", json=row()).headers
        running.process.terminate()
        since = time.monotonic()
        while other.get("/readyz").status_code == 200:
            assert time.monotonic() - since < 2
        assert other.get("/livez").status_code == 200
        answered = 0
        while time.monotonic() - since < 2.5:
            with running.client() as new:
                response = new.post("/v1/models/digits/predict", json=row())
            assert response.status_code == 200
            assert response.headers["connection"] == "close"
            answered += 1
        assert answered > 10
        assert kept.post("/v1/models/digits/predict", json=row()).headers["connection"] == "close"
        assert running.process.wait(10) == 0
        assert time.monotonic() - since >= 3


def test_sigterm_during_the_start_ends_it(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, *TRIAL)
    environment = os.environ | {"ROLLOUT_HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    command = [str(BIN / "rollout"), "serve", "--port", str(free_port())]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert "The admin token" in process.stdout.readline()
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()  # or leaving the block would wait for it
    assert not (tmp_path / "metrics").exists(), "no worker was started"


def test_a_swap_at_full_load_costs_no_request(bundles: str, tmp_path: Path) -> None:
    """Versions go on trial, are promoted and go back while eight connections never pause."""
    set_split(tmp_path, "--champion", "v1")
    stop, statuses = threading.Event(), list[int]()
    trial = Split(champion="v1", challenger="v2", share=0.1, experiment="digits-v1-v2")
    challenged = next(f"c-{n}" for n in range(1000) if assign(trial, f"c-{n}").arm == "challenger")
    with run_service(tmp_path) as running:
        asking = [threading.Thread(target=keep_asking, args=(running, stop, statuses)) for _ in range(8)]
        for thread in asking:
            thread.start()
        for split in (TRIAL, ("--champion", "v2"), TRIAL):
            time.sleep(2)
            set_split(tmp_path, *split)
        wait_for_version("v2", running, challenged)
        subprocess.run(
            [BIN / "rollout", "split", "rollback", "digits", "--why", "wrong about sevens"],
            env=os.environ | {"ROLLOUT_HOME": str(tmp_path)},
            check=True,
        )
        wait_for_version("v1", running, challenged)
        time.sleep(2)
        stop.set()
        for thread in asking:
            thread.join()
        assert set(statuses) == {200}
        assert len(statuses) > 1000
        assert running.log.read_text().count("digits is at revision 5: v1") == 2, (
            "every worker followed to the end"
        )
