"""The embedded Valkey: a real server that runs under ``ROLLOUT_HOME`` while nobody configures a shared one."""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path

from rollout.config import Settings
from rollout.errors import ConfigError, StoreUnavailableError
from rollout.home import PRIVATE, prepare_home
from rollout.valkey_server import ValkeyServer

# Pauses before it is started again: the first, the longest, and how long it must run for the next to be short.
PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
TAKE_OVER_WITHIN_S = 0.5

logger = logging.getLogger(__name__)


@contextmanager
def running_redis(settings: Settings) -> Iterator[str]:
    """Yields the URL of the shared Redis, or of the embedded one, started if it is not up.

    Whenever the embedded one ends before the block does, it is started again, on the same data. It ends with the
    block of whoever uses it last, which need not be the one that started it.

    Raises:
        StoreUnavailableError: If the embedded one does not start.
        ConfigError: If there is no server program for this platform.
    """
    if settings.redis_url:
        yield settings.redis_url
        return
    prepare_home(settings.home)
    folder = settings.home.resolve() / "valkey"
    folder.mkdir(mode=PRIVATE, exist_ok=True)
    server, stopping = ValkeyServer(folder, settings.store_bytes), threading.Event()
    with (folder / "users").open("w") as users:
        with _alone(folder):
            fcntl.flock(users, fcntl.LOCK_SH)
            server.ensure(stopping)
        supervisor = threading.Thread(target=_supervise, args=(folder, server, stopping), daemon=True)
        supervisor.start()
        try:
            yield server.url
        finally:
            stopping.set()
            supervisor.join()
            with _alone(folder):
                if _locked(users):  # nobody else uses it
                    server.stop()


def _supervise(folder: Path, server: ValkeyServer, stopping: threading.Event) -> None:
    """Starts the server again whenever it ends; of all who use it, one does that, and another takes over."""
    with (folder / "supervisor").open("w") as turn:
        while not _locked(turn):
            if stopping.wait(TAKE_OVER_WITHIN_S):
                return
        pause, trouble = PAUSE_S, ""
        while not stopping.is_set():
            since = time.monotonic()
            server.wait_for_end(stopping)
            if stopping.is_set():
                return
            if time.monotonic() - since > STEADY_S:
                pause = PAUSE_S
            why = trouble or f"the embedded Valkey ended ({server.ending()})"
            logger.warning("%s; starting it again in %.1f s", why, pause)
            stopping.wait(pause)
            trouble = ""
            try:
                with _alone(folder):
                    server.ensure(stopping)
            except (StoreUnavailableError, ConfigError) as error:
                trouble = error.detail
            except OSError as error:
                trouble = f"the embedded Valkey cannot be started: {error}"
            pause = min(2 * pause, LONGEST_PAUSE_S)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While the block runs, nobody else starts or stops the server of this folder."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _locked(file: TextIOWrapper) -> bool:
    """Takes the lock on a file, unless somebody else has it."""
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
