"""Runs are told to a real MLflow server, to TensorBoard files and to W&B; none of it can lose a training."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.store.artifact import artifact_repository_registry

from rollout.bundle.lineage import differences
from rollout.bundle.manifest import digest
from rollout.bundle.store import bundle_exists, open_bundle
from rollout.training.mlflow_tracker import MlflowTracker, is_folder_of
from rollout.training.runs import Checks
from rollout.training.tracker import Told, Tracker
from rollout.training.tracking import Tracking, describe_run
from tests.commands import rollout, start
from tests.conftest import ROOT, free_port
from tests.mlflow_servers import Mlflow, by_name, mlflow_server

RECIPE = """
import os, time
import torch
from rollout import Fit, Recipe, Version
from tests.training.fits import FIELDS, YES_OR_NO, load, make_net

def loss(outputs, targets):
    time.sleep(float(os.environ.get("SLOW", "0")))
    return torch.nn.functional.cross_entropy(outputs, targets)

def search(trial):
    return {{"hidden": trial.suggest_int("hidden", 2, 32, log=True)}}

def plain(part, seed):
    if "BROKEN" in os.environ:
        raise ValueError("out of luck")
    return make_net(part, {{"hidden": 8}}).eval()

fit = Fit(module=make_net, loss=loss, epochs=4, batch=50, learning_rate={rate!r}, check_every=500)
RECIPE = Recipe(
    name="{name}",
    inputs=FIELDS,
    load=load,
    versions={{
        "v1": Version(fit, YES_OR_NO, {{"hidden": 16}}, search=search),
        "v2": Version(plain, YES_OR_NO, {{"by": "hand"}}),
    }},
)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


def write_recipe(place: Path, name: str, rate: float | str = 1e-2) -> Path:
    folder = place / "recipes" / name
    folder.mkdir(parents=True)
    (folder / "recipe.py").write_text(RECIPE.format(name=name, rate=rate))
    return folder


def environment(place: Path, uri: str, **more: str) -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return os.environ | {
        "PYTHONPATH": paths,
        "ROLLOUT_HOME": str(place / "home"),
        "MLFLOW_TRACKING_URI": uri,
        **more,
    }


class Built:
    """A version that was built and told everywhere."""

    def __init__(self, place: Path, server: Mlflow) -> None:
        self.place = place
        more = {"WANDB_PROJECT": "rings", "WANDB_MODE": "offline"}
        folder = write_recipe(place, "told", "find")
        uri = server.url.replace("//", "//ada:sesame@")
        self.command = rollout("build", folder, "v1", environment=environment(place, uri, **more))
        assert self.command.returncode == 0, self.command.stderr
        self.manifest = open_bundle("told:v1")[1]
        self.entry = self.manifest.lineage["tracking"]["MLflow"]
        (self.run,) = server.runs("told")
        self.data = self.run["data"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, server: Mlflow) -> Built:
    return Built(tmp_path_factory.mktemp("built"), server)


def test_mlflow_has_all_of_a_build(built: Built, server: Mlflow) -> None:
    run, data = built.run["info"]["run_id"], built.data
    assert (built.run["info"]["status"], built.run["info"]["run_name"]) == ("FINISHED", "v1")
    params = by_name(data["params"])
    assert params["hyperparameters.hidden"] == "16"
    assert (params["training.batch"], params["seeds.torch"]) == ("50", "0")
    lineage, metrics, tags = built.manifest.lineage, by_name(data["metrics"]), by_name(data["tags"])
    assert metrics["accuracy"] == built.manifest.metrics["accuracy"]
    assert metrics["fit.best_step"] == lineage["fit"]["best_step"]
    for name in ("training_loss", "validation_loss", "validation_error", "learning_rate"):
        steps = server.steps(run, name)
        assert len(steps) == lineage["fit"]["checks"]
        assert steps == sorted(set(steps))
        assert steps[-1] == lineage["fit"]["steps"]
    assert tags["data.sha256"] == lineage["data"]["sha256"]
    assert tags.get("mlflow.source.git.commit") == lineage["code"]["commit"]
    assert tags["environment.packages.torch"] == lineage["environment"]["packages"]["torch"]
    assert tags["rollout.digest"] == digest(built.manifest)
    assert server.files(run) >= {"report.html", "learning_rate.png", "manifest.json", "reliability.svg"}


