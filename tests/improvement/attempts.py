"""Attempts to show."""

from __future__ import annotations

from rollout.keys import Keys
from rollout.lease import Lease
from rollout.routing.improvement import Attempt, Done, Improvement, write_improvement
from rollout.store import Redis

REFUSED = Attempt(
    version="v2.1",
    of="v2",
    against="v2",
    labels=1200,
    exports={"labels-0.jsonl": "0" * 64},
    began="2026-11-22T10:00:00Z",
    done=(Done(step="labels", at="2026-11-22T10:01:00Z", detail="labels: 1,200 used"),),
    warnings=("2 of 1,200 reviewed rows may be mislabelled.",),
    outcome="refused",
    why="The gate says worse. The candidate is worse.",
    todo="Look at the labels.",
    ended="2026-11-22T11:00:00Z",
)


async def keep(redis: Redis, model: str, attempt: Attempt) -> None:
    """Keeps an attempt as the run that made it."""
    lease = Lease(redis, Keys(model).improvement_lock, 10)
    assert await lease.hold()
    assert await write_improvement(redis, model, Improvement().begin(attempt, cursor=1), lease.owner)
    await lease.release()
    assert not await write_improvement(redis, model, Improvement(), lease.owner), "the lock is nobody's"
