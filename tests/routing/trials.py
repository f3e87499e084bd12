"""Trials whose evidence is known: so many clients, rows and right answers under a revision, without chance."""

from __future__ import annotations

from rollout.judge.policy import Guardrails, Policy
from rollout.keys import Keys
from rollout.routing.assignment import Arm
from rollout.routing.client_counts import TRIAL, add_clients
from rollout.routing.groups import GROUPS
from rollout.routing.split import Split
from rollout.routing.traffic import Worker, add_traffic
from rollout.store import Redis

STAGES = (0.01, 0.05, 0.1, 0.25, 0.5)
POLICY = Policy(
    least_s=0,
    least_clients=50,
    margin=0.02,
    stages=STAGES,
    by_itself=("step", "promote", "rollback"),
    guardrails=Guardrails(failures=0.02),
)
SPLIT = Split(
    champion="v1",
    challenger="v2",
    share=STAGES[0],
    experiment="digits-v1-v2",
    digests={"v1": "one", "v2": "two"},
    policy=POLICY,
)


async def feed(
    redis: Redis,
    revision: int,
    rows: int = 10,
    accuracy: float | None = None,
    better: float = 0.0,
    failures: float = 0.0,
) -> None:
    """Adds what so many rows of each of 256 clients in each arm left.

    Args:
        redis: Connection.
        revision: The revision.
        rows: Rows of a client, each a request.
        accuracy: How often control is right; half of the clients a little more often, half of them less.
        better: By how much the challenger is right more often.
        failures: Share of the challenger's requests that fail.
    """
    counts: dict[tuple[Arm, str, str], int] = {}
    ids: dict[Arm, set[str]] = {arm: {f"{revision}-{arm}-{at}" for at in range(GROUPS)} for arm in TRIAL}
    for arm, version in zip(TRIAL, ("v1", "v2"), strict=True):
        prefix = f"evidence.{revision}"
        counts[arm, version, f"{prefix}.rows"] = counts[arm, version, f"{prefix}.requests"] = GROUPS * rows
        failed = round(failures * GROUPS * rows) if arm == "challenger" else 0
        counts[arm, version, f"{prefix}.failures"] = failed
        if accuracy is None:
            continue
        for group in range(GROUPS):
            own = accuracy + (better if arm == "challenger" else 0) + (0.02 if group % 2 else -0.02)
            counts[arm, version, f"{prefix}.accuracy|{group}|y"] = round(own * rows)
            counts[arm, version, f"{prefix}.accuracy|{group}|n"] = rows
        await redis.pfadd(Keys("digits").clients(revision, arm, "accuracy"), *ids[arm])
    await add_clients(redis, "digits", revision, ids)
    await add_traffic(redis, "digits", counts, Worker(id="a", revision=revision, variants={}))
