"""What the controllers of a cluster do with a Deployment: replicas, rolling updates, and who gets requests."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping
from pathlib import Path

from loadtests.kubelet import Image, Phase, Pod
from loadtests.manifest import Manifest
from loadtests.proxy import Endpoints

# How long the API server, the endpoints controller and the proxy's own controller take, one after the other.
LAG_S = 1.0


class Deployment:
    """So many replicas of an image; whatever is wanted or changes, it takes the next step towards that.

    Args:
        manifest: How the pods come and go.
        folder: Where their homes lie.
        environment: What is set for all of them.
        endpoints: Is told who is ready, a while later.

    Attributes:
        image: What is wanted.
        replicas: How many are wanted.
        pods: All that were ever started.
    """

    def __init__(
        self, manifest: Manifest, folder: Path, environment: Mapping[str, str], endpoints: Endpoints, image: Image
    ) -> None:
        self.image = image
        self.replicas = 0
        self.pods: list[Pod] = []
        self._manifest = manifest
        self._folder = folder
        self._environment = environment
        self._endpoints = endpoints
        self._numbers = itertools.count(1)
        self._telling: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._news = asyncio.Event()

    @property
    def living(self) -> list[Pod]:
        """The pods that are not deleted."""
        return [pod for pod in self.pods if pod.phase is Phase.LIVING]

    @property
    def ready(self) -> list[Pod]:
        """Those of them that are ready."""
        return [pod for pod in self.living if pod.is_ready]

    def want(self, *, replicas: int | None = None, image: Image | None = None) -> None:
        """Says what is wanted from now on."""
        self.replicas = self.replicas if replicas is None else replicas
        self.image = image or self.image
        self._step()

    async def settle(self, deadline_s: float) -> bool:
        """Waits until all is as it is wanted; returns whether it is, or nothing has changed for so long."""
        progress_at = time.monotonic()
        while not self._is_settled():
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), progress_at + deadline_s - time.monotonic())
            except TimeoutError:
                return False
            progress_at = time.monotonic()
        return True

    async def end(self) -> None:
        """Ends every pod at once."""
        self.replicas = 0
        for pod in self.pods:
            if pod.phase is not Phase.GONE:
                pod.vanish()
        await asyncio.gather(*(pod.wait() for pod in self.pods), *self._telling)

    def _is_settled(self) -> bool:
        there = [pod for pod in self.pods if pod.phase is not Phase.GONE]
        is_wanted = len(there) == self.replicas and all(pod.is_ready and pod.image == self.image for pod in there)
        return is_wanted and not self._telling

    def _step(self) -> None:
        """Starts and deletes as many pods as may be at this time."""
        new = [pod for pod in self.living if pod.image == self.image]
        room = self.replicas + self._manifest.surge - len(self.living)
        for _ in range(min(self.replicas - len(new), room)):
            self._start_pod()
        spare = len(self._available()) - (self.replicas - self._manifest.unavailable)
        for pod in sorted(self.living, key=lambda pod: (pod.is_ready, pod.image == self.image)):
            is_too_many = pod.image != self.image or len(new) > self.replicas
            if not is_too_many or (pod.is_ready and spare <= 0):
                continue
            spare -= pod.is_ready
            if pod in new:
                new.remove(pod)
            pod.delete()

    def _available(self) -> list[Pod]:
        """Returns the pods that have been ready for long enough; comes back when it will be more of them."""
        loop, now = asyncio.get_running_loop(), time.monotonic()
        waits = {pod: pod.ready_at + self._manifest.min_ready_s - now for pod in self.ready}
        for wait_s in waits.values():
            if wait_s > 0:
                loop.call_later(wait_s, self._step)
        return [pod for pod, wait_s in waits.items() if wait_s <= 0]

    def _start_pod(self) -> None:
        name = f"pod-{next(self._numbers)}"
        self.pods.append(Pod(name, self.image, self._manifest, self._folder, self._environment, self._changed))

    def _changed(self, pod: Pod) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._tell(pod))
        self._telling.add(task)
        task.add_done_callback(self._told)
        loop.call_soon(self._step)

    async def _tell(self, pod: Pod) -> None:
        await asyncio.sleep(LAG_S)
        async with self._one_at_a_time:
            if pod.phase is Phase.GONE:
                await self._endpoints.remove(pod.name)
            else:
                is_ready = pod.is_ready and pod.phase is Phase.LIVING
                await self._endpoints.put(pod.name, pod.port, is_ready=is_ready)

    def _told(self, task: asyncio.Task[None]) -> None:
        self._telling.discard(task)
        self._news.set()
        if not task.cancelled():
            task.result()
