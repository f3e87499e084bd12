"""What the kubelet does with a pod: starts it, asks its probes, starts it again, and ends it in good order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import aiohttp

from loadtests.manifest import Manifest, Probe
from loadtests.servers import free_port

# A container that ends is started again at once, then after this, doubled each time.
BACK_OFF_S = 10.0


class Image(NamedTuple):
    """What a container is started from.

    Attributes:
        version: What it says that it is.
        folder: Where its code lies.
        command: What it runs; ``{port}`` stands for the port.
        environment: What is set besides what is set for all.
    """

    version: str
    folder: Path
    command: tuple[str, ...]
    environment: Mapping[str, str] = {}


class Phase(Enum):
    """Where a pod is on its way."""

    LIVING = "living"
    TERMINATING = "terminating"
    GONE = "gone"


class Pod:
    """One replica: a session of processes with a home of its own.

    Args:
        name: Its name.
        image: What it runs.
        manifest: How it comes and goes.
        folder: Where its home and its log are made.
        environment: What is set for all images.
        on_change: Called when it becomes ready or stops to be, is deleted, or is gone.

    Attributes:
        name: Its name.
        image: What it runs.
        port: Where it listens on this machine.
        is_ready: Whether its readiness probe says yes.
        ready_at: When that last changed, in ``time.monotonic()``.
        phase: Where it is on its way.
        restarts: How often its container was started again.
        faults: What a pod should not do.
    """

    def __init__(
        self,
        name: str,
        image: Image,
        manifest: Manifest,
        folder: Path,
        environment: Mapping[str, str],
        on_change: Callable[[Pod], None],
    ) -> None:
        self.name = name
        self.image = image
        self.port = free_port()
        self.is_ready = False
        self.ready_at = 0.0
        self.phase = Phase.LIVING
        self.restarts = 0
        self.faults: list[str] = []
        self._manifest = manifest
        self._home = folder / name
        self._environment = environment
        self._on_change = on_change
        self._process: asyncio.subprocess.Process | None = None
        self._life = asyncio.create_task(self._live())

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def delete(self) -> None:
        """Begins to end it, as a deleted pod ends."""
        self.phase = Phase.TERMINATING
        self._on_change(self)
        self._life.cancel()
        self._life = asyncio.create_task(self._terminate())

    def die(self, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """Its node dies or goes silent: nobody is left there to ask its probes or to start it again."""
        self._life.cancel()
        self._signal(with_signal)

    def vanish(self) -> None:
        """Ends whatever is left of it, at once."""
        self._life.cancel()
        self._leave()

    async def wait(self) -> None:
        """Waits until nothing of it runs any more."""
        await asyncio.wait([self._life])
        if self._process is not None:
            await self._process.wait()

    async def _terminate(self) -> None:
        if self._process is not None:
            await self._stop(self._process)
        self._leave()

    def _leave(self) -> None:
        self._signal(signal.SIGKILL)
        self.phase = Phase.GONE
        self._on_change(self)

    async def _live(self) -> None:
        back_off_s = 0.0
        while True:
            process = self._process = await self._start()
            ended = asyncio.create_task(process.wait())
            watching = asyncio.create_task(self._watch())
            try:
                await asyncio.wait([ended, watching], return_when=asyncio.FIRST_COMPLETED)
            finally:
                watching.cancel()
            self._set_ready(is_ready=False)
            await self._stop(process)
            await asyncio.sleep(back_off_s)
            back_off_s = max(BACK_OFF_S, 2 * back_off_s)
            self.restarts += 1

    async def _start(self) -> asyncio.subprocess.Process:
        self._home.mkdir(parents=True, exist_ok=True)
        environment = {**self._manifest.environment, **self._environment, **self.image.environment}
        local = {
            "ROLLOUT_HOST": "127.0.0.1",
            "ROLLOUT_PORT": str(self.port),
            "ROLLOUT_HOME": str(self._home.resolve()),
        }
        with self._home.with_suffix(".log").open("a") as log:
            return await asyncio.create_subprocess_exec(
                *self.image.command,
                cwd=self.image.folder,
                env=environment | local,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        """Runs preStop, sends SIGTERM, and SIGKILL where that is not enough."""
        kill_at = time.monotonic() + self._manifest.grace_s
        if process.returncode is None:
            await asyncio.sleep(self._manifest.pre_stop_s)
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), kill_at - time.monotonic())
        except TimeoutError:
            self.faults.append(f"{self.name} had to be killed, {self._manifest.grace_s:.0f} s after its deletion")
        self._signal(signal.SIGKILL)  # with the first process of a container the others go

    async def _watch(self) -> None:
        """Asks the probes for as long as the container is well."""
        startup = self._manifest.startup
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            try:
                async with asyncio.timeout(startup.period_s * startup.failures):
                    await self._says(session, startup, yes=True)
            except TimeoutError:
                return
            deciding = asyncio.create_task(self._decide_readiness(session))
            try:
                await self._says(session, self._manifest.liveness, yes=False)
            finally:
                deciding.cancel()

    async def _decide_readiness(self, session: aiohttp.ClientSession) -> None:
        while True:
            await self._says(session, self._manifest.readiness, yes=not self.is_ready)
            self._set_ready(is_ready=not self.is_ready)

    async def _says(self, session: aiohttp.ClientSession, probe: Probe, *, yes: bool) -> None:
        """Waits until a probe says yes, or has said no often enough."""
        in_a_row = 0
        while True:
            in_a_row = in_a_row + 1 if await self._ask(session, probe) == yes else 0
            if in_a_row == (1 if yes else probe.failures):
                return
            await asyncio.sleep(probe.period_s)

    async def _ask(self, session: aiohttp.ClientSession, probe: Probe) -> bool:
        timeout = aiohttp.ClientTimeout(total=probe.timeout_s)
        try:
            async with session.get(self.url + probe.path, timeout=timeout) as response:
                return 200 <= response.status < 400
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _set_ready(self, *, is_ready: bool) -> None:
        if is_ready != self.is_ready:
            self.is_ready = is_ready
            self.ready_at = time.monotonic()
            self._on_change(self)

    def _signal(self, which: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, which)
