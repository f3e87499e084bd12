"""What the arms answered lately, added up over all replicas in Redis, and which workers serve.

It is there to be looked at, and expires: metrics are Prometheus's to keep.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Literal

import msgspec

from rollout.buckets import CONFIDENCE_BUCKETS, SECONDS_BUCKETS
from rollout.keys import Keys
from rollout.routing.assignment import Arm
from rollout.store import Redis, guard

TICK_S = 10
KEPT_S = 3600
SILENT_S = 60

# KEYS: counts of ten seconds, workers. ARGV: seconds to keep the counts, ID and JSON of the worker, then for each
# count its name and what is added.
TELL = """
for i = 4, #ARGV, 2 do
    redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
"""

BreakerState = Literal["closed", "open", "probing"]


class Evidence(msgspec.Struct, kw_only=True):
    """What speaks for or against the version of an arm, under one revision of the split.

    Attributes:
        rows: Rows answered, fallbacks included.
        requests: Requests in which the version attempted any row; where it was late or spared, nothing is known.
        failures: Those of them in which it failed on a row by an error of its own.
        late: Rows that the champion answered because the version was late, or its breaker open.
    """

    rows: int = 0
    requests: int = 0
    failures: int = 0
    late: int = 0


class ArmTraffic(msgspec.Struct, kw_only=True):
    """What one version answered to the clients of one arm.

    Attributes:
        arm: The arm.
        version: The version that the arm names.
        predictions: Rows answered, fallbacks included.
        failures: Rows that this version failed to score, whoever answered them then.
        fallbacks: Rows that the champion answered instead, by why.
        seconds: Requests by how long the engine took: a count for each of ``SECONDS_BUCKETS``, and for longer.
        confidence: Rows by score of the most likely class, a count for each of ``CONFIDENCE_BUCKETS``.
        agreed: Rows that the challenger scored unseen and decided alike.
        disagreed: Rows that it decided otherwise.
        shadow_failed: Rows that it failed to score unseen.
        shadow_dropped: Rows that it was spared, for lack of time.
        evidence: For the verdict, by revision of the split.
    """

    arm: Arm
    version: str
    predictions: int = 0
    failures: int = 0
    fallbacks: dict[str, int] = {}
    seconds: list[int] = msgspec.field(default_factory=lambda: [0] * (len(SECONDS_BUCKETS) + 1))
    confidence: list[int] = msgspec.field(default_factory=lambda: [0] * (len(CONFIDENCE_BUCKETS) + 1))
    agreed: int = 0
    disagreed: int = 0
    shadow_failed: int = 0
    shadow_dropped: int = 0
    evidence: dict[int, Evidence] = {}

    @property
    def failure_rate(self) -> float | None:
        """Share of the rows given to this version that it failed to score; ``None`` without rows."""
        asked = self.predictions - sum(self.fallbacks.values()) + self.failures
        return self.failures / asked if asked else None

    @property
    def agreement(self) -> float | None:
        """Share of the rows scored unseen that were decided alike; ``None`` without such rows."""
        scored = self.agreed + self.disagreed
        return self.agreed / scored if scored else None

    def latency(self, quantile: float) -> float | None:
        """Returns a quantile of the seconds, interpolated within its bucket; ``None`` without requests."""
        total = sum(self.seconds)
        if not total:
            return None
        wanted = quantile * total
        below = 0.0
        edges = (0.0, *SECONDS_BUCKETS, SECONDS_BUCKETS[-1])
        for index, (count, upto) in enumerate(zip(self.seconds, accumulate(self.seconds), strict=True)):
            if upto >= wanted and count:
                return edges[index] + (edges[index + 1] - edges[index]) * (wanted - below) / count
            below = upto
        return edges[-1]


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A process that serves a model.

    Attributes:
        id: Host and process.
        revision: The revision of the split that it serves.
        variants: The variant of each version in its memory.
        breaker: Whether it asks the challenger: not while its breaker is open.
        refused: Why it stays at its revision although there is a later one; empty where there is none.
        at: When it said so, seconds since 1970.
    """

    id: str
    revision: int
    variants: dict[str, str]
    breaker: BreakerState = "closed"
    refused: str = ""
    at: float = 0.0


async def add_traffic(
    redis: Redis, model: str, counts: Mapping[tuple[Arm, str, str], int], worker: Worker
) -> None:
    """Adds what was answered since the last time, and says that this worker is there.

    Args:
        redis: Connection.
        model: The model.
        counts: By (arm, version, name): ``predictions``, ``fallbacks.error``, ``seconds.3``, ``evidence.12.rows``
            of revision 12 and so on.
        worker: The worker.

    Raises:
        StoreUnavailableError: If Redis does not answer; the counts may have been added.
    """
    now = time.time()
    keys = Keys(model)
    tick = keys.traffic(int(now) // TICK_S)
    arguments: list[str | bytes | int] = [KEPT_S, worker.id]
    arguments.append(msgspec.json.encode(msgspec.structs.replace(worker, at=now)))
    for parts, count in counts.items():
        arguments += ["|".join(parts), count]
    async with guard():
        await redis.eval(TELL, 2, tick, keys.workers, *arguments)


async def read_traffic(redis: Redis, model: str, seconds: int = 300) -> list[ArmTraffic]:
    """Returns what was answered lately, by arm and version.

    Args:
        redis: Connection.
        model: The model.
        seconds: How far to look back, at most an hour.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    last = int(time.time()) // TICK_S
    pipeline = redis.pipeline(transaction=False)
    for tick in range(last - seconds // TICK_S, last + 1):
        pipeline.hgetall(Keys(model).traffic(tick))
    async with guard():
        ticks: Sequence[dict[bytes, bytes]] = await pipeline.execute()
    arms: dict[tuple[str, str], ArmTraffic] = {}
    for counts in ticks:
        for field, count in counts.items():
            arm, version, name = field.decode().split("|")
            if (arm, version) not in arms:
                arms[arm, version] = msgspec.convert({"arm": arm, "version": version}, ArmTraffic)
            _add(arms[arm, version], name, int(count))
    return sorted(arms.values(), key=lambda one: (one.arm, one.version))


async def read_workers(redis: Redis, model: str) -> list[Worker]:
    """Returns the workers that serve a model, and forgets those that are gone.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    keys = Keys(model)
    async with guard():
        found: dict[bytes, bytes] = await redis.hgetall(keys.workers)  # type: ignore[assignment]
        workers = [msgspec.json.decode(data, type=Worker) for data in found.values()]
        gone = [worker.id for worker in workers if worker.at < time.time() - SILENT_S]
        if gone:
            await redis.hdel(keys.workers, *gone)
    return sorted((worker for worker in workers if worker.id not in gone), key=lambda worker: worker.id)


def _add(traffic: ArmTraffic, name: str, count: int) -> None:
    field, _, part = name.partition(".")
    if field == "evidence":
        revision, _, what = part.partition(".")
        found = traffic.evidence.setdefault(int(revision), Evidence())
        setattr(found, what, getattr(found, what) + count)
    elif field == "fallbacks":
        traffic.fallbacks[part] = traffic.fallbacks.get(part, 0) + count
    elif part:
        getattr(traffic, field)[int(part)] += count
    else:
        setattr(traffic, field, getattr(traffic, field) + count)
