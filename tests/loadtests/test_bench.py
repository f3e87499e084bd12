"""The comparison runs, every request of it is answered, and its verdicts are right. What it measures is no test."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from loadtests.closed_loop import Sample
from loadtests.contenders import BENTOML, CONTENDERS, FASTAPI, FLOOR, MOSEC_ONE, ONE, TWO, Contender
from loadtests.goals import goals
from loadtests.ours import RECIPES, Models
from loadtests.report import render
from loadtests.results import LARGE, SMALL, Closed, Results
from loadtests.servers import StartError
from rollout.training.recipe import load_recipe
from tests.conftest import ROOT, need


@pytest.fixture
def wrk() -> None:
    """The load generator."""
    need("wrk")


@pytest.mark.usefixtures("wrk")
@pytest.mark.timeout(1000)
def test_the_report_is_printed_and_nothing_fails(bundles: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.bench", "--only", "rollout", "--models", SMALL]
    command += ["--rounds", "1", "--seconds", "1", "--store", bundles, "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bench.md").read_text() in done.stdout
    assert "<svg" in (tmp_path / "bench.svg").read_text()
    results = msgspec.json.decode((tmp_path / "bench.json").read_bytes(), type=Results)
    ours = [contender.name for contender in CONTENDERS if contender.is_ours]
    assert [run.contender for run in results.closed if run.connections == 1] == ours
    assert [run.contender for run in results.open] == ours[1:]
    for sample in [run.sample for run in results.closed]:
        assert sample.predictions > 0
        assert sample.failures == 0
    for arrivals in [run.arrivals for run in results.open]:
        assert arrivals.failures == 0
    on, off = results.counted.values()
    assert min(on.values()) > 0
    assert max(off.values()) == 0
    assert len(results.workers) == 2
    assert not any(worker.has_torch for worker in results.workers)
    assert not results.absent


def test_without_a_store_a_trial_of_equals_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[tuple[str, ...]] = []

    def run(_: Models, *arguments: str, home: Path) -> None:
        assert home.is_relative_to(tmp_path)
        built.append(arguments)

    monkeypatch.setattr(Models, "_run", run)
    for model, place in RECIPES.items():
        recipe = load_recipe(ROOT / place)
        first, second = recipe.versions.values()
        assert (recipe.name, first) == (model, second)
        Models(tmp_path).build(model)
    assert built == [("build", place) for place in RECIPES.values()]


def sample(rate: float, p50_ms: float = 1.0, cpu_us: float = 100.0) -> Sample:
    return Sample(requests=int(rate), seconds=1, p50_ms=p50_ms, p99_ms=2, failures=0, cpu_s=rate * cpu_us / 1e6)


def test_goals_are_reached_missed_or_not_measured() -> None:
    results = Results("a machine", rounds=3)
    for contender, rates, cpu_us in (
        (ONE, (8000, 10_000, 9000), 28.0),  # the median counts, whatever the order
        (MOSEC_ONE, (1800, 1700, 1600), 60.0),
        (BENTOML, (500, 500, 500), 600.0),
        (FLOOR, (90_000, 90_000, 90_000), 5.5),
    ):
        results.closed += [Closed(SMALL, contender.name, 32, sample(rate, cpu_us=cpu_us)) for rate in rates]
    for contender, p50_ms in ((TWO, 0.25), (FASTAPI, 0.4)):
        results.closed.append(Closed(SMALL, contender.name, 1, sample(1000, p50_ms)))
    found = {f"{goal.what}: {goal.wanted}": (goal.verdict, goal.found) for goal in goals(results)}
    of_32 = "CPU a request, 32 connections, one worker"
    assert found[f"{of_32}: ≤ 30 µs and ≤ 5 × a constant answer's"] == ("missed", "28 µs, 5.1 × 5.5 µs")
    assert found[f"{of_32}: bare BentoML's ≥ 25 × ours"] == ("missed", "21.43")
    assert found["one row of JSON, small model, 32 connections, one worker: ≥ 5 × mosec"] == ("reached", "5.29")
    first = "p50 at 1 connection, small model: ≤ 0.12 ms, or 0.6 of FastAPI's"
    assert found[first] == ("missed", "0.25 ms, 0.62 of FastAPI's")
    assert found["p99 at 32 connections, two workers: ≤ mosec's"] == ("not measured", None)


def test_a_contender_that_does_not_start_is_in_the_report_with_its_reason(tmp_path: Path) -> None:
    class NoModels(Models):
        def home(self, model: str, share: float, shadow: float) -> dict[str, str]:
            return {}

    absent = Contender("a server", "rollout", ("sh", "-c", "echo an error nobody expected; exit 1"), "/predict")
    with pytest.raises(StartError) as error, absent.running(NoModels(tmp_path / "home"), LARGE, tmp_path):
        pass
    assert str(error.value) == "ends at once; an error nobody expected"
    report = render(Results("a machine", absent={absent.name: str(error.value)}))
    assert re.search(r"^\| a server \| ends at once; an error nobody expected \|$", report, re.M)
