"""Sampling: which predictions enter the queue, and with what probability, so that few can speak for all."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter

from rollout import metrics
from rollout.keys import Keys
from rollout.review.item import OF_TRAFFIC, Reason
from rollout.review.policy import DEFAULT, read_policy
from rollout.store import Redis, guard

MINUTE_S = 60
OFFERED_KEPT_S = 180

# KEYS: what was offered in the minute before and in this one, excess. ARGV: seconds to keep it, then for each
# reason its name, and how many more were offered and were too much. Returns for each how many were offered in
# the minute before and in this one.
OFFER = """
local found = {}
for i = 2, #ARGV, 3 do
    local reason, offered, excess = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
    if offered > 0 then
        redis.call('HINCRBY', KEYS[2], reason, offered)
        redis.call('EXPIRE', KEYS[2], ARGV[1])
    end
    if excess > 0 then
        redis.call('HINCRBY', KEYS[3], reason, excess)
    end
    found[#found + 1] = {redis.call('HGET', KEYS[1], reason), redis.call('HGET', KEYS[2], reason)}
end
return found
"""


class Sampler:
    """What enters the queue of a model.

    Whether a prediction enters follows from a hash of its identity: a repeated request decides alike.

    Args:
        model: The model.

    Attributes:
        policy: How its predictions are reviewed.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.policy = DEFAULT
        self._salt = hashlib.blake2b(model.encode(), digest_size=16).digest()
        self._parts: dict[Reason, float] = {}
        self._offered: Counter[Reason] = Counter()
        self._excess: Counter[Reason] = Counter()
        # A series that begins with its first increment is not seen to rise.
        for reason in OF_TRAFFIC:
            for fate in ("queued", "deferred", "dropped", "excess"):
                metrics.REVIEW_ITEMS.labels(model, reason, fate)

    def audits(self, identity: bytes) -> bool:
        """Whether a prediction that nothing else sends to review is looked at, to speak for the others."""
        return self.policy.audit > 0 and self._place(b"audit", identity) < self.policy.audit

    def sample(self, reason: Reason, pi: float, identity: bytes) -> float | None:
        """Lets a prediction in, or, while there are too many of its reason, a random part of them.

        Args:
            reason: Why it is to be reviewed.
            pi: Probability with which it got so far.
            identity: What it is told from others by.

        Returns:
            The probability with which it got in; ``None`` if it did not.
        """
        self._offered[reason] += 1
        part = self._parts.get(reason, 1.0)
        if part >= 1 or self._place(b"sample", identity) < part:
            return pi * part
        self._excess[reason] += 1
        metrics.REVIEW_ITEMS.labels(self.model, reason, "excess").inc()
        return None

    async def follow(self, redis: Redis) -> bool:
        """Tells what was offered here; learns the policy, and how much of what is offered everywhere may enter.

        Returns:
            Whether the policy is another one.

        Raises:
            StoreUnavailableError: If Redis does not answer.
        """
        policy = await read_policy(redis, self.model)
        now = time.time()
        minute = int(now) // MINUTE_S
        keys = Keys(self.model)
        before, current = keys.offered(minute - 1), keys.offered(minute)
        offered, excess = self._offered, self._excess
        self._offered, self._excess = Counter(), Counter()
        told: list[str | int] = [OFFERED_KEPT_S]
        for reason in OF_TRAFFIC:
            told += [reason, offered[reason], excess[reason]]
        try:
            async with guard():
                found = await redis.eval(OFFER, 3, before, current, keys.reviews("excess"), *told)
        except BaseException:
            self._offered += offered
            self._excess += excess
            raise
        remaining = 1 - now % MINUTE_S / MINUTE_S  # of the minute before, as if it had been even
        self._parts = {}
        for reason, (earlier, lately) in zip(OF_TRAFFIC, found, strict=True):
            rate = policy.rates.get(reason, math.inf)
            sum_of_both = int(lately or 0) + remaining * int(earlier or 0)
            if sum_of_both > rate:
                self._parts[reason] = rate / sum_of_both
        changed, self.policy = policy != self.policy, policy
        return changed

    def _place(self, salt: bytes, identity: bytes) -> float:
        """Hashes to evenly filled positions from 0 to 1, others for each salt and model."""
        digest = hashlib.blake2b(identity, digest_size=8, person=salt, salt=self._salt).digest()
        return int.from_bytes(digest) / 2**64
