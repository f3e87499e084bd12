"""Realistic users, against a service that really runs: nothing fails, and nobody changes sides."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Service, run_service, set_split


@pytest.fixture(scope="module")
def trial(bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service in the midst of a trial, with half of the clients on either version."""
    home: Path = tmp_path_factory.mktemp("load")
    set_split(home, "--champion", "v1", "--challenger", "v2", "--share", "0.5")
    with run_service(home, ROLLOUT_TIMEOUT_MS="10000") as running:  # whatever else runs here
        yield running


def locust(host: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--host", host, "--headless"]
    return subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


def test_every_kind_of_user_is_answered_and_none_of_them_fails(trial: Service) -> None:
    done = locust(trial.base, "--users", "22", "--spawn-rate", "11", "--run-time", "30s", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    failures = {one["name"]: one["num_failures"] for one in found if one["num_failures"]}
    assert not failures, done.stderr
    for kind in (
        "steady: predict 1",
        "steady: assignment",
        "bursty: predict 1",
        "bursty: predict 64",
        "rubbish: ",
    ):
        assert sum(one["num_requests"] for one in found if one["name"].startswith(kind)) > 0, kind


def test_load_goes_to_this_machine_only() -> None:
    done = locust("http://192.0.2.1:3000", "--users", "1", "--run-time", "5s", "--json")
    assert done.returncode == 1
    assert "load goes to loopback only" in done.stderr
    assert json.loads(done.stdout) == []
