"""Runs and versions in MLflow, told through its own client."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rollout.bundle.manifest import Manifest, digest
from rollout.config import is_loopback
from rollout.errors import ConfigError
from rollout.mlflow_server import DIGEST, TRACKING, VERSION, shown_address
from rollout.training.runs import Checks
from rollout.training.tracker import Outcome, Told, Tracker

# How long a server that is away may hold up a training; whoever sets these variables decides.
BOUNDS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
# After a failure, curves wait so many times as long as it took: they cost no training more than a tenth.
PAUSE = 10
RUN_KEY, PARENT_KEY = "rollout.run", "rollout.parent"
MOST_PARAMS, MOST_TAGS, MOST_METRICS, MOST_CHECKS = 100, 100, 1000, 100  # of one request
# Places of artefacts that are folders here, or what the server says when it is asked for them.
LOCAL, ASKED_FOR = ("", "file"), ("runs", "models")
LONGEST_PARAM, LONGEST_TAG, LONGEST_PLACE = 6000, 5000, 200
# Where MLflow has a name of its own for what we know.
OWN = {"code.commit": "mlflow.source.git.commit", "command": "mlflow.source.name", "by": "mlflow.user"}

logger = logging.getLogger(__name__)


class MlflowTracker(Tracker):
    """An experiment for a model, a run for a training, and a version of the registered model for a bundle."""

    name = "MLflow"

    def __init__(self) -> None:
        self._address = shown_address(os.environ[TRACKING])
        self.remedy = f"see whether {self._address} answers, or unset {TRACKING}"
        self._run, self._artifacts = "", ""
        self._checks: Checks = []
        self._sent, self._again = -1.0, 0.0

    def start(self, told: Told) -> dict[str, str]:
        """Finds the run of the key, or makes it; tells what is known."""
        self._open()
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or told.model)
        found = self._found(experiment, told.key)
        if found is None:
            tags = {RUN_KEY: told.key}
            if told.parent and (parent := self._found(experiment, told.parent)) is not None:
                tags["mlflow.parentRunId"] = parent.info.run_id
            found = self._client.create_run(experiment, tags=tags, run_name=told.name)
        else:
            self._client.update_run(found.info.run_id, status="RUNNING")
        self._take(found)
        if "validation_loss" in found.data.metrics:
            history = self._client.get_metric_history(self._run, "validation_loss")
            self._sent = max((metric.step for metric in history), default=-1)
        self._describe(told)
        entry = {"run": self._run}
        if self._address.startswith("http"):
            entry["url"] = f"{self._address}/#/experiments/{experiment}/runs/{self._run}"
        return entry

    def reopen(self, entry: Mapping[str, str]) -> bool:
        """Opens the run of a bundle."""
        self._open()
        run = self._client.get_run(entry["run"])
        self._take(run)
        return bool(run.info.status != "FINISHED")

    def add(self, entry: Mapping[str, str], figures: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Adds figures and tags to a run that is over."""
        self.reopen(entry)
        self.tell(figures, [])
        self._tag(tags)

    def check(self, checks: Checks) -> None:
        """Tells the checks that the run does not have yet; after a failure, not at once again."""
        self._checks = checks
        if (started := time.monotonic()) < self._again:
            return
        try:
            self._tell_checks()
        except Exception:
            ended = time.monotonic()
            self._again = ended + PAUSE * (ended - started)
            raise

    def tell(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Logs the checks that are left, figures, and files as artefacts."""
        from mlflow.entities import Metric  # noqa: PLC0415
        from mlflow.store.artifact import artifact_repository_registry as places  # noqa: PLC0415

        self._tell_checks()
        now = round(time.time() * 1000)
        metrics = (Metric(_named(name), value, now, 0) for name, value in figures.items())
        while some := list(islice(metrics, MOST_METRICS)):
            self._client.log_batch(self._run, metrics=some)
        if files and is_folder_of(self._address, self._artifacts):
            logger.warning(
                "MLflow: pictures and the report are not sent: %s would have them in %r of this machine; start "
                "it with --artifacts-destination",
                self._address,
                self._artifacts[:LONGEST_PLACE],
            )
            return
        if files:  # MLflow's client would ask the server for the place again
            place: Any = places.get_artifact_repository(self._artifacts)
            for file in files:
                place.log_artifact(str(file))

    def pack(self, manifest: Manifest) -> None:
        """Makes a version of the registered model, which promotions find by the bundle's digest."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        known = digest(manifest)
        tags = {VERSION: manifest.version, DIGEST: known}
        self._tag(tags)
        if self._client.search_model_versions(f"name = '{manifest.name}' and tag.`{DIGEST}` = '{known}'"):
            return
        try:
            self._client.create_registered_model(manifest.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        self._client.create_model_version(
            manifest.name, source=self._artifacts, run_id=self._run, tags=tags, await_creation_for=0
        )

    def end(self, outcome: Outcome, why: str = "") -> None:
        """Gives the run its status."""
        if why:
            self._tag({"rollout.why": why})
        self._client.set_terminated(self._run, outcome)

    def _open(self) -> None:
        for name, bound in BOUNDS.items():
            os.environ.setdefault(name, bound)
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # which has the credentials
        try:
            from mlflow import MlflowClient  # noqa: PLC0415  takes a second
        except ModuleNotFoundError:
            raise ConfigError(f"{TRACKING} is set and mlflow is missing: pip install 'rollout[mlflow]'") from None
        self._client = MlflowClient()

    def _take(self, run: Any) -> None:
        self._run, self._artifacts = run.info.run_id, run.info.artifact_uri

    def _tell_checks(self) -> None:
        from mlflow.entities import Metric  # noqa: PLC0415

        now = round(time.time() * 1000)
        new = (check for check in self._checks if check["step"] > self._sent)
        while some := list(islice(new, MOST_CHECKS)):
            metrics = [
                Metric(name, value, now, int(check["step"]))
                for check in some
                for name, value in check.items()
                if name != "step"
            ]
            self._client.log_batch(self._run, metrics=metrics)
            self._sent = some[-1]["step"]

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        if (found := self._client.get_experiment_by_name(name)) is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name))
        except MlflowException as error:
            found = self._client.get_experiment_by_name(name)  # somebody else was first
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
            return str(found.experiment_id)

    def _found(self, experiment: str, key: str) -> Any:
        found = self._client.search_runs([experiment], f"tags.`{RUN_KEY}` = '{key}'", max_results=1)
        return found[0] if found else None

    def _describe(self, told: Told) -> None:
        from mlflow.entities import Param  # noqa: PLC0415

        params = (Param(_named(name), str(value)[:LONGEST_PARAM]) for name, value in told.settings.items())
        while some := list(islice(params, MOST_PARAMS)):
            self._client.log_batch(self._run, params=some)
        self._tag({**told.facts, **{own: told.facts[name] for name, own in OWN.items() if name in told.facts}})

    def _tag(self, tags: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag  # noqa: PLC0415

        made: Iterator[Any] = (RunTag(_named(name), str(value)[:LONGEST_TAG]) for name, value in tags.items())
        while some := list(islice(made, MOST_TAGS)):
            self._client.log_batch(self._run, tags=some)


def is_folder_of(address: str, artifacts: str) -> bool:
    """Whether a server elsewhere can have artefacts written into a folder here, as MLflow's client would do.

    Args:
        address: The server.
        artifacts: The place of the artefacts, by its word.

    Example:
        >>> is_folder_of("https://mlflow.example", "/home/ada"), is_folder_of("http://localhost:5000", "./mlruns")
        (True, False)
        >>> is_folder_of("https://mlflow.example", "mlflow-artifacts:/1/2"), is_folder_of("sqlite:///a.db", "/a")
        (False, False)
        >>> is_folder_of("https://mlflow.example", "runs:/1/of-another-run")
        True
        >>> is_folder_of("https://127.example", "/home/ada")
        True
    """
    server = urlsplit(address)
    is_elsewhere = server.scheme in ("http", "https") and not is_loopback(server.hostname or "")
    return is_elsewhere and urlsplit(artifacts).scheme in (*LOCAL, *ASKED_FOR)


def _named(name: str) -> str:
    """Returns a name as MLflow takes it: letters, digits, and a few signs."""
    return "".join(sign if sign.isalnum() or sign in "_-. :/" else "_" for sign in name)[:250]
