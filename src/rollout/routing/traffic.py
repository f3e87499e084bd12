"""What the arms answered lately, added up over all replicas in Redis, and which workers serve.

It is there to be looked at, and expires: metrics are Prometheus's to keep.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import msgspec

from rollout.buckets import CONFIDENCE_BUCKETS, SECONDS_BUCKETS, quantile
from rollout.keys import Keys
from rollout.routing.assignment import Arm
from rollout.routing.timeline import is_shown, windows
from rollout.store import Redis, decode_each, guard, report_left_out, strange_value

TICK_S = 10
KEPT_S = 3600
EVIDENCE_KEPT_S = 30 * 86400
SILENT_S = 60

# KEYS: workers, counts of ten seconds, windows of the timeline, then the evidence of each revision. ARGV: ID and
# JSON of the worker, for each further key the seconds to keep it, then for each count the place of its key, its
# name, what is added.
TELL = """
for i = #KEYS + 2, #ARGV, 3 do
    redis.call('HINCRBY', KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2])
end
for i = 2, #KEYS do
    redis.call('EXPIRE', KEYS[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
"""

BreakerState = Literal["closed", "open", "probing"]


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

    def latency(self, wanted: float) -> float | None:
        """Returns a quantile of the seconds, interpolated within its bucket; ``None`` without requests."""
        return quantile(self.seconds, wanted)


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
    redis: Redis,
    model: str,
    counts: Mapping[tuple[Arm, str, str], int],
    worker: Worker,
    of_no_arm: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Adds what was answered since the last time, and says that this worker is there.

    Args:
        redis: Connection.
        model: The model.
        counts: By (arm, version, name): ``predictions``, ``fallbacks.error``, ``seconds.3`` and so on; names such
            as ``evidence.12.rows``, of revision 12, go to the evidence of the trial.
        worker: The worker.
        of_no_arm: What else the timeline has: ``errors`` and ``reviewed``.

    Raises:
        StoreUnavailableError: If Redis does not answer; the counts may have been added.
    """
    now = time.time()
    keys = Keys(model)
    kept = {keys.traffic(int(now) // TICK_S): KEPT_S, **dict(windows(keys, now))}
    places = range(3, 2 + len(kept))  # of the windows
    shown = Counter(of_no_arm)
    added: list[str | int] = []
    for (arm, version, name), count in counts.items():
        kind, _, rest = name.partition(".")
        if kind == "evidence":
            revision, _, what = rest.partition(".")
            kept.setdefault(keys.evidence(int(revision)), EVIDENCE_KEPT_S)
            added += [list(kept).index(keys.evidence(int(revision))) + 2, f"{arm}|{what}", count]
            continue
        added += [2, f"{arm}|{version}|{name}", count]
        if is_shown(kind):
            shown[name] += count
    for name, count in shown.items():
        for place in places:
            added += [place, name, count]
    told = msgspec.json.encode(msgspec.structs.replace(worker, at=now))
    async with guard():
        await redis.eval(TELL, 1 + len(kept), keys.workers, *kept, worker.id, told, *kept.values(), *added)


async def read_traffic(redis: Redis, model: str, seconds: int = 300) -> list[ArmTraffic]:
    """Returns what was answered lately, by arm and version.

    Args:
        redis: Connection.
        model: The model.
        seconds: How far to look back, at most an hour.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    arms: dict[tuple[str, str], ArmTraffic] = {}
    for tick, counts in (await read_ticks(redis, model, seconds)).items():
        for field, count in counts.items():
            try:
                arm, version, name = field.decode().split("|")
                if (arm, version) not in arms:
                    arms[arm, version] = msgspec.convert({"arm": arm, "version": version}, ArmTraffic)
                _add(arms[arm, version], name, int(count))
            except (ValueError, LookupError, AttributeError) as error:  # msgspec's are ValueErrors
                report_left_out(strange_value(Keys(model).traffic(tick), error))
    return sorted(arms.values(), key=lambda one: (one.arm, one.version))


async def read_ticks(redis: Redis, model: str, seconds: int) -> dict[int, dict[bytes, bytes]]:
    """Returns the counts of each ten seconds as they are stored, by seconds since 1970 divided by ten.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    last = int(time.time()) // TICK_S
    ticks = range(last - seconds // TICK_S, last + 1)
    pipeline = redis.pipeline(transaction=False)
    for tick in ticks:
        pipeline.hgetall(Keys(model).traffic(tick))
    async with guard():
        found: Sequence[dict[bytes, bytes]] = await pipeline.execute()
    return dict(zip(ticks, found, strict=True))


async def read_workers(redis: Redis, model: str) -> list[Worker]:
    """Returns the workers that serve a model, and forgets those that are gone.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    keys = Keys(model)
    async with guard():
        found: dict[bytes, bytes] = await redis.hgetall(keys.workers)  # type: ignore[assignment]
        workers = decode_each(((keys.workers, data) for data in found.values()), Worker)
        gone = [worker.id for worker in workers if worker.at < time.time() - SILENT_S]
        if gone:
            await redis.hdel(keys.workers, *gone)
    return sorted((worker for worker in workers if worker.id not in gone), key=lambda worker: worker.id)


def _add(traffic: ArmTraffic, name: str, count: int) -> None:
    field, _, part = name.partition(".")
    if field == "fallbacks":
        traffic.fallbacks[part] = traffic.fallbacks.get(part, 0) + count
    elif part:
        getattr(traffic, field)[int(part)] += count
    else:
        setattr(traffic, field, getattr(traffic, field) + count)