def test_the_build_prints_a_link_that_answers_and_no_password(built: Built, server: Mlflow) -> None:
    run = built.run["info"]
    link = f"{server.url}/#/experiments/{run['experiment_id']}/runs/{run['run_id']}"
    assert f"  its run in MLflow: {link}" in built.command.stdout
    assert httpx.get(link).status_code == 200
    assert built.entry == {"run": run["run_id"], "url": link}
    assert f"run in MLflow  {link[:40]}" in " ".join(rollout("report", "told:v1").stdout.split("\n"))
    said = built.command.stdout + built.command.stderr
    assert "sesame" not in said
    assert not [file for file in built.place.rglob("*") if file.is_file() and b"sesame" in file.read_bytes()]


def test_the_bundle_is_a_version_of_the_registered_model(built: Built, server: Mlflow) -> None:
    (version,) = server.versions("told")
    assert version["run_id"] == built.entry["run"]
    assert by_name(version["tags"]) == {"rollout.version": "v1", "rollout.digest": digest(built.manifest)}


def test_who_made_a_run_is_no_difference(built: Built) -> None:
    lineage = built.manifest.lineage
    other = {**lineage, "tracking": {"MLflow": {"run": "another"}}}
    assert not any(differences(lineage, other).values())


def test_tensorboard_has_curves_settings_figures_and_pictures(built: Built) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (curves,) = built.place.rglob("curves")
    events = EventAccumulator(str(curves)).Reload()
    known = events.Tags()
    steps = [event.step for event in events.Scalars("validation_loss")]
    assert len(steps) == built.manifest.lineage["fit"]["checks"]
    assert events.Scalars("figures/accuracy")[0].value == pytest.approx(built.manifest.metrics["accuracy"])
    assert known["images"] == ["learning_rate"]
    text = events.Tensors("run/text_summary")[0].tensor_proto.string_val[0].decode()
    assert built.manifest.lineage["data"]["sha256"] in text


def test_wandb_has_all_of_a_build(built: Built) -> None:
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    (file,) = built.place.rglob("*.wandb")
    store: Any = DataStore()
    store.open_for_scan(str(file))
    config: dict[str, str] = {}
    summary: dict[str, str] = {}
    steps: list[int] = []
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(data)
        config |= {each.key or ".".join(each.nested_key): each.value_json for each in record.run.config.update}
        summary |= {each.key or ".".join(each.nested_key): each.value_json for each in record.summary.update}
        if record.HasField("history"):
            steps.append(record.history.step.num)
    store.close()
    assert config["hyperparameters.hidden"] == "16"
    assert config["data.sha256"] == f'"{built.manifest.lineage["data"]["sha256"]}"'
    assert float(summary["accuracy"]) == built.manifest.metrics["accuracy"]
    assert len(steps) == built.manifest.lineage["fit"]["checks"]
    assert {"report.html", "learning_rate.png"} <= {each.name for each in (file.parent / "files").iterdir()}
    assert built.manifest.lineage["tracking"]["W&B"]["run"] in file.name


def test_the_end_of_a_run_that_was_not_told_is_told_by_the_next_build(built: Built, server: Mlflow) -> None:
    server.post("runs/update", run_id=built.entry["run"], status="RUNNING")
    (version,) = server.versions("told")
    server.delete("model-versions/delete", name="told", version=version["version"])
    folder = built.place / "recipes" / "told"
    said = rollout("build", folder, "v1", environment=environment(built.place, server.url))
    assert "told:v1 is in the store already" in said.stdout
    (run,) = server.runs("told")
    assert run["info"]["status"] == "FINISHED"
    assert len(server.versions("told")) == 1


