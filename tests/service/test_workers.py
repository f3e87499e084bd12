"""The worker processes of ``rollout serve``, which are forked from one that has the imports."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import BIN, Service, run_service, set_split, settled, wait_for_metric

BODY = {"client_id": "c-1", "inputs": {"image": [[0] * 32] * 32}}


@pytest.fixture
def running(bundles: str, tmp_path: Path) -> Iterator[Service]:
    """A service of two workers that nobody else uses."""
    set_split(tmp_path, "--champion", "v1")
    with run_service(tmp_path) as service:
        yield service


def ask(service: Service) -> str:
    """Returns the trace of a prediction that is asked for on a connection of its own."""
    answer = httpx.post(f"{service.base}/v1/models/digits/predict", json=BODY, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.headers["traceparent"]


def wait_for(true: Callable[[], bool], service: Service) -> None:
    give_up = time.monotonic() + 60
    while not true():
        assert time.monotonic() < give_up, service.log.read_text()
        time.sleep(0.1)


def test_workers_share_what_is_imported_and_nothing_that_is_drawn(service: Service) -> None:
    workers = service.workers()
    assert len(workers) == 2
    for worker in workers:
        memory = worker.memory_full_info()
        assert memory.pss < 0.7 * memory.rss
    traces = [ask(service) for _ in range(64)]
    assert len(set(traces)) == 64, "forked workers draw the same numbers"


def test_workers_go_on_when_what_they_were_forked_from_has_ended(running: Service) -> None:
    before = running.workers()
    before[0].parent().kill()  # type: ignore[union-attr]  # it has one
    wait_for(lambda: len(running.workers()) == 2, running)
    wait_for(lambda: not any(one.is_running() for one in before), running)
    ask(running)
    assert running.stop() == 0


def test_others_serve_on_while_one_cannot_start_again(bundles: str, tmp_path: Path) -> None:
    store = shutil.copytree(bundles, tmp_path / "store")
    set_split(tmp_path, "--champion", "v1")
    (model,) = store.glob("models/digits/v1/onnx/*.onnx")
    there = model.read_bytes()
    with run_service(tmp_path, BENTOML_HOME=str(store)) as running:
        killed, stays = running.workers()
        model.write_bytes(b"")
        killed.kill()
        wait_for(lambda: "tried again in 10 s" in running.log.read_text(), running)
        ask(running)
        assert running.workers() == [stays]
        model.write_bytes(there)
        wait_for(lambda: len(running.workers()) == 2, running)
        ask(running)
        model.write_bytes(b"")
        for worker in running.workers():
            worker.kill()
        assert running.process.wait(60) == 1, "none can start any more"
        assert "a worker could not start" in running.log.read_text()


def test_another_service_on_the_same_home_takes_no_metrics_away(running: Service) -> None:
    ask(running)
    with running.client() as client, run_service(running.home):
        before = settled(client, "rollout_predictions_total")
        assert before >= 1
        ask(running)
        wait_for_metric(client, before + 1, "rollout_predictions_total")


def test_nothing_is_left_of_a_service_that_is_killed(running: Service) -> None:
    below = psutil.Process(running.process.pid).children(recursive=True)
    workers = running.workers()
    running.process.kill()
    running.process.wait()
    wait_for(lambda: not any(one.is_running() for one in workers), running)
    for one in below:  # the embedded Valkey stays for whoever starts next
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


def test_a_signal_to_all_of_its_processes_ends_it_cleanly(running: Service) -> None:
    ask(running)
    os.killpg(running.process.pid, signal.SIGTERM)
    assert running.process.wait(60) == 0
    assert "Traceback" not in running.log.read_text()


def test_nothing_is_imported_from_the_folder_where_it_is_run(
    bundles: str, valkey_url: str, tmp_path: Path
) -> None:
    """Many have a folder or a file there that is called like a part of Python, of us or of a library."""
    set_split(tmp_path, "--champion", "v1", ROLLOUT_REDIS_URL=valkey_url)
    folder = tmp_path / "folder"
    for name in ("service", "multiprocessing", "numpy"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    command = ["env", "-C", str(folder), str(BIN / "rollout"), "serve", "--port", "{port}"]
    with run_service(tmp_path, command, ROLLOUT_REDIS_URL=valkey_url, ROLLOUT_WORKERS="1") as running:
        assert running.process.poll() is None
    assert not (tmp_path / "imported").exists()
