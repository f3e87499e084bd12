"""A service to be fuzzed: the demo's, with gRPC, on ports of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from models.digits import data

OTHERS = ("arrivals", "speech")  # of several heads, and of sounds
LAST_LINES, MOST_LINES = 20, 200
BIN = Path(sys.executable).parent


class Target(NamedTuple):
    """Where a service is.

    Attributes:
        host: Its address.
        port: Of HTTP.
        grpc_port: Of gRPC.
        token: The admin's.
        pid: Of its first process.
        image: What its model takes, 32×32 numbers from 0 to 255.
    """

    host: str
    port: int
    grpc_port: int
    token: str
    pid: int
    image: list[list[int]]


@contextlib.contextmanager
def fuzzed_service(store: str | None = None) -> Iterator[Target]:
    """Serves ``digits`` with a trial until the block ends, and two other kinds of models if the store has them.

    Args:
        store: A store that has its bundles; built anew without one.
    """
    with tempfile.TemporaryDirectory(prefix="rollout-fuzz-") as folder:
        home = Path(folder) / "home"
        port, grpc_port = _free_port(), _free_port()
        environment = os.environ | {
            "ROLLOUT_HOME": str(home),
            "ROLLOUT_GRPC_PORT": str(grpc_port),
            "ROLLOUT_GRACE_S": "0",
            "ROLLOUT_EXPLAIN_TIMEOUT_S": "10",
            "BENTOML_HOME": store or str(Path(folder) / "store"),
        }
        rollout = str(BIN / "rollout")
        if store is None:
            for model, *version in (("digits",), *((other, "v1") for other in OTHERS)):
                subprocess.run([rollout, "build", f"models/{model}", *version], env=environment, check=True)
        for other in OTHERS:
            if Path(environment["BENTOML_HOME"], "models", other).is_dir():
                one = [rollout, "split", "set", other, "--champion", "v1", "--yes"]
                subprocess.run(one, env=environment, check=True, capture_output=True)
        split = ["--champion", "v1", "--challenger", "v2", "--share", "0.3", "--yes"]
        subprocess.run(
            [rollout, "split", "set", "digits", *split], env=environment, check=True, capture_output=True
        )
        with (Path(folder) / "log").open("w") as log:
            command = [rollout, "serve", "--port", str(port), "--workers", "2"]
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_ready(port, process, Path(folder) / "log")
            token = (home / "token").read_text().strip()
            image = data.load().evaluation.inputs["image"][0].tolist()
            yield Target("127.0.0.1", port, grpc_port, token, process.pid, image)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            print(*_telling((Path(folder) / "log").read_text().splitlines()), sep="\n", file=sys.stderr)


def _telling(lines: list[str]) -> list[str]:
    """Returns the lines about what failed inside, with those that go on, and the last ones."""
    found, is_told = [], False
    for line in lines[:-LAST_LINES]:
        is_told = " ERROR " in line or (is_told and line.startswith(" "))
        found += [line] * is_told
    return [*found[:MOST_LINES], *lines[-LAST_LINES:]]


def _wait_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up and process.poll() is None:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5),
        ):
            return
        time.sleep(0.1)
    raise RuntimeError(f"not ready:\n{log.read_text()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
