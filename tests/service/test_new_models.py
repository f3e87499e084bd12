"""A model that gets its first split, or its bundle, while the service runs, and one whose split is removed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollout.bundle.store import SETTLED_S
from tests.conftest import BIN, ROOT, STORE, TRIAL, Service, run_service, set_split

WORKERS = 2
WITHIN_S = 2.0
# What a busy machine may add; what is promised is measured by `make bench`.
PATIENCE_S = 60.0
TEXT = {"client_id": "c-1", "inputs": {"text": "the file was not found"}}
PREDICT = "/v1/models/languages/predict"


@pytest.fixture(scope="module")
def store(more_bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of its own, with ``digits`` alone."""
    models = tmp_path_factory.mktemp("store") / "models"
    shutil.copytree(Path(more_bundles) / "models" / "digits", models / "digits")
    return models.parent


@pytest.fixture(scope="module")
def running(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service of ``digits`` from that store."""
    home = tmp_path_factory.mktemp("new")
    set_split(home, *TRIAL)
    with run_service(home, BENTOML_HOME=str(store), ROLLOUT_WORKERS=str(WORKERS)) as service:
        yield service


def statuses(service: Service) -> set[int]:
    """Asks often enough, on connections of their own, that every worker answers."""
    found = set()
    for _ in range(16 * WORKERS):
        found.add(httpx.post(service.base + PREDICT, json=TEXT, timeout=30).status_code)
    return found


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < give_up, what
        time.sleep(0.05)


def remove(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "rollout"), "split", "remove", "languages", "--yes", *options]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"ROLLOUT_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def models(service: Service) -> list[Any]:
    with service.client() as client:
        return [model["model"] for model in client.get("/v1/models").json()["models"]]


def shown_in_metrics(service: Service) -> set[str]:
    """Returns the models that any series of ``/metrics`` is of."""
    return set(re.findall(r'model="([^"]*)"', httpx.get(f"{service.base}/metrics", timeout=30).text))


def test_from_the_first_split_to_the_removal(running: Service, store: Path) -> None:
    assert statuses(running) == {404}
    set_split(
        running.home, "--champion", "v1", model="languages", BENTOML_HOME=STORE
    )  # by one who has the bundle
    assert statuses(running) == {404}

    source, target = Path(STORE) / "models" / "languages" / "v1", store / "models" / "languages" / "v1"
    target.mkdir(parents=True)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    files.sort(key=lambda path: path.name != "manifest.json")  # as `bentoml models import` may: this one first
    half = len(files) // 2
    for path in files[:half]:
        copy(path, source, target)
    time.sleep(SETTLED_S + 1.5)  # a copy that stops for so long is taken as it is, and refused
    assert statuses(running) == {404}, "what is copied by half is not served"
    for path in files[half:]:
        copy(path, source, target)
    wait_until(lambda: statuses(running) == {200}, "every worker serves it")
    log = running.log.read_text()
    assert log.count("languages is served") == WORKERS
    assert "Traceback" not in log

    assert models(running) == ["digits", "languages"]
    assert shown_in_metrics(running) == {"digits", "languages", "-"}
    with running.client() as client:
        assert "/v1/models/languages/predict" in client.get("/openapi.json").json()["paths"]
        assert client.get("/v2/models/languages/ready").status_code == 200
        refused = client.delete("/v1/models/languages/split")
        assert refused.status_code == 401
    with running.admin() as admin:
        assert admin.delete("/v1/models/languages/split").status_code == 428
        assert admin.delete("/v1/models/languages/split", headers={"If-Match": '"7"'}).status_code == 412
        removed = admin.delete("/v1/models/languages/split?why=over", headers={"If-Match": '"1"'})
        assert (removed.status_code, removed.json()["removed"], removed.json()["why"]) == (200, True, "over")
    wait_until(lambda: statuses(running) == {404}, "no worker serves it")
    assert models(running) == ["digits"]
    assert shown_in_metrics(running) == {"digits", "-"}
    assert not (running.home / "splits" / "languages.json").exists(), (
        "a start without Redis does not serve it either"
    )

    set_split(running.home, "--champion", "v1", model="languages", BENTOML_HOME=STORE)
    wait_until(lambda: statuses(running) == {200}, "it comes back")
    with running.admin() as admin:
        history = admin.get("/v1/models/languages/split/history").json()["history"]
    assert [(one["revision"], one["removed"]) for one in history] == [(1, False), (2, True), (3, False)]

    done = remove(running.home, "--why", "for good")
    assert done.returncode == 0, done.stderr
    assert "not served any more" in done.stderr
    assert "languages is at revision 4" in done.stdout
    wait_until(lambda: statuses(running) == {404}, "no worker serves it")
    again = remove(running.home)
    assert again.returncode == 1
    assert "languages has no split" in again.stderr
    with running.client() as client:
        assert client.get("/v1/models/digits").status_code == 200
    assert "Traceback" not in running.log.read_text()


def copy(path: Path, source: Path, target: Path) -> None:
    place = target / path.relative_to(source)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, place)


PACK = '''
import numpy as np
import torch
from rollout import Classification, Labelled, Number, pack


class Wave(torch.nn.Module):
    """Decides by a function that ONNX does not have."""

    def forward(self, number):
        wave = torch.special.bessel_j0(number).reshape(-1, 1) * 40
        return torch.cat([wave, -wave], 1)


def part(seed):
    numbers = np.random.default_rng(seed).uniform(0, 10, 400).astype(np.float32)
    return Labelled({"number": numbers}, Wave()(torch.tensor(numbers)).argmax(1).numpy())


manifest = pack(
    Wave().eval(), name="waves", version="v1", inputs={"number": Number(minimum=0, maximum=10)},
    task=Classification(labels=["up", "down"]), calibration=part(1), evaluation=part(2),
)
print(*manifest.variants)
'''


def test_a_bundle_that_onnx_cannot_express_is_served_by_default(tmp_path: Path) -> None:
    environment = {"BENTOML_HOME": str(tmp_path / "store")}
    packed = subprocess.run(
        [sys.executable, "-c", PACK],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert packed.stdout.split() == ["torchscript", "export"]
    home = tmp_path / "home"
    set_split(home, "--champion", "v1", model="waves", **environment)
    with run_service(home, None, ROLLOUT_WORKERS="1", **environment) as service, service.client() as client:
        body = {"client_id": "c", "inputs": {"number": 0.5}}
        answer = client.post("/v1/models/waves/predict", json=body)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["variant"], answer.json()["label"]) == ("torchscript", "up")
