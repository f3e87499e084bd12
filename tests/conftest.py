"""What the tests share: a store with the demo's bundles, a real Valkey, the real service on a real port."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from filelock import FileLock
from hypothesis import settings
from redis import Redis as AnySyncRedis
from redis.asyncio import Redis as AnyRedis

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
STORE = tempfile.mkdtemp(prefix="rollout-test-store-")
# What is built once for all processes that run tests; each has a store of its own with a copy.
IS_SHARED = "TEST_SHARED_BUNDLES" in os.environ  # with other runs, too; then somebody else removes it
SHARED = Path(os.environ.setdefault("TEST_SHARED_BUNDLES", tempfile.mkdtemp(prefix="rollout-test-shared-")))
# A metric that is the same in so many looks, a flush apart, has settled.
LOOKS = 5
# What a test needs beside what Rollout needs.
TO_LOOK = ("+keys", "+type", "+ttl", "+pttl", "+xlen", "+hkeys", "+copy", "+config", "+flushall")
# Python is started hundreds of times: what is compiled once stays compiled, whatever the environment says.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Every client would read the certificates of the whole world, which takes as long as some tests.
httpx._transports.default.create_ssl_context = functools.cache(httpx._config.create_ssl_context)  # type: ignore[attr-defined]
# How long an example takes says how busy the machine is.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
# BentoML reads this when it is imported.
os.environ["BENTOML_HOME"] = STORE
os.environ["BENTOML_DO_NOT_TRACK"] = "True"

from rollout.config import Settings  # noqa: E402
from rollout.embedded import running_redis  # noqa: E402
from rollout.metrics import FLUSH_EVERY_S  # noqa: E402
from rollout.store import Redis, connect  # noqa: E402
from tests.commands import rollout  # noqa: E402
from tests.running import (  # noqa: E402, F401  # hooks, and a fixture for every test
    _no_process,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_ignore_collect,
    pytest_unconfigure,
    pytest_xdist_make_scheduler,
)


@pytest.fixture(scope="session")
def bundles() -> Iterator[str]:
    """The store with ``digits:v1`` and ``digits:v2``, built by the command that a user would run."""
    build("digits")
    yield STORE
    shutil.rmtree(STORE)


@pytest.fixture(scope="session")
def more_bundles(bundles: str) -> str:
    """The same store with ``languages`` and ``departures`` as well, ``v1`` and ``v2`` of each."""
    for model in ("languages", "departures"):
        build(model)
    return bundles


def build(model: str) -> None:
    """Builds the versions of a model once for all processes, and copies them into this one's store."""
    store = built(model)
    for place in ("models", "packed"):
        shutil.copytree(store / place / model, Path(STORE) / place / model, dirs_exist_ok=True)


def built(model: str, tree: Path = ROOT, name: str = "") -> Path:
    """Returns a store with the versions of a model as a tree has them, built once for all processes.

    Args:
        model: The model.
        tree: Where its recipe is.
        name: What the tree's own versions are known by; without one, they are those of this tree.
    """
    store = SHARED / (name or model)
    with FileLock(f"{store}.lock"):
        if not (store / "models" / model / "latest").exists():
            environment = os.environ | {"BENTOML_HOME": str(store), "ROLLOUT_HOME": str(store / "home")}
            subprocess.run([BIN / "rollout", "build", f"models/{model}"], cwd=tree, env=environment, check=True)
    return store


@pytest.fixture(scope="session")
def redis_acl() -> str:
    """The ACL user of REFERENCE.md, as a server's configuration has it; ``{}`` stands for the password."""
    (rules,) = re.findall("```acl\n(.*?)```", (ROOT / "REFERENCE.md").read_text(), re.DOTALL)
    return " ".join(rules.split()).replace("PASSWORD", "{}")


