"""A rehearsal, small: everything that a cluster does, under load; what would be noticed; and is the cluster a true one."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from loadtests.callers import CLIENT, Failure, Promise, Seen, Tally
from loadtests.deployment import Deployment
from loadtests.kubelet import Image, Phase, Pod
from loadtests.manifest import Manifest, Probe, read_manifest
from loadtests.proxy import Endpoints
from loadtests.rehearsal_report import Outcome, Step, faults, markdown, show
from rollout.cli.serve import DRAIN_S
from rollout.routing.assignment import assign
from rollout.routing.split import Split
from tests.conftest import ROOT

PLANNED = ("a new image", "from 3 to 1", "fails over", "never gets ready", "to 50 %")


@pytest.mark.usefixtures("haproxy")
@pytest.mark.timeout(500)
def test_what_a_cluster_does_costs_no_request(bundles: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.rehearsal", "--rate", "60", "--faster", "3"]
    command += ["--store", bundles, "--results", str(tmp_path / "rehearsal")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=420)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing is wrong." in done.stdout
    table = (tmp_path / "rehearsal" / "table.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert len(rows) == 8
    for what, requests, failed, sent_again, *_ in rows:
        assert int(requests.replace(",", "")) > 60, what
        assert failed == "0", what
        assert int(sent_again) == 0 or "a node" in what
    found = {what: came for what, *_, came in rows}
    assert all(any(part in what for what in found) for part in PLANNED)
    assert "3 replicas of 0.1.0+next" in found["all replicas get a new image"]
    deferred = re.search(
        r"(\d+) review items queued before, (\d+) deferred", found["Redis fails over to its replica"]
    )
    assert deferred is not None
    assert min(map(int, deferred.groups())) > 0, "Redis was gone, and somebody noticed"


def test_the_manifest_gives_the_service_time_to_drain() -> None:
    manifest = read_manifest()
    needed = manifest.pre_stop_s + float(manifest.environment["ROLLOUT_GRACE_S"]) + DRAIN_S
    assert needed < manifest.grace_s
    faster = manifest.faster(5)
    assert (faster.pre_stop_s, faster.readiness.timeout_s) == (
        manifest.pre_stop_s / 5,
        manifest.readiness.timeout_s,
    )
    assert float(faster.environment["ROLLOUT_GRACE_S"]) == float(manifest.environment["ROLLOUT_GRACE_S"]) / 5


@pytest.fixture
def outcome() -> Outcome:
    """A rehearsal of two steps in which nothing is wrong: each client asked ten times under each of two revisions."""
    splits = {
        revision: Split(revision=revision, champion="v1", challenger="v2", share=share, experiment="digits-v1-v2")
        for revision, share in ((1, 0.1), (2, 0.5))
    }
    seen: Counter[Seen] = Counter()
    for revision, split in splits.items():
        for client in range(50):
            arm, version, *_ = assign(split, CLIENT.format(client))
            seen[Seen(client, revision, arm, version)] = 10
    due = [10 + number / 100 for number in range(1000)]
    tally = Tally(
        seen=seen,
        spans={1: (10.0, 16.5), 2: (15.0, 20.0)},
        due=array("d", due),
        seconds=array("d", [0.01] * 999 + [0.5]),
        start=10.0,
        end=20.5,
    )
    steps = [Step("roll", 10.1, took=4.0, found="all new"), Step("fail over", 15.0, took=5.0, sent_again=0)]
    return Outcome(steps=steps, tally=tally, splits=splits, failover=steps[1])


def test_a_rehearsal_in_which_nothing_is_wrong(outcome: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    assert not show(outcome)
    assert "Nothing is wrong." in capsys.readouterr().out
    assert markdown(outcome).splitlines()[2:] == [
        "| roll | 499 | 0 | 0 | 10 ms | 4 s | all new |",
        "| fail over | 501 | 0 | 0 | 500 ms | 5 s |  |",
    ]


def test_a_failed_request_is_counted_where_it_failed(
    outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome.tally.failures += [Failure(14.9, "502"), Failure(15.1, "503"), Failure(15.2, "503")]
    assert show(outcome)
    assert "✗ fail over: 2 requests failed: 503" in capsys.readouterr().out
    assert faults(outcome) == ["roll: 1 requests failed: 502", "fail over: 2 requests failed: 503"]


def test_only_what_was_lost_with_a_node_may_be_sent_again(outcome: Outcome) -> None:
    outcome.steps[0].sent_again = outcome.steps[1].sent_again = 3
    outcome.steps[1].planned = False
    assert faults(outcome) == ["roll: 3 requests had to be sent again"]


def test_clients_that_change_sides_are_noticed(outcome: Outcome) -> None:
    one = next(one for one in outcome.tally.seen if one.arm == "challenger")
    outcome.tally.seen[one._replace(arm="control")] = 2
    outcome.tally.seen[one._replace(version=None)] = 2
    assert faults(outcome) == [
        "1 times a client saw two arms under one revision",
        "2 answers came from another arm or version than the split says",
    ]


def test_a_promise_that_was_not_kept_is_noticed_unless_the_replica_could_not_know(outcome: Outcome) -> None:
    outcome.missing = [Promise(14.5, 1, 1, "queued")]
    assert faults(outcome) == []
    outcome.missing += [Promise(13.9, 2, 2, "queued"), Promise(16.5, 3, 3, "deferred")]
    assert faults(outcome) == ["2 promised review items are not in Redis, and no failover explains it"]
    outcome.failover = None
    assert faults(outcome) == ["3 promised review items are not in Redis, and no failover explains it"]


def test_a_split_that_is_followed_late_or_never_is_noticed(outcome: Outcome) -> None:
    outcome.tally.spans[1] = (10.0, 17.5)
    outcome.splits[3] = outcome.splits[2]
    assert faults(outcome) == [
        "revision 3 was never seen",
        "revision 1 was still seen 2.5 s after revision 2",
    ]


def test_a_step_without_requests_is_noticed_and_so_is_what_the_steps_say(outcome: Outcome) -> None:
    outcome.steps.append(Step("later", 30.0))
    outcome.noticed.append("pod-1 had to be killed")
    assert faults(outcome) == ["pod-1 had to be killed", "later: no request was sent"]


# A container in small: ready at once, says no to a probe while there is a file of its name, and notes what it gets.
SERVER = """
import http.server, os, signal, sys, time
name, slow, home = sys.argv[1], float(sys.argv[2]), os.environ["ROLLOUT_HOME"]
def end(*_):
    open(home + "/terminated", "w").write(str(time.monotonic()))
    time.sleep(slow)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
