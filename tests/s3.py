"""A real S3 over HTTP: moto's server in a process of its own; and a way to it that breaks."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.conftest import BIN, free_port

KEYS = {"AWS_ACCESS_KEY_ID": "us", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@contextlib.contextmanager
def run_s3(log: Path) -> Iterator[str]:
    """Runs an empty S3 until the block ends; returns its address."""
    port = free_port()
    moto = ["moto_server", "--host", "127.0.0.1", "--port", str(port)]
    isolated = ["--isolated", "--no-project", "--with-requirements", str(Path(__file__).with_name("moto.txt"))]
    with log.open("w") as file:
        process = subprocess.Popen(
            [BIN / "uv", "run", *isolated, *moto], stdout=file, stderr=file, start_new_session=True
        )
    try:
        _wait(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + 180  # the first time it is installed
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url).status_code == 200:
                return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up, log.read_text()
        time.sleep(0.1)


class Way:
    """A way to a server that can be cut.

    Attributes:
        url: Where it begins.
        passes: How many bytes of each answer get through before the connection breaks; ``None`` for all.
        is_silent: Whether it takes connections and never answers.
    """

    def __init__(self, url: str) -> None:
        self._host, port = url.removeprefix("http://").split(":")
        self._port = int(port)
        self.passes: int | None = None
        self.is_silent = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.is_silent:
            with client, contextlib.suppress(OSError):
                while client.recv(65536):
                    pass
            return
        with client, socket.create_connection((self._host, self._port)) as server:
            threading.Thread(target=_copy, args=(client, server, None), daemon=True).start()
            _copy(server, client, self.passes)


def _copy(source: socket.socket, target: socket.socket, most: int | None) -> None:
    left = 2**62 if most is None else most
    with contextlib.suppress(OSError):
        while left and (data := source.recv(min(left, 65536))):
            target.sendall(data)
            left -= len(data)
        target.shutdown(socket.SHUT_RDWR)
