"""How many different clients are in a trial, over all replicas: HyperLogLogs in Redis, which hold no ID."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rollout.keys import Keys
from rollout.routing.assignment import Arm
from rollout.routing.traffic import EVIDENCE_KEPT_S
from rollout.store import Redis, guard

TRIAL: tuple[Arm, ...] = ("control", "challenger")


async def add_clients(redis: Redis, model: str, revision: int, clients: Mapping[Arm, Collection[str]]) -> None:
    """Adds clients that were answered under a revision of the split.

    Args:
        redis: Connection.
        model: The model.
        revision: The revision.
        clients: Their IDs, by arm; those that a rule put there left out.

    Raises:
        StoreUnavailableError: If Redis does not answer; adding them again changes nothing.
    """
    pipe = redis.pipeline(transaction=False)
    for arm, ids in clients.items():
        if ids:
            key = Keys(model).clients(revision, arm)
            pipe.pfadd(key, *(client_id.encode("utf-8", "surrogatepass") for client_id in ids))
            pipe.expire(key, EVIDENCE_KEPT_S)
    async with guard():
        await pipe.execute()


async def count_clients(
    redis: Redis, model: str, revisions: Collection[int], outcome: str = ""
) -> dict[Arm, int]:
    """Returns how many clients each arm of the trial has under some revisions, with a standard error of 0.81 %.

    Args:
        redis: Connection.
        model: The model.
        revisions: At least one.
        outcome: With a name, only clients are counted of whom this outcome is known.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    keys = Keys(model)
    async with guard():
        return {
            arm: await redis.pfcount(*(keys.clients(revision, arm, outcome) for revision in revisions))
            for arm in TRIAL
        }