open(home + "/starts", "a").write(name)
if name == "broken":
    sys.exit(1)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if os.path.exists(home + self.path) else 200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["ROLLOUT_PORT"])), Handler).serve_forever()
"""
ASK = Probe("/readyz", 0.05, 1, 2)
QUICK = Manifest({}, ASK._replace(failures=200), ASK, ASK._replace(path="/livez"), 1.2, 3, 1, 0, 0.1)


def image(name: str, slow: float = 0) -> Image:
    return Image(name, ROOT, (sys.executable, "-c", SERVER, name, str(slow)))


async def until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    give_up = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def one_pod(folder: Path, of: Image, manifest: Manifest = QUICK) -> AsyncIterator[tuple[Pod, list[Phase]]]:
    phases: list[Phase] = []
    pod = Pod("pod-1", of, manifest, folder, {}, lambda pod: phases.append(pod.phase))
    try:
        yield pod, phases
    finally:
        if pod.phase is not Phase.GONE:
            pod.vanish()
        await pod.wait()


async def test_a_deleted_pod_leaves_the_endpoints_before_it_is_told(tmp_path: Path) -> None:
    async with one_pod(tmp_path, image("good")) as (pod, phases):
        await until(lambda: pod.is_ready)
        deleted_at = time.monotonic()
        pod.delete()
        assert phases == [Phase.LIVING, Phase.TERMINATING]
        await until(lambda: pod.phase is Phase.GONE)
        told_at = float((tmp_path / "pod-1" / "terminated").read_text())
        assert told_at - deleted_at >= QUICK.pre_stop_s
        assert pod.faults == []


async def test_a_pod_that_overruns_its_grace_is_killed_and_that_is_a_fault(tmp_path: Path) -> None:
    async with one_pod(tmp_path, image("slow", 60)) as (pod, _):
        await until(lambda: pod.is_ready)
        pod.delete()
        await until(lambda: pod.phase is Phase.GONE)
        assert pod.faults == ["pod-1 had to be killed, 3 s after its deletion"]


async def test_a_container_that_ends_is_started_again(tmp_path: Path) -> None:
    async with one_pod(tmp_path, image("broken")) as (pod, _):
        starts = tmp_path / "pod-1" / "starts"
        await until(lambda: pod.restarts >= 1 and starts.read_text().startswith("broken" * 2))
        assert not pod.is_ready


async def test_readiness_takes_a_pod_out_and_liveness_starts_it_again(tmp_path: Path) -> None:
    async with one_pod(tmp_path, image("good")) as (pod, _):
        await until(lambda: pod.is_ready)
        (tmp_path / "pod-1" / "readyz").touch()
        await until(lambda: not pod.is_ready)
        (tmp_path / "pod-1" / "readyz").unlink()
        await until(lambda: pod.is_ready)
        assert pod.restarts == 0
        (tmp_path / "pod-1" / "livez").touch()
        await until(lambda: pod.restarts >= 1)
        assert (tmp_path / "pod-1" / "terminated").exists()


class Told(Endpoints):
    """Notes what a proxy would be told."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        self.commands: list[str] = []

    async def _tell(self, command: str) -> str:
        self.commands.append(command)
        return ""


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[tuple[Deployment, Told]]:
    """Three replicas that are ready."""
    told = Told()
    deployment = Deployment(QUICK, tmp_path, {}, told, image("good"))
    deployment.want(replicas=3)
    assert await deployment.settle(20)
    yield deployment, told
    await deployment.end()