@pytest.fixture(scope="session")
def valkey_admin_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey for the whole session, for a user who may do everything."""
    with running_redis(Settings(home=tmp_path_factory.mktemp("valkey"))) as url:
        yield url


@pytest.fixture(scope="session")
def valkey_url(valkey_admin_url: str, redis_acl: str) -> str:
    """The same for the ACL user of REFERENCE.md: whatever is tested here can be done by that user."""
    _, name, *rules = redis_acl.format("secret").split()
    with AnySyncRedis.from_url(valkey_admin_url) as admin:
        admin.execute_command("ACL", "SETUSER", name, *rules)
        admin.execute_command("ACL", "SETUSER", "test", *rules, *TO_LOOK)
    return valkey_admin_url.replace("unix://", f"unix://{name}:secret@")


@pytest.fixture
async def redis(valkey_url: str, valkey_admin_url: str) -> AsyncIterator[Redis]:
    """A connection to an empty Valkey, for a user who may look at a little more."""
    async with AnyRedis.from_url(valkey_admin_url, socket_timeout=30) as patient:
        await patient.flushall()  # a busy disk may take seconds for it
    client = await connect(valkey_url.replace("rollout:", "test:"))
    yield client
    await client.aclose()


def need(program: str, package: str = "") -> None:
    """Installs a program where that is allowed; without it CI fails and others are told."""
    command = [str(ROOT / "scripts" / "need"), program, *([package] if package else [])]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        assert "CI" not in os.environ, found.stderr
        pytest.skip(found.stderr.strip())


class Service:
    """A running service and the files that it leaves."""

    def __init__(self, process: subprocess.Popen[bytes], base: str, home: Path, log: Path) -> None:
        self.process = process
        self.base = base
        self.home = home
        self.log = log

    @property
    def token(self) -> str:
        """The admin token."""
        return (self.home / "token").read_text().strip()

    def client(self, **options: Any) -> httpx.Client:
        """Returns a client of this service."""
        return httpx.Client(base_url=self.base, timeout=30, **options)

    def admin(self) -> httpx.Client:
        """Returns a client with the admin token."""
        return self.client(headers={"Authorization": f"Bearer {self.token}"})

    def metric(self, name: str, *labels: str) -> float:
        """Adds up the samples of a metric that have these labels."""
        with self.client() as client:
            return metric(client, name, *labels)

    def workers(self) -> list[psutil.Process]:
        """Returns the worker processes of `rollout serve`: one child of its own is what they are forked from."""
        found: list[psutil.Process] = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie has no command line
                if "multiprocessing.forkserver" in " ".join(child.cmdline()):
                    found += child.children()
        return [one for one in found if one.status() != psutil.STATUS_ZOMBIE]

    def stop(self) -> int:
        """Sends SIGTERM and returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def metric(client: httpx.Client, name: str, *labels: str) -> float:
    """Adds up the samples of a metric that have these labels."""
    return sum(
        float(line.split()[-1])
        for line in client.get("/metrics").text.splitlines()
        if line.startswith(f"{name}{{") and all(label in line for label in labels)
    )


def settled(client: httpx.Client, name: str, *labels: str) -> float:
    """Returns a metric once it stays as it is: workers write what they count a few times a second."""
    give_up, found = time.monotonic() + 60, [metric(client, name, *labels)]
    while len(found) < LOOKS or len(set(found[-LOOKS:])) > 1:
        assert time.monotonic() < give_up, f"{name} is {found}"
        time.sleep(FLUSH_EVERY_S)
        found.append(metric(client, name, *labels))
    return found[-1]


def wait_for_metric(client: httpx.Client, least: float, name: str, *labels: str) -> None:
    """Waits until a metric is so high."""
    give_up = time.monotonic() + 60
    while (found := metric(client, name, *labels)) < least:
        assert time.monotonic() < give_up, f"{name} is {found}, not {least}"
        time.sleep(0.1)


def wait_for_text(log: Path, text: str, seconds: float = 180) -> None:
    """Waits until a log has a text."""
    give_up = time.monotonic() + seconds
    while text not in log.read_text():
        assert time.monotonic() < give_up, log.read_text()
        time.sleep(0.05)


def free_port() -> int:
    """Returns a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_ready(base: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 240) -> None:
    """Waits until ``/readyz`` says yes."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{base}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"not ready:\n{log.read_text()}")


@contextlib.contextmanager
def run_service(home: Path, command: list[str] | None = None, **environment: str) -> Iterator[Service]:
    """Runs ``rollout serve``, or another command, on a free port until the block ends."""
    port = free_port()
    log = home / "service.log"
    home.mkdir(parents=True, exist_ok=True)
    command = command or [str(BIN / "rollout"), "serve", "--port", "{port}"]
    with log.open("a") as file:
        process = subprocess.Popen(
            [part.format(port=port) for part in command],
            cwd=ROOT,
            env=os.environ
            | {"ROLLOUT_HOME": str(home), "ROLLOUT_GRACE_S": "0", "ROLLOUT_WORKERS": "2"}
            | environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    service = Service(process, f"http://127.0.0.1:{port}", home, log)
    try:
        wait_ready(service.base, process, log)
        yield service
    finally:
        if process.poll() is None:
            service.stop()


def set_split(home: Path, *options: str, model: str = "digits", **environment: str) -> None:
    """Runs ``rollout split set``."""
    everything = os.environ | {"ROLLOUT_HOME": str(home)} | environment
    done = rollout("split", "set", model, *options, "--yes", environment=everything)
    assert done.returncode == 0, done.stderr


TRIAL = ("--champion", "v1", "--challenger", "v2", "--share", "0.1")


@pytest.fixture(scope="session")
def service(bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service as the demo runs it: v1 champion, v2 at 10 %, two workers, its own Valkey."""
    home = tmp_path_factory.mktemp("service")
    set_split(home, *TRIAL)
    with run_service(home) as running:
        yield running


@pytest.fixture(scope="session")
def predict(service: Service) -> Iterator[Callable[..., httpx.Response]]:
    """Calls predict on the running service."""
    with service.client() as client:

        def call(body: Any, model: str = "digits", **options: Any) -> httpx.Response:
            return client.post(f"/v1/models/{model}/predict", json=body, **options)

        yield call
