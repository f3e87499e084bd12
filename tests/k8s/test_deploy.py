"""The make targets for Kubernetes: the lines that they run are kubectl's, and the split in Redis really changes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollout.store import Redis
from tests.conftest import BIN, ROOT
from tests.k8s import kubectl_here
from tests.k8s.rendering import OVERLAYS, containers, kubectl, of_kind, render

TRIAL = ("canary", "MODEL=digits", "VERSION=v2", "SHARE=5%", "WHY=it's smaller")
IMAGE = "registry.example/rollout:0.2.0"


class Cluster:
    """A cluster that runs one overlay, as ``make`` sees it."""

    def __init__(self, folder: Path, overlay: str, **environment: str) -> None:
        self.overlay = overlay
        found_first = kubectl_here.install(folder, kubectl(), overlay)
        self.environment = os.environ | found_first | {"USER": "ada"} | environment

    def run(self, *line: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(line, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("make", "--no-print-directory", *words, f"OVERLAY={self.overlay}")

    def done(self, *words: str) -> list[str]:
        """Makes something that has to work, and returns what was printed of it."""
        made = self.make(*words)
        assert made.returncode == 0, made.stdout + made.stderr
        return made.stdout.splitlines()

    def rollout(self, *words: str) -> str:
        ran = self.run(BIN / "rollout", *words)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    @property
    def split(self) -> dict[str, Any]:
        return dict(json.loads(self.rollout("split", "show", "digits", "--json")))

    @property
    def lines(self) -> list[str]:
        return [shlex.join(line) for line in kubectl_here.lines(self.environment)]


@pytest.fixture
def on(tmp_path: Path) -> Callable[[str], Cluster]:
    return lambda overlay: Cluster(tmp_path, overlay)


@pytest.fixture
def cluster(bundles: str, redis: Redis, valkey_url: str, tmp_path: Path) -> Cluster:
    """A cluster that has a Redis, still empty, and the bundles."""
    return Cluster(tmp_path, "production", ROLLOUT_REDIS_URL=valkey_url, ROLLOUT_HOME=str(tmp_path / "home"))


def test_from_nothing_to_a_canary_a_champion_and_back(cluster: Cluster) -> None:
    early = cluster.make(*TRIAL)
    assert early.returncode
    assert "`rollout split set digits --champion VERSION` makes one" in early.stderr
    cluster.rollout("split", "set", "digits", "--champion", "v1", "--why", "the first split")

    cluster.done(*TRIAL)
    split = cluster.split
    assert (split["champion"], split["challenger"], split["share"]) == ("v1", "v2", 0.05)
    assert (split["why"], split["by"]) == ("it's smaller", "ada")

    cluster.done("canary", "MODEL=digits", "SHARE=20%")
    assert cluster.split["share"] == 0.2

    cluster.done("promote", "MODEL=digits", "WHY=better")
    assert (cluster.split["champion"], cluster.split["challenger"]) == ("v2", None)

    cluster.done("rollback", "MODEL=digits", "WHY=fails on zeros")
    assert (cluster.split["champion"], cluster.split["why"]) == ("v1", "fails on zeros")
    assert cluster.split["revision"] == 5

    again = cluster.make(*TRIAL)
    assert again.returncode
    assert "digits:v2 was rolled back by ada" in again.stderr


def test_what_is_printed_is_what_runs(cluster: Cluster) -> None:
    cluster.rollout("split", "set", "digits", "--champion", "v1", "--challenger", "v2", "--share", "0.1")
    printed = cluster.done("canary", "MODEL=digits", "SHARE=20%", "WHY=don't; rm $HOME `ls`".replace("$", "$$"))
    assert shlex.split(printed[0]) == shlex.split(cluster.lines[-1])
    assert cluster.split["why"] == "don't; rm $HOME `ls`"


@pytest.mark.parametrize(
    ("overlay", "words", "line"),
    [
        ("production", "canary", f"kubectl -n rollout set image deployment/rollout '*={IMAGE}'"),
        ("flagger", "canary", f"kubectl -n rollout set image deployment/rollout '*={IMAGE}'"),
        ("argo-rollouts", "canary", f"kubectl argo rollouts -n rollout set image rollout '*={IMAGE}'"),
        ("argo-rollouts", "promote", "kubectl argo rollouts -n rollout promote rollout"),
        ("argo-rollouts", "rollback", "kubectl argo rollouts -n rollout abort rollout"),
        ("production", "rollback", "kubectl -n rollout rollout undo deployment/rollout"),
        ("flagger", "rollback", "kubectl -n rollout rollout undo deployment/rollout"),
    ],
)
def test_an_image_goes_the_way_of_the_overlay(
    on: Callable[[str], Cluster], overlay: str, words: str, line: str
) -> None:
    cluster = on(overlay)
    assert cluster.done(words, *([f"IMAGE={IMAGE}"] if words == "canary" else []))[0] == line
    assert cluster.lines == [line]


def test_a_new_image_is_that_of_every_container(on: Callable[[str], Cluster], tmp_path: Path) -> None:
    cluster = on("production")
    (deployment,) = of_kind(render("production"), "Deployment")
    file = tmp_path / "deployment.yaml"
    file.write_text(yaml.safe_dump(deployment))
    wanted = shlex.split(cluster.done("-n", "canary", f"IMAGE={IMAGE}")[0])[-1]
    changed = cluster.run(kubectl(), "set", "image", "--local", "-f", file, wanted, "-o", "yaml")
    assert {one["name"]: one["image"] for one in containers(yaml.safe_load(changed.stdout))} == {
        "models": IMAGE,
        "models-follow": IMAGE,
        "rollout": IMAGE,
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_deploying_applies_what_renders(on: Callable[[str], Cluster], overlay: str) -> None:
    cluster = on(overlay)
    cluster.done("deploy")
    image = [
        "docker build --build-arg PIP_EXTRA_INDEX_URL --target demo -t rollout:demo .",
        "kind load docker-image rollout:demo",
    ]
    assert cluster.lines == [
        *(image if overlay == "local" else []),
        "kubectl -n rollout delete job/first-split --ignore-not-found",
        f"kubectl apply -k k8s/overlays/{overlay}",
    ]


def test_the_demo_is_the_image_that_the_local_overlay_runs() -> None:
    (deployment,) = of_kind(render("local"), "Deployment")
    assert {one["image"] for one in containers(deployment)} == {"rollout:demo"}
    assert " AS demo\n" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("canary", "IMAGE is missing"),
        ("canary MODEL=digits", "SHARE is missing"),
        ("canary MODEL=digits VERSION=v2", "SHARE is missing"),
        (f"canary MODEL=digits SHARE=5% IMAGE={IMAGE}", "one at a time"),
        ("promote", "MODEL is missing"),
        ("rollback MODEL=digits", "WHY is missing"),
        ("deploy OVERLAY=prod", "there is no k8s/overlays/prod"),
    ],
)
def test_what_is_missing_is_said_before_anything_runs(
    on: Callable[[str], Cluster], words: str, said: str
) -> None:
    cluster = on("production")
    for dry in ((), ("-n",)):
        refused = cluster.run("make", *dry, *words.split())
        assert refused.returncode
        assert said in refused.stderr
    assert cluster.lines == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_runs_when_make_only_prints(on: Callable[[str], Cluster], overlay: str) -> None:
    cluster = on(overlay)
    for words in (
        TRIAL,
        ("canary", "MODEL=digits", "SHARE=1%"),
        ("deploy",),
        ("rollback",),
        ("promote", "MODEL=m"),
    ):
        assert any("kubectl" in line for line in cluster.done("-n", *words))
    assert cluster.lines == []


@pytest.mark.parametrize(
    "line",
    [
        "kubectl -n rollout exec svc/rollout -c rollout --quick -- true",
        "kubectl -n rollout exec svc/other -- true",
        "kubectl -n rollout exec svc/rollout -c other -- true",
        "kubectl exec svc/rollout -- true",
        "kubectl -n rollout exek svc/rollout -- true",
        "kubectl apply -k k8s/overlays/nowhere",
        "kubectl -n rollout argo rollouts abort rollout",
        "kubectl argo rollouts -n rollout abandon rollout",
        "kubectl argo rollouts -n rollout abort rollout",
    ],
)
def test_the_stand_in_takes_no_more_than_kubectl_and_the_cluster(on: Callable[[str], Cluster], line: str) -> None:
    assert on("production").run(*shlex.split(line)).returncode


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_commands_run_in_a_pod_that_serves(on: Callable[[str], Cluster], overlay: str) -> None:
    cluster = on(overlay)
    line = shlex.split(cluster.done("-n", "rollback", "MODEL=digits", "WHY=it fails")[0])
    ran = cluster.run(*line[: line.index("--") + 1], "echo", "here")
    assert (ran.stdout, ran.returncode) == ("here\n", 0), ran.stderr
