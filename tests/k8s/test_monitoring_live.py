"""A real Prometheus looks at a real service: the rules and the dashboard find what they ask for."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from rollout.routing.assignment import Arm, assign
from rollout.routing.split import Split
from tests.conftest import TRIAL, Service, free_port, need, run_service, set_split, wait_for_metric
from tests.images import held_out, image
from tests.k8s import promql

# What Grafana and the scrape fill in.
VARIABLES = {"model", *promql.SCRAPE}
# Nothing is scored unseen here.
NOT_HERE = {"rollout_shadow_total"}
PODS = ("rollout-a", "rollout-b")


def clients(arm: Arm, count: int) -> list[str]:
    """Returns clients of an arm, under the split of the service."""
    split = Split(champion="v1", challenger="v2", share=0.1, experiment="digits-v1-v2")
    ids = (f"monitored-{number}" for number in range(100_000))
    found = (client for client in ids if assign(split, client).arm == arm)
    return [next(found) for _ in range(count)]


CLIENTS = {arm: clients(arm, 5) for arm in ("champion", "control", "challenger")}


@pytest.fixture(scope="module")
def service(bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of this file alone: what other tests send may be drift, of which an alert tells."""
    home = tmp_path_factory.mktemp("monitored")
    set_split(home, *TRIAL)
    with run_service(home) as running:
        yield running


@pytest.fixture(scope="module")
def traffic(service: Service) -> Iterator[Callable[[], None]]:
    """Sends a prediction of every arm, and a request that is refused; images as the evaluation has them."""
    numbers = itertools.cycle(range(len(held_out().targets)))
    with service.client() as client:

        def predict(body: dict[str, object]) -> int:
            return client.post("/v1/models/digits/predict", json=body).status_code

        def send() -> None:
            for client_id in itertools.chain(*CLIENTS.values()):
                assert predict({"client_id": client_id, "inputs": {"image": image(next(numbers))}}) == 200
            assert predict({"client_id": "nobody"}) == 422

        yield send


@pytest.fixture(scope="module")
def samples(service: Service, traffic: Callable[[], None]) -> dict[str, list[dict[str, str]]]:
    """The labels of what the service exposes, by metric."""
    traffic()
    with service.client() as client:
        wait_for_metric(client, sum(map(len, CLIENTS.values())), "rollout_predictions_total")
        wait_for_metric(client, 1, "rollout_errors_total")
        text = client.get("/metrics").text
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


def own(where: str) -> Iterator[promql.Selector]:
    """Yields the metrics of the service itself that an expression names."""
    for selector in promql.selectors(promql.expressions()[where]):
        if selector.name.startswith("rollout_") and selector.name not in NOT_HERE:
            yield selector


@pytest.mark.parametrize("where", [where for where in promql.expressions() if any(own(where))])
def test_the_service_exposes_what_an_expression_asks_for(
    where: str, samples: dict[str, list[dict[str, str]]]
) -> None:
    for name, matchers in own(where):
        assert name in samples, f"{name} is not there before it counts, so that its first step is not seen"
        for label, operator, value in matchers:
            if label in VARIABLES or operator.startswith("!"):
                continue
            there = {labels.get(label, "") for labels in samples[name]}
            wanted = set(value.split("|")) if operator == "=~" else {value}
            if "" in wanted and there == {
                ""
            }:  # one of two metrics that are asked at once, and without this label
                continue
            assert wanted - {""} <= there, f"{name} has no {label} {wanted - there}"


@contextlib.contextmanager
def prometheus(folder: Path, target: str) -> Iterator[httpx.Client]:
    """Runs Prometheus, which scrapes one service as if it were two pods."""
    need("prometheus")
    groups = [{"name": group["name"], "rules": group["rules"]} for group in promql.RULES["groups"]]  # at once
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    labels = {"namespace": "rollout", "app_kubernetes_io_version": "0.1.0"}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {
                "job_name": "rollout",
                "static_configs": [{"targets": [target], "labels": labels | {"pod": pod}} for pod in PODS],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    log = folder / "prometheus.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=file,
            stderr=file,
        )
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=30) as client:
            wait(lambda: _is_ready(client) or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield client
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get("/-/ready").status_code == 200
    return False


def wait(until: Callable[[], bool]) -> None:
    """Waits until something holds, for a minute at most."""
    give_up = time.monotonic() + 60
    while not until() and time.monotonic() < give_up:
        time.sleep(0.2)


def ask(client: httpx.Client, text: str) -> list[dict[str, Any]]:
    """Returns the answer of Prometheus, without what is not a number."""
    answer = client.get("/api/v1/query", params={"query": text}).json()
    assert answer["status"] == "success", answer
    found: list[dict[str, Any]] = answer["data"]["result"]
    return [one for one in found if one["value"][1] != "NaN"]


def test_panels_show_something_and_no_alert_fires(
    service: Service, traffic: Callable[[], None], tmp_path: Path
) -> None:
    for_other_reasons = {*promql.OTHERS, *NOT_HERE} - {"up"}
    panels = {
        where: text.replace("$namespace", "rollout").replace("$model", "digits")
        for where, text in promql.expressions().items()
        if where.startswith("rollout.json")
        and where != "rollout.json Split changed"
        and not {selector.name for selector in promql.selectors(text)} & for_other_reasons
    }
    assert len(panels) > 25
    with prometheus(tmp_path, service.base.removeprefix("http://")) as client:
        empty = dict(panels)

        def all_show_something() -> bool:
            traffic()
            for where, text in panels.items():
                if where in empty and ask(client, text):
                    del empty[where]
            return not empty

        wait(all_show_something)
        assert empty == {}
        assert {one["metric"]["pod"] for one in ask(client, "rollout_split_revision")} == set(PODS)
        # 15 clients, which both pods tell of, are not 30.
        (control,) = ask(client, 'namespace_model_revision:rollout_control_clients:max{model="digits"}')
        assert float(control["value"][1]) >= len(CLIENTS["control"])
        state = client.get("/api/v1/rules").json()["data"]["groups"]
        bad = [rule for group in state for rule in group["rules"] if rule["health"] != "ok"]
        assert [rule["lastError"] for rule in bad if rule["health"] == "err"] == []
        assert client.get("/api/v1/alerts").json()["data"]["alerts"] == []
