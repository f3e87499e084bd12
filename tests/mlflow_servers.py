"""A real MLflow server, and what a test reads there over its REST API."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import BIN, free_port

API = "/api/2.0/mlflow"


class Mlflow:
    """A client of a server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **wanted: Any) -> dict[str, Any]:
        return self._ask("GET", path, params=wanted)

    def post(self, path: str, **wanted: Any) -> dict[str, Any]:
        return self._ask("POST", path, json=wanted)

    def delete(self, path: str, **wanted: Any) -> dict[str, Any]:
        return self._ask("DELETE", path, json=wanted)

    def _ask(self, method: str, path: str, **what: Any) -> dict[str, Any]:
        answer = httpx.request(method, f"{self.url}{API}/{path}", timeout=60, **what)
        return dict(answer.raise_for_status().json())

    def runs(self, experiment: str) -> list[dict[str, Any]]:
        """The runs of an experiment, the last one first."""
        found = self.get("experiments/get-by-name", experiment_name=experiment)["experiment"]["experiment_id"]
        runs: list[dict[str, Any]] = self.post("runs/search", experiment_ids=[found]).get("runs", [])
        return runs

    def steps(self, run: str, metric: str) -> list[int]:
        """The steps at which a run has a metric, as they were told."""
        history = self.get("metrics/get-history", run_id=run, metric_key=metric)["metrics"]
        return [each["step"] for each in history]

    def files(self, run: str) -> set[str]:
        """The names of its artefacts."""
        return {each["path"] for each in self.get("artifacts/list", run_id=run)["files"]}

    def versions(self, model: str) -> list[dict[str, Any]]:
        """The versions of a registered model."""
        wanted = {"filter": f"name = '{model}'"}
        found: list[dict[str, Any]] = self.get("model-versions/search", **wanted).get("model_versions", [])
        return found

    def aliases(self, model: str) -> dict[str, str]:
        """The versions that its aliases name."""
        found = self.get("registered-models/get", name=model)["registered_model"]
        return {each["alias"]: each["version"] for each in found.get("aliases", [])}


def by_name(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Params, tags or metrics as a dictionary."""
    return {each["key"]: each["value"] for each in entries}


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[Mlflow]:
    """Starts a server on a free port; it keeps what it is told in a folder."""
    port = free_port()
    command = [str(BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        f"{folder}/files",
    ]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    # Eight more processes for jobs that nobody sends, and that never rest.
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    server = Mlflow(f"http://127.0.0.1:{port}")
    try:
        deadline = time.monotonic() + 180
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{server.url}/health").status_code == 200:
                    break
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "MLflow does not answer"
            time.sleep(0.1)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