async def test_a_new_image_comes_one_by_one_and_capacity_never_falls(deployment: tuple[Deployment, Told]) -> None:
    pods, told = deployment
    counts = []
    pods.want(image=image("better"))

    async def watch() -> None:
        while True:
            counts.append((len(pods.ready), len(pods.living)))
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    assert await pods.settle(20)
    watching.cancel()
    assert {pod.image.version for pod in pods.ready} == {"better"}
    assert min(counts)[0] >= 3
    assert max(living for _, living in counts) == 4
    for name in ("pod-1", "pod-2", "pod-3"):
        mine = [command for command in told.commands if f"/{name} " in f"{command} "]
        assert [command.split()[0] for command in mine] == ["add", "enable", "enable", "set", "set"]
        assert [command.split()[-1] for command in mine[3:]] == ["drain", "maint"]


async def test_an_image_that_never_gets_ready_stalls_and_is_undone(deployment: tuple[Deployment, Told]) -> None:
    pods, _ = deployment
    good = pods.ready
    pods.want(image=image("broken"))
    assert not await pods.settle(1.5)
    assert pods.ready == good
    assert len(pods.living) == 4
    pods.want(image=good[0].image)
    assert await pods.settle(20)
    assert pods.living == good


async def test_replicas_come_and_go_and_a_lost_one_is_replaced(deployment: tuple[Deployment, Told]) -> None:
    pods, told = deployment
    pods.want(replicas=1)
    assert await pods.settle(20)
    assert len(pods.living) == 1
    pods.want(replicas=2)
    assert await pods.settle(20)
    lost = pods.ready[0]
    lost.die(signal.SIGKILL)
    await asyncio.sleep(0.5)
    assert lost in pods.ready, "nobody is there to say that it is not"
    lost.vanish()
    assert await pods.settle(20)
    assert len(pods.ready) == 2
    assert lost not in pods.ready
    assert told.commands.count(f"set server replicas/{lost.name} state maint") == 1