def test_a_build_that_is_killed_goes_on_in_the_same_run(tmp_path: Path, server: Mlflow) -> None:
    folder = write_recipe(tmp_path, "torn")
    slowly = environment(tmp_path, server.url, SLOW="0.02")
    process = start("build", folder, "v1", environment=slowly, folder=tmp_path)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "home").rglob("last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    (run,) = server.runs("torn")
    assert run["info"]["status"] == "RUNNING"
    assert not bundle_exists("torn:v1")
    said = rollout("build", folder, "v1", environment=environment(tmp_path, server.url))
    assert "going on with the training that was interrupted" in said.stdout
    (again,) = server.runs("torn")
    lineage = open_bundle("torn:v1")[1].lineage
    assert again["info"]["run_id"] == run["info"]["run_id"] == lineage["tracking"]["MLflow"]["run"]
    assert again["info"]["status"] == "FINISHED"
    steps = server.steps(run["info"]["run_id"], "validation_loss")
    assert steps == sorted(set(steps))
    assert len(steps) == lineage["fit"]["checks"]


def test_a_function_that_trains_is_told_too_and_one_that_fails_has_failed(tmp_path: Path, server: Mlflow) -> None:
    folder = write_recipe(tmp_path, "plain")
    broken = rollout("build", folder, "v2", environment=environment(tmp_path, server.url, BROKEN="yes"))
    assert broken.returncode != 0
    (run,) = server.runs("plain")
    assert run["info"]["status"] == "FAILED"
    assert by_name(run["data"]["tags"])["rollout.why"] == "out of luck"
    assert rollout("build", folder, "v2", environment=environment(tmp_path, server.url)).returncode == 0
    (again,) = server.runs("plain")
    assert (again["info"]["run_id"], again["info"]["status"]) == (run["info"]["run_id"], "FINISHED")
    assert by_name(again["data"]["params"])["hyperparameters.by"] == "hand"
    assert by_name(again["data"]["metrics"])["accuracy"] == open_bundle("plain:v2")[1].metrics["accuracy"]
    gate = ("gate", "plain:v2", "--against", "v2", "--seeds", "1", "--models", folder.parent)
    assert rollout(*gate, environment=environment(tmp_path, server.url)).returncode == 0
    (gated,) = server.runs("plain")
    assert gated["info"]["status"] == "FINISHED"
    assert by_name(gated["data"]["tags"])["rollout.gate"] == "cannot decide"
    result = open_bundle("plain:v2")[1].gate
    assert result is not None
    assert by_name(gated["data"]["metrics"])["gate.candidate"] == result.candidate.mean


def test_with_the_server_away_the_bundle_is_packed_and_a_line_says_so(tmp_path: Path) -> None:
    folder = write_recipe(tmp_path, "alone")
    away = f"http://ada:sesame@127.0.0.1:{free_port()}"
    said = rollout("build", folder, "v2", environment=environment(tmp_path, away))
    assert said.returncode == 0
    (line,) = [line for line in said.stderr.splitlines() if "MLflow" in line]
    shown = away.replace("ada:sesame@", "")
    assert line.startswith("MLflow: the run is not tracked there: ")
    assert line.endswith(f"see whether {shown} answers, or unset MLFLOW_TRACKING_URI")
    assert "sesame" not in said.stdout + said.stderr
    assert "tracking" not in open_bundle("alone:v2")[1].lineage


def test_trials_of_a_search_are_runs_within_one(tmp_path: Path, server: Mlflow) -> None:
    folder = write_recipe(tmp_path, "sought")
    found = rollout(
        *("search", "sought", "v1", "--trials", "2", "--models", folder.parent),
        environment=environment(tmp_path, server.url),
    )
    assert found.returncode == 0, found.stderr
    *trials, study = sorted(server.runs("sought"), key=lambda run: "parentRunId" not in str(run))
    assert study["info"]["run_name"] == "search of v1"
    assert len(trials) == 2
    for trial in trials:
        assert by_name(trial["data"]["tags"])["mlflow.parentRunId"] == study["info"]["run_id"]
        assert "hyperparameters.hidden" in by_name(trial["data"]["params"])
        assert len(server.steps(trial["info"]["run_id"], "validation_loss")) > 1


def test_no_server_elsewhere_has_files_written_into_a_folder_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[str] = []

    class Place:
        def log_artifact(self, file: str) -> None:
            sent.append(file)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    monkeypatch.setattr(artifact_repository_registry, "get_artifact_repository", lambda _: Place())
    tracker = MlflowTracker()
    tracker._open()
    for place in (str(tmp_path), f"file://{tmp_path}", f"FILE:{tmp_path}", "", "../mlruns", "runs:/1/a"):
        tracker._artifacts = place
        tracker.tell({}, [tmp_path / "report.html"])
    assert not sent
    assert [repr(str(tmp_path)) in record.message for record in caplog.records] == [True] + [False] * 5
    tracker._artifacts = "mlflow-artifacts:/1/2"
    tracker.tell({}, [tmp_path / "report.html"])
    assert sent == [str(tmp_path / "report.html")]
    assert is_folder_of("https://127.0.0.1.mlflow.example", str(tmp_path)), "a name is no address"
    assert not is_folder_of("http://127.0.0.1:5000", str(tmp_path))


class Liar(BaseHTTPRequestHandler):
    """A server that has another place for artefacts whenever it is asked for it again."""

    place = ""

    def do_GET(self) -> None:
        self.answer(f"file://{self.place}")

    def do_POST(self) -> None:
        self.answer("" if self.path.endswith("/search") else "mlflow-artifacts:/1/2")

    def answer(self, place: str) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        run = {"info": {"run_id": "r", "artifact_uri": place}, "data": {}}
        body = json.dumps({"experiment": {"experiment_id": "1"}} | ({"run": run} if place else {})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(500)

    def log_request(self, *args: Any) -> None:
        pass


def test_a_server_elsewhere_is_not_asked_twice_where_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Liar, "place", str(tmp_path / "here"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "report.html").touch()
    with ThreadingHTTPServer(("127.0.0.1", 0), Liar) as liar:
        threading.Thread(target=liar.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{liar.server_port}")
        tracker = MlflowTracker()
        tracker._address = "https://mlflow.example"
        tracker.start(Told(model="ring", name="v1", key="k", settings={}, facts={}))
        with contextlib.suppress(Exception):
            tracker.tell({}, [tmp_path / "report.html"])
        liar.shutdown()
    assert not (tmp_path / "here").exists()


class Endless(Tracker):
    """A tracker whose names have no end."""

    name = "Elsewhere"

    def start(self, told: Told) -> dict[str, str]:
        return {"run": told.key * 1000}


def test_a_run_of_an_endless_name_is_not_tracked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Tracking([Endless()]) as tracking:
        tracking.start(describe_run("ring", "v1", {}, tmp_path))
        assert not tracking.lineage
    assert "what it calls the run has more than 2,000 characters" in caplog.text


class Away(Tracker):
    """A tracker that does not answer for a while."""

    name = "Elsewhere"

    def __init__(self) -> None:
        self.is_away = True
        self.taken: list[Any] = []

    def start(self, told: Told) -> dict[str, str]:
        return {"run": told.key}

    def check(self, checks: Checks) -> None:
        if self.is_away:
            raise ConnectionError("no answer from https://ada:ses@me@elsewhere/")
        self.taken = [check["step"] for check in checks]


def test_curves_wait_for_a_tracker_that_is_away_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Away()
    with Tracking([tracker]) as tracking:
        tracking.start(describe_run("ring", "v1", {}, tmp_path))
        checks: Checks = [{"step": 1.0, "validation_loss": 0.5}]
        tracking.check(checks)
        tracking.check([*checks, {"step": 2.0, "validation_loss": 0.4}])
        tracker.is_away = False
        tracking.trained([*checks, {"step": 2.0}, {"step": 3.0}], {}, tmp_path)
    assert tracker.taken == [1, 2, 3]
    assert [record.message for record in caplog.records] == [
        "Elsewhere: the curves follow when it answers: no answer from https://elsewhere/"
    ]
