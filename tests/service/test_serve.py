"""``rollout serve`` as users and operators meet it: real processes, a real Valkey, real HTTP."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import io
import math
import os
import re
import signal
import stat
import statistics
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import PIL.Image
import psutil
import pytest
from growthbook.core import gbhash

from models.digits.recipe import RECIPE
from rollout.bundle.source import ModuleSource
from rollout.bundle.store import open_bundle
from rollout.heads import Scores
from rollout.routing.assignment import assign
from rollout.routing.split import Split
from tests.conftest import (
    BIN,
    ROOT,
    TRIAL,
    Service,
    free_port,
    run_service,
    set_split,
    settled,
    wait_for_metric,
    wait_for_text,
)
from tests.images import row, three_or_eight
from tests.service.test_drain_and_swap import keep_asking

CLIENTS = [f"client-{number}" for number in range(1000)]


def arms(service: Service) -> dict[str, tuple[str, str]]:
    """Predicts once for each of 1,000 clients; returns arm and version of each."""
    found = {}
    with service.client() as client:
        for start in range(0, 1000, 250):
            instances = [row(client_id=client_id) for client_id in CLIENTS[start : start + 250]]
            response = client.post("/v1/models/digits/predict", json={"instances": instances})
            for one in response.raise_for_status().json()["predictions"]:
                found[one["client_id"]] = (one["arm"], one["version"])
    return found


def expected_arms() -> dict[str, tuple[str, str]]:
    """What the growthbook package's own hash says."""

    def arm(client_id: str) -> tuple[str, str]:
        position = gbhash("digits-v1-v2", client_id, 2)
        assert position is not None
        if position < 0.1:
            return "control", "v1"
        return ("challenger", "v2") if 0.5 <= position < 0.6 else ("champion", "v1")

    return {client_id: arm(client_id) for client_id in CLIENTS}


@pytest.mark.usefixtures("redis")  # another file may have left a quarantine there
def test_the_same_clients_get_the_same_arms_everywhere(
    service: Service, valkey_url: str, bundles: str, tmp_path: Path
) -> None:
    expected = expected_arms()
    assert arms(service) == expected
    set_split(tmp_path, *TRIAL, ROLLOUT_REDIS_URL=valkey_url)
    for _ in range(2):  # another replica, and the same one after a restart
        with run_service(tmp_path, ROLLOUT_REDIS_URL=valkey_url, ROLLOUT_WORKERS="1") as replica:
            assert arms(replica) == expected
    shares = [arm for arm, _ in expected.values()]
    allowed = 4 * math.sqrt(1000 * 0.1 * 0.9)
    assert abs(shares.count("challenger") - 100) < allowed
    assert abs(shares.count("control") - 100) < allowed


@pytest.fixture(scope="module")
def trained(bundles: str) -> dict[str, Scores]:
    """What the modules of both versions, trained here, say about the evaluation part."""
    digits = RECIPE.load()
    inputs = digits.evaluation.inputs
    modules = {version: RECIPE.train(version, digits.train, RECIPE.seed) for version in ("v1", "v2")}
    return {
        version: ModuleSource(module, open_bundle(f"digits:{version}")[1].task, inputs).run(inputs)
        for version, module in modules.items()
    }


@pytest.mark.parametrize("variant", ["onnx", "torchscript"])
def test_accuracy_over_http_is_accuracy_in_python(
    trained: dict[str, Scores], tmp_path: Path, variant: str
) -> None:
    """Row for row on the whole evaluation part, for both versions."""
    set_split(tmp_path, "--champion", "v1", "--challenger", "v2", "--share", "0.5")
    half = Split(champion="v1", challenger="v2", share=0.5, experiment="digits-v1-v2")
    clients = {assign(half, client_id).version: client_id for client_id in CLIENTS[:20]}
    with (
        run_service(tmp_path, ROLLOUT_VARIANT=variant, ROLLOUT_WORKERS="1") as running,
        running.client() as client,
    ):
        for version, scores in trained.items():
            instances = [row(number, clients[version]) for number in range(len(scores))]
            response = client.post("/v1/models/digits/predict", json={"instances": instances})
            predictions = response.raise_for_status().json()["predictions"]
            assert {(one["version"], one["variant"]) for one in predictions} == {(version, variant)}
            assert [one["label"] for one in predictions] == [str(label) for label in scores.argmax(-1)]
            assert np.allclose([list(one["scores"].values()) for one in predictions], scores, atol=1e-4)


