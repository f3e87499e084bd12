"""``make rehearse``: what happens to a deployed service in a year, within minutes and under constant load.

Three replicas of ``rollout serve`` stand behind HAProxy. What the kubelet and the controllers of a cluster do is
done here, with the figures of ``k8s/base``: probes, endpoints, preStop, SIGTERM, SIGKILL. Each answer is checked:
none fails, each client gets the arm that the split gives it, each promised review item is there in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from multiprocessing import get_context
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import click

from loadtests.callers import CLIENT, KEY, MODEL, UNTIL_TOLD, Part, send, share_progress
from loadtests.deployment import Deployment
from loadtests.fleet import Environment, Valkey, run
from loadtests.kubelet import Image
from loadtests.manifest import Manifest, read_manifest
from loadtests.ours import BIN, RECIPES
from loadtests.proxy import AGAIN, API, FRONT, IS_UP, REDIS, Endpoints
from loadtests.rehearsal_report import Outcome, markdown, show
from loadtests.rehearsal_steps import PATIENCE_S, REPLICAS, Rehearsal
from loadtests.servers import ROOT, StartError, free_port, running
from rollout.__about__ import __version__
from rollout.keys import Keys
from rollout.review.item import item_id
from rollout.routing.splits import read_history
from rollout.store import connect, guard

# A pod that gets ready and dies is not rehearsed; waiting for one would take half of the time.
MIN_READY_S = 2.0
CLIENTS = 2000
CONNECTIONS = 64
RESULTS = ROOT / "loadtests" / "results" / "rehearsal"


class Stage(NamedTuple):
    """Where it takes place.

    Attributes:
        folder: For everything that is written.
        environment: Where the bundles and Redis are.
        valkeys: The primary Redis and its replica.
        api: Where the proxy takes commands.
        port: Where it takes requests.
        manifest: What is deployed.
        pool: One process, which sends the load.
        enough: Tells it to stop.
    """

    folder: Path
    environment: Environment
    valkeys: tuple[Valkey, Valkey]
    api: Path
    port: int
    manifest: Manifest
    pool: Pool
    enough: Event


@click.command()
@click.option("--rate", default=150.0, show_default=True, help="Requests a second.")
@click.option("--faster", default=1.0, show_default=True, help="Divides what is only waited for.")
@click.option("--store", type=click.Path(path_type=Path), help="Bundle store with digits; built by default.")
@click.option("--results", "folder", default=RESULTS, type=click.Path(path_type=Path))
def main(rate: float, faster: float, store: Path | None, folder: Path) -> None:
    """Rehearses what a cluster does to the service, under load, and tells what is wrong."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    manifest = read_manifest().faster(faster)
    manifest = manifest._replace(min_ready_s=min(MIN_READY_S, manifest.min_ready_s))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        stage = _set(stack, folder.resolve(), store, manifest)
        outcome = asyncio.run(_play(stage, rate, faster))
    (folder / "table.md").write_text(markdown(outcome))
    sys.exit(show(outcome))


def _set(stack: contextlib.ExitStack, folder: Path, store: Path | None, manifest: Manifest) -> Stage:
    """Starts everything but the replicas and the load."""
    context = get_context("fork")  # a new process would first import torch, for the images
    enough = context.Event()
    pool = stack.enter_context(context.Pool(1, share_progress, (context.Array("q", 1), enough)))
    valkeys = Valkey(folder / "valkey-1"), Valkey(folder / "valkey-2")
    environment = {
        "BENTOML_HOME": str((store or folder / "bentoml").resolve()),
        "BENTOML_DO_NOT_TRACK": "True",
        "ROLLOUT_HOME": str(folder / "home"),
        "ROLLOUT_REDIS_URL": valkeys[0].url,
    }
    if store is None:
        run(environment, "build", RECIPES[MODEL])
    for valkey, primary in zip(valkeys, (None, valkeys[0]), strict=True):
        stack.callback(valkey.kill)
        valkey.start(primary)
    run(environment, "split", "set", MODEL, "--champion", "v1", "--challenger", "v2", "--share", "10%")
    api = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "api"  # the path of a socket must be short
    redis_port = free_port()
    config = folder / "haproxy.cfg"
    servers = "".join(f"    server valkey-{n} 127.0.0.1:{one.port}\n" for n, one in enumerate(valkeys, start=1))
    config.write_text(API.format(api) + FRONT + AGAIN + REDIS.format(redis_port) + servers)
    command = ("haproxy", "-db", "-q", "-f", str(config))
    front = stack.enter_context(running(command, {}, IS_UP, folder / "haproxy.log"))
    environment["ROLLOUT_REDIS_URL"] = f"redis://127.0.0.1:{redis_port}/0"
    port = urlsplit(front.url).port or 0
    return Stage(folder, environment, valkeys, api, port, manifest, pool, enough)


async def _play(stage: Stage, rate: float, faster: float) -> Outcome:
    """Takes every step under load, then looks at what became of it."""
    images = _image(stage.folder, __version__), _image(stage.folder, f"{__version__}+next")
    others = {name: value for name, value in os.environ.items() if not name.startswith("ROLLOUT_")}
    environment = others | stage.environment | {"ROLLOUT_WORKERS": "1"}
    endpoints = Endpoints(stage.api)
    deployment = Deployment(stage.manifest, stage.folder, environment, endpoints, images[0])
    try:
        deployment.want(replicas=REPLICAS)
        if not await deployment.settle(PATIENCE_S):
            raise StartError(
                f"the replicas are not ready after {PATIENCE_S:.0f} s; {stage.folder}/pod-1.log says why"
            )
        part = Part(0, range(CLIENTS), UNTIL_TOLD, rate, stage.port, CONNECTIONS, keyed=True)
        sending = stage.pool.apply_async(send, (part,))
        rehearsal = Rehearsal(deployment, endpoints, stage.valkeys, stage.environment, images, faster)
        outcome = await rehearsal.run()
        stage.enough.set()
        outcome.tally = await asyncio.to_thread(sending.get)
        await _look_into_redis(outcome, stage.environment["ROLLOUT_REDIS_URL"])
    finally:
        await deployment.end()
    return outcome


def _image(folder: Path, version: str) -> Image:
    """Makes a copy of the code, which answers as another version."""
    folder = folder / "images" / version
    for source in ("src/rollout", "service"):
        shutil.copytree(ROOT / source, folder / source, ignore=shutil.ignore_patterns("__pycache__"))
    about = folder / "src" / "rollout" / "__about__.py"
    about.write_text(about.read_text().replace(__version__, version))
    return Image(version, folder, (str(BIN / "rollout"), "serve"), {"PYTHONPATH": str(folder / "src")})


async def _look_into_redis(outcome: Outcome, url: str) -> None:
    """Reads the splits, and which review items are not there although somebody was told so."""
    async with contextlib.aclosing(await connect(url)) as redis:
        outcome.splits = {split.revision: split for split in await read_history(redis, MODEL)}
        promises = outcome.tally.promises
        for promise in promises:
            client, key = CLIENT.format(promise.client), KEY.format(promise.number)
            async with guard():
                if not await redis.exists(Keys(MODEL).review(item_id(client, key, b""))):
                    outcome.missing.append(promise)
    if outcome.failover is not None:
        queued = sum(one.fate == "queued" and one.at < outcome.failover.start for one in promises)
        deferred = sum(one.fate == "deferred" for one in promises)
        outcome.failover.found += (
            f"; {queued:,} review items queued before, {deferred:,} deferred, {len(outcome.missing):,} lost"
        )


if __name__ == "__main__":
    main()
