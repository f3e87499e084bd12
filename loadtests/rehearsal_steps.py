"""What happens to the service in a rehearsal, one step after the other."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import urllib.request
from collections.abc import AsyncIterator

import msgspec

from loadtests.callers import LOOK_EVERY_S, MODEL
from loadtests.deployment import Deployment
from loadtests.fleet import Environment, Valkey, run
from loadtests.kubelet import Image, Pod
from loadtests.proxy import Endpoints
from loadtests.rehearsal_report import Outcome, Step
from rollout.errors import StoreUnavailableError
from rollout.store import connect

STEADY_S = 3.0  # after each step
# A cluster gives a silent node up after 40 s, and its pods 5 minutes later; until then nothing else happens.
NODE_S = 6.0
# Whatever watches over Redis, Sentinel or an operator, needs so long to be sure.
FAILOVER_S = 3.0
# So long an image that does not get ready is given; in a cluster, progressDeadlineSeconds, which are minutes.
STALLED_S = 15.0
PATIENCE_S = 90.0
REPLICAS = 3
BROKEN = {"ROLLOUT_VARIANT": "none-of-these"}


class Rehearsal:
    """What is on the stage.

    Args:
        deployment: The replicas.
        endpoints: Who gets requests.
        valkeys: The primary Redis and its replica.
        environment: For commands of Rollout.
        images: A version, and the one after it.
        faster: Divides what is only waited for.

    Attributes:
        outcome: What became of it.
    """

    def __init__(
        self,
        deployment: Deployment,
        endpoints: Endpoints,
        valkeys: tuple[Valkey, Valkey],
        environment: Environment,
        images: tuple[Image, Image],
        faster: float,
    ) -> None:
        self.outcome = Outcome()
        self._deployment = deployment
        self._endpoints = endpoints
        self._primary, self._replica = valkeys
        self._environment = environment
        self._first, self._second = images
        self._bad = self._second._replace(version="broken", environment={**self._second.environment, **BROKEN})
        self._faster = faster

    async def run(self) -> Outcome:
        """Takes every step, and says what became of it so far."""
        async with self._step("nothing, for comparison"):
            await self._wait(STEADY_S)
        await self._roll()
        await self._scale()
        await self._lose_node("a node dies (SIGKILL), later a new pod", signal.SIGKILL)
        await self._lose_node("a node goes silent (SIGSTOP), later a new pod", signal.SIGSTOP)
        await self._fail_over()
        await self._try_bad_version()
        await self._ramp_while_rolling()
        for pod in self._deployment.pods:
            self.outcome.noticed += pod.faults
            if pod.restarts and pod.image != self._bad:
                self.outcome.noticed.append(f"{pod.name} was started again {pod.restarts} times")
        return self.outcome

    @contextlib.asynccontextmanager
    async def _step(self, what: str, *, planned: bool = True) -> AsyncIterator[Step]:
        sent_again = await self._endpoints.sent_again()
        step = Step(what, time.monotonic(), planned=planned)
        self.outcome.steps.append(step)
        yield step
        step.took = time.monotonic() - step.start
        await self._wait(STEADY_S)
        step.sent_again = await self._endpoints.sent_again() - sent_again

    async def _roll(self) -> None:
        async with self._step("all replicas get a new image") as step:
            self._deployment.want(image=self._second)
            await self._settle(step)
            step.found = f"{len(self._deployment.ready)} replicas of {await self._versions()}"

    async def _scale(self) -> None:
        async with self._step(f"scaled from {REPLICAS} to 1 and back") as step:
            self._deployment.want(replicas=1)
            await self._settle(step)
            step.found = f"{time.monotonic() - step.start:.0f} s to 1"
            self._deployment.want(replicas=REPLICAS)
            await self._settle(step)

    async def _lose_node(self, what: str, how: signal.Signals) -> None:
        async with self._step(what, planned=False) as step:
            lost = self._deployment.ready[0]
            lost.die(how)
            await self._wait(NODE_S)
            lost.vanish()
            await self._settle(step)

    async def _fail_over(self) -> None:
        async with self._step("Redis fails over to its replica") as step:
            self.outcome.failover = step
            self._primary.kill()
            await self._wait(FAILOVER_S)
            await asyncio.to_thread(self._replica.promote)
            await self._redis_answers()
            step.found = f"no Redis for {time.monotonic() - step.start:.1f} s"
            await asyncio.to_thread(self._primary.start, self._replica)

    async def _try_bad_version(self) -> None:
        async with self._step("an image that never gets ready, and undo") as step:
            good = self._deployment.ready
            self._deployment.want(image=self._bad)
            if await self._deployment.settle(STALLED_S / self._faster):
                self.outcome.noticed.append("the broken image counts as rolled out")
            starts = sum(pod.restarts + 1 for pod in self._deployment.living if pod not in good)
            step.found = f"stalled for {STALLED_S / self._faster:.0f} s, new pod started {starts}×"
            if self._deployment.ready != good:
                self.outcome.noticed.append("the broken image cost good replicas")
            self._deployment.want(image=self._second)
            await self._settle(step)

    async def _ramp_while_rolling(self) -> None:
        async with self._step("a trial goes to 50 % and back, while all get another image") as step:
            self._deployment.want(image=self._first)
            await self._new_replicas(1)
            await asyncio.to_thread(run, self._environment, "split", "ramp", MODEL, "50%", "--yes")
            await self._new_replicas(2)
            await asyncio.to_thread(run, self._environment, "split", "rollback", MODEL, "--why", "rehearsed")
            await self._settle(step)
            step.found = f"{len(self._deployment.ready)} replicas of {await self._versions()}"

    async def _wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._faster)

    async def _settle(self, step: Step) -> None:
        if not await self._deployment.settle(PATIENCE_S):
            self.outcome.noticed.append(f"{step.what}: not done {PATIENCE_S:.0f} s after the last progress")

    async def _new_replicas(self, count: int) -> None:
        """Waits until so many replicas of the image that is being rolled out are ready."""
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            if sum(pod.image == self._deployment.image for pod in self._deployment.ready) >= count:
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def _versions(self) -> str:
        """Asks the replicas which version they are."""

        def version(pod: Pod) -> str:
            with urllib.request.urlopen(f"{pod.url}/v2", timeout=10) as response:  # noqa: S310
                return str(msgspec.json.decode(response.read())["version"])

        found = {await asyncio.to_thread(version, pod) for pod in self._deployment.ready}
        if found != {self._deployment.image.version}:
            self.outcome.noticed.append(f"the replicas are {sorted(found)}, not {self._deployment.image.version}")
        return " and ".join(sorted(found))

    async def _redis_answers(self) -> None:
        """Waits until Redis answers at its address again."""
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            with contextlib.suppress(StoreUnavailableError):
                async with contextlib.aclosing(await connect(self._environment["ROLLOUT_REDIS_URL"])):
                    return
            await asyncio.sleep(LOOK_EVERY_S)
        self.outcome.noticed.append("Redis did not come back")