def test_an_ambiguous_image_is_queued_once_however_often_it_is_sent(service: Service) -> None:
    body = {"client_id": "reader-7", "key": "page-3", "inputs": {"image": three_or_eight()}}
    with service.client() as client, service.admin() as admin:
        for _ in range(5):
            prediction = client.post("/v1/models/digits/predict", json=body).json()
            assert prediction["review"] == "queued"
            found = admin.get("/v1/models/digits/reviews?client_id=reader-7").json()["reviews"]
            assert len(found) == 1
        (item,) = found
        assert (item["client_id"], item["key"], item["model"]) == ("reader-7", "page-3", "digits")
        assert (item["reason"], item["pi"], item["state"], item["revision"]) == ("low_confidence", 1.0, "open", 1)
        assert item["inputs"] == body["inputs"]
        assert item["answer"]["scores"] == prediction["scores"]
        assert item["answer"]["confidence"] < item["threshold"]
        client.post("/v1/models/digits/predict", json=body | {"key": "page-4"})
        client.post("/v1/models/digits/predict", json={k: v for k, v in body.items() if k != "key"})
        client.post("/v1/models/digits/predict", json={k: v for k, v in body.items() if k != "key"})
        found = admin.get("/v1/models/digits/reviews?client_id=reader-7").json()["reviews"]
        assert [one["key"] for one in found] == ["page-3"], "nobody looks at the same image twice"
        links = admin.get(f"/v1/models/digits/reviews/{item['id']}").json()["links"]
        assert {link["key"] for link in links} == {"page-4", None}
        assert client.post("/v1/models/digits/predict", json=row()).json()["review"] is None


def test_the_answer_is_as_the_contract_says(service: Service) -> None:
    with service.client() as client:
        one = client.post("/v1/models/digits/predict", json=row(client_id="c-42", key="order-17")).json()
        many = client.post(
            "/v1/models/digits/predict", json={"instances": [row(n, f"c-{n}") for n in range(20)]}
        ).json()
    assert list(one) == [
        "model", "version", "variant", "arm", "fallback", "revision", "client_id", "key", "label", "confidence",
        "scores", "review",
    ]  # fmt: skip
    assert one["key"] == "order-17"
    assert one["label"] == max(one["scores"], key=one["scores"].get)
    assert sum(one["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert list(many) == ["predictions"]
    assert [p["client_id"] for p in many["predictions"]] == [f"c-{n}" for n in range(20)]


def test_many_clients_at_once_get_their_own_answers(service: Service) -> None:
    with service.client() as client:
        alone = client.post("/v1/models/digits/predict", json={"instances": [row(n, "c-1") for n in range(64)]})
        expected = [one["scores"] for one in alone.json()["predictions"]]

        def ask(number: int) -> None:
            answer = client.post(
                "/v1/models/digits/predict", json=row(number % 64, "c-1", key=f"k-{number}")
            ).json()
            assert answer["key"] == f"k-{number}"
            assert answer["scores"] == pytest.approx(expected[number % 64], abs=1e-5)

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(ask, range(640)))


def test_metrics_add_up_over_two_workers(service: Service) -> None:
    with service.client() as client:
        names = ("predictions_total", "confidence_count", "request_seconds_count", "batch_rows_sum")
        first, *others = (f"rollout_{name}" for name in names)
        before = {name: settled(client, name) for name in (first, *others)}
        for number in range(40):  # each its own connection, so that both workers get some
            httpx.post(f"{service.base}/v1/models/digits/predict", json=row(number, f"metrics-{number}"))
        wait_for_metric(client, before[first] + 40, first)
        for name, old in before.items():
            assert settled(client, name) - old == 40
        text = client.get("/metrics").text
    assert 'arm="challenger"' in text
    assert "metrics-1" not in text, "no client ID is ever a label"


def test_a_worker_without_torch_and_its_memory(service: Service) -> None:
    for worker in service.workers():
        assert not any("libtorch" in mapped.path for mapped in worker.memory_maps())
        assert worker.memory_info().rss < 250 * 1024 * 1024


def valkey_process(service: Service) -> psutil.Process:
    (valkey,) = [one for one in psutil.Process(service.process.pid).children() if "valkey" in one.name()]
    return valkey


def review_keys(service: Service) -> set[str]:
    """Returns the keys of all review items, page by page."""
    found: set[str] = set()
    with service.admin() as admin:
        while True:
            page = f"/v1/models/digits/reviews?limit=1000&offset={len(found)}"
            new = {item["key"] for item in admin.get(page).json()["reviews"]}
            if not new:
                return found
            found |= new


def test_redis_gone_later_predictions_go_on_and_nothing_is_lost(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, "--champion", "v1")
    body = {"inputs": {"image": three_or_eight()}}
    with run_service(tmp_path) as running, running.client() as client, running.admin() as admin:
        client.post("/v1/models/digits/predict", json=body | {"client_id": "c-42", "key": "before"})
        valkey_process(running).send_signal(signal.SIGSTOP)  # one that has ended is started again
        for number in range(6):
            answer = httpx.post(
                f"{running.base}/v1/models/digits/predict",
                json=body | {"client_id": f"c-{number}", "key": f"away-{number}"},
            )
            assert answer.status_code == 200
            assert answer.json()["review"] == "deferred"
        assert client.get("/readyz").status_code == 200
        reviews = admin.get("/v1/models/digits/reviews")
        assert reviews.status_code == 503
        assert reviews.json()["type"] == "urn:rollout:problem:store-unavailable"
        valkey_process(running).send_signal(signal.SIGCONT)
    with run_service(tmp_path) as running, running.admin() as admin:
        expected, give_up = {"before", *(f"away-{number}" for number in range(6))}, time.monotonic() + 60
        keys: list[str] = []
        while set(keys) != expected:
            assert time.monotonic() < give_up, keys
            time.sleep(0.1)
            keys = [item["key"] for item in admin.get("/v1/models/digits/reviews").json()["reviews"]]
        assert sorted(keys) == sorted(expected)


def test_sigterm_answers_what_is_in_flight_and_exits_cleanly(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, "--champion", "v1")
    body = {"inputs": {"image": three_or_eight()}}
    answered: list[str] = []

    def flood(start: int) -> None:
        with httpx.Client(timeout=30) as client:
            for number in range(start, start + 10_000):
                try:
                    response = client.post(
                        f"{running.base}/v1/models/digits/predict",
                        json=body | {"client_id": f"c-{number}", "key": f"k-{number}"},
                    )
                except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError):
                    return
                if response.status_code == 200:
                    assert response.json()["review"] in ("queued", "deferred")
                    answered.append(f"k-{number}")
                else:
                    assert response.status_code == 503

    with run_service(tmp_path) as running:
        threads = [threading.Thread(target=flood, args=(10_000 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(2)
        assert running.stop() == 0
        for thread in threads:
            thread.join()
    assert len(answered) > 50
    assert "Traceback" not in running.log.read_text()
    with run_service(tmp_path) as again:
        give_up = time.monotonic() + 60
        while missing := set(answered) - review_keys(again):
            assert time.monotonic() < give_up, f"what was acknowledged is not there: {missing}"
            time.sleep(0.2)


def test_a_killed_worker_is_replaced_and_nothing_acknowledged_is_lost(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, "--champion", "v1")
    queued: list[str] = []
    stop = threading.Event()

    def ask(client: int) -> None:
        number = 0
        while not stop.is_set():
            with contextlib.suppress(httpx.TransportError), running.client() as http:
                while not stop.is_set():
                    number += 1
                    body = {"client_id": f"c-{client}-{number}", "key": f"{client}-{number}"}
                    answer = http.post(
                        "/v1/models/digits/predict", json=body | {"inputs": {"image": three_or_eight()}}
                    )
                    if answer.json()["review"] == "queued":
                        queued.append(body["key"])

    with run_service(tmp_path) as running:
        asking = [threading.Thread(target=ask, args=(client,)) for client in range(4)]
        for thread in asking:
            thread.start()
        for _ in range(3):
            time.sleep(1)
            killed = running.workers()[0]
            killed.kill()
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                now = running.workers()
                if len(now) == 2 and killed not in now:
                    break
                time.sleep(0.1)
            else:
                raise AssertionError(running.log.read_text())
        before, give_up = len(queued), time.monotonic() + 60
        while len(queued) == before:
            assert time.monotonic() < give_up, "the others did not go on"
            time.sleep(0.1)
        stop.set()
        for thread in asking:
            thread.join()
        assert set(queued) <= review_keys(running)


def test_a_changed_split_is_followed_without_a_restart_or_a_failed_request(bundles: str, tmp_path: Path) -> None:
    def change(*options: str) -> None:
        set_split(tmp_path, *options)  # in another process, through the service's own Valkey

    def versions(client: httpx.Client) -> set[str]:
        instances = [row(client_id=f"c-{number}") for number in range(50)]
        response = client.post("/v1/models/digits/predict", json={"instances": instances}).raise_for_status()
        return {one["version"] for one in response.json()["predictions"]}

    def wait_for(expected: set[str]) -> None:
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            with contextlib.ExitStack() as stack:  # several connections, so that every worker is asked
                clients = [stack.enter_context(running.client()) for _ in range(6)]
                if all(versions(client) == expected for client in clients):
                    return
        raise AssertionError(running.log.read_text())

    set_split(tmp_path, "--champion", "v1")
    stop, statuses = threading.Event(), list[int]()
    with run_service(tmp_path) as running:
        asking = threading.Thread(target=keep_asking, args=(running, stop, statuses))
        asking.start()
        wait_for({"v1"})
        change("--champion", "v1", "--challenger", "v2", "--share", "0.5")
        wait_for({"v1", "v2"})
        change("--champion", "v2")
        wait_for({"v2"})
        change("--champion", "v1")
        wait_for({"v1"})
        stop.set()
        asking.join()
        assert set(statuses) == {200}
        assert len(statuses) > 100
        log = running.log.read_text()
        assert "digits is at revision 4: v1" in log
        assert log.count("digits:v2 is loaded") == 2, "once a worker"


def test_only_its_user_may_read_the_token(service: Service) -> None:
    assert stat.S_IMODE((service.home / "token").stat().st_mode) == 0o600
    assert service.log.read_text().count(service.token) == 1, "shown once"


def refuse(home: Path, *arguments: str, **environment: str) -> str:
    """Runs a command that must fail with exit code 1 and one line; returns the line."""
    run = subprocess.run(
        [BIN / "rollout", *arguments],
        cwd=ROOT,
        env=os.environ | {"ROLLOUT_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1
    (line,) = run.stderr.strip().splitlines()
    return line


def test_what_cannot_start_says_so_in_one_line(service: Service, bundles: str, tmp_path: Path) -> None:
    port = service.base.rpartition(":")[2]
    assert refuse(tmp_path, "serve", "--port", port) == (
        f"rollout: port {port} on 127.0.0.1 is in use: stop what uses it, or choose another with --port or PORT"
    )
    nowhere = f"redis://:secret@127.0.0.1:{free_port()}/0"
    line = refuse(tmp_path, "serve", "--port", str(free_port()), ROLLOUT_REDIS_URL=nowhere)
    assert re.match(
        r"rollout: redis://127.0.0.1:\d+/0: Redis does not answer: Error 111 connecting to 127.0.0.1:\d+", line
    )
    assert "secret" not in line
    assert "set ROLLOUT_TOKENS" in refuse(tmp_path, "serve", "--host", "0.0.0.0", "--port", str(free_port()))
    assert "ROLLOUT_REDIS_URL must start with" in refuse(tmp_path, "serve", ROLLOUT_REDIS_URL="http://x")
    assert "there is no setting ROLLOUT_WORKER" in refuse(tmp_path, "serve", ROLLOUT_WORKER="3")
    assert "ROLLOUT_WORKERS: expected" in refuse(tmp_path, "serve", ROLLOUT_WORKERS="many")


def test_a_worker_that_cannot_start_ends_it_with_1(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, *TRIAL)
    done = subprocess.run(
        [BIN / "rollout", "serve", "--port", str(free_port())],
        env=os.environ
        | {"ROLLOUT_HOME": str(tmp_path), "ROLLOUT_VARIANT": "none-of-these", "ROLLOUT_WORKERS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "digits:v1 has no variant none-of-these" in done.stderr
    assert done.stderr.splitlines()[-1] == "rollout: a worker could not start; the lines before this one say why"


def test_nothing_to_serve_is_said_in_one_line(bundles: str, tmp_path: Path) -> None:
    assert "there is nothing to serve" in refuse(tmp_path, "serve", "--port", str(free_port()))


def test_tokens_open_the_service_to_others(bundles: str, tmp_path: Path) -> None:
    tokens = "app:app-token-0123456789,admin:admin-token-01234567"
    set_split(tmp_path, *TRIAL)
    with run_service(tmp_path, ROLLOUT_TOKENS=tokens, ROLLOUT_HOST="0.0.0.0", ROLLOUT_WORKERS="1") as running:
        url = f"{running.base}/v1/models/digits/predict"
        assert httpx.post(url, json=row()).status_code == 401
        bearer = {"Authorization": "Bearer app-token-0123456789"}
        assert httpx.post(url, json=row(), headers=bearer).status_code == 200
        assert httpx.get(f"{running.base}/v1/models/digits/split", headers=bearer).status_code == 403
        for open_to_all in ("livez", "readyz", "metrics", "schema.json"):
            assert httpx.get(f"{running.base}/{open_to_all}").status_code == 200
        assert not (tmp_path / "token").exists()


def damaged(bundles: str, version: str, tmp_path: Path) -> str:
    """Returns a copy of the store in which one byte of a version is another."""
    store = tmp_path / "store"
    subprocess.run(["cp", "-r", bundles, store], check=True)
    (graph,) = store.glob(f"models/digits/{version}/onnx/model.onnx")
    altered = bytearray(graph.read_bytes())
    altered[len(altered) // 2] ^= 1
    graph.write_bytes(altered)
    return str(store)


def test_a_damaged_champion_is_refused_where_it_is_served(bundles: str, tmp_path: Path) -> None:
    store = damaged(bundles, "v1", tmp_path)
    set_split(tmp_path, *TRIAL)
    line = refuse(tmp_path, "serve", "--port", str(free_port()), BENTOML_HOME=store)
    assert line == "rollout: digits:v1 is refused: onnx/model.onnx was changed after packing"
    assert line == refuse(tmp_path, "verify", "digits:v1", BENTOML_HOME=store)


def test_the_clients_of_a_damaged_challenger_get_the_champion(bundles: str, tmp_path: Path) -> None:
    store = damaged(bundles, "v2", tmp_path)
    set_split(tmp_path, *TRIAL)
    with run_service(tmp_path, BENTOML_HOME=store, ROLLOUT_WORKERS="1") as running:
        assert {version for _, version in arms(running).values()} == {"v1"}
        wait_for_text(
            running.log,
            "digits:v2 is refused: onnx/model.onnx was changed after packing; its clients get the champion, v1",
        )


def test_nobody_waits_for_a_slow_neighbour(bundles: str, tmp_path: Path) -> None:
    """Large images are decoded off the event loop: small requests are answered in between."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (4000, 4000), (9, 9, 9)).save(file, "PNG")
    big = {"client_id": "big", "inputs": {"image": base64.b64encode(file.getvalue()).decode()}}
    set_split(tmp_path, *TRIAL)
    with (
        run_service(tmp_path, ROLLOUT_WORKERS="1") as running,
        running.client() as large,
        running.client() as small,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):

        def ask(client: httpx.Client, body: dict[str, Any]) -> float:
            start = time.perf_counter()
            assert client.post("/v1/models/digits/predict", json=body).status_code == 200
            return time.perf_counter() - start

        slow = [pool.submit(ask, large, big) for _ in range(6)]
        quick = []
        while not slow[-1].done():
            quick.append(ask(small, row()))
    # Decoded on the event loop, a small request that comes behind a large one takes as long as that one.
    assert statistics.median(quick) < statistics.median(one.result() for one in slow) / 4
