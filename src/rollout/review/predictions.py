"""The predictions of the trial, which wait for their outcomes: gathered in memory, written beside the answers."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from rollout import metrics
from rollout.errors import StoreUnavailableError
from rollout.keys import Keys
from rollout.repeating import repeat
from rollout.review.item import Reason, item_id, milliseconds
from rollout.review.policy import DAY_S
from rollout.review.sampling import Sampler
from rollout.review.scripts import JOIN, KEEP
from rollout.store import Redis, reason, run_script

FLUSH_EVERY_S = 0.25
FLUSH_AT_MOST = 100
MOST_WAITING = 20_000

# KEYS: outcomes. ARGV: seconds to keep, the names of predictions and of outcomes up to their IDs, and what is
# kept, as MessagePack: as arguments, a hundred would cost the worker more than all else about them. Of each
# prediction: ID, key of its client, time, JSON.
RECORD = f"""{JOIN}{KEEP}
local seconds, predictions, outcomes, packed = unpack(ARGV)
local found = cmsgpack.unpack(packed)
local outcome_keys, forgotten_keys = {{}}, {{}}
for i, one in ipairs(found) do
    outcome_keys[i], forgotten_keys[i] = outcomes .. one[1], one[2] .. ':forgotten'
end
-- Mostly there is none, and one look says so of all.
local any_outcome = redis.call('EXISTS', unpack(outcome_keys)) > 0
local any_forgotten = redis.call('EXISTS', unpack(forgotten_keys)) > 0
for i, one in ipairs(found) do
    local id, client, at, json = unpack(one)
    if not (any_forgotten and tonumber(redis.call('GET', forgotten_keys[i]) or 0) >= at)
        and redis.call('SET', predictions .. id, json, 'NX', 'EX', seconds) then
        keep(client, 'prediction:' .. id, seconds)
        if any_outcome then
            join(KEYS[1], outcome_keys[i], id, json)
        end
    end
end
"""

logger = logging.getLogger(__name__)


class Predicted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was predicted, as an outcome needs it: no inputs, no client.

    Attributes:
        at: When, ISO 8601 in UTC.
        arm: The client's arm.
        version: The version that answered.
        variant: The variant that answered.
        revision: Revision of the split under which it was decided.
        answer: What the head keeps of what was answered, in plain values; see ``Head.brief``.
        pi: Probability with which this prediction was kept: 1 in the trial, that of its review item outside it.
        fallback: Why the champion answered in the challenger's place, if it did.
        pinned: Whether a rule put the client into this arm, not the hash: no evidence for a comparison.
        reason: Why it is in the review queue, where it was kept for that.
    """

    at: str
    arm: str
    version: str
    variant: str
    revision: int
    answer: dict[str, Any]
    pi: float = 1.0
    fallback: str | None = None
    pinned: bool = False
    reason: Reason | None = None


class PendingOutcome(NamedTuple):
    """A prediction that waits for its outcome.

    Attributes:
        client_id: The caller's own ID of the client.
        key: The caller's own ID of the prediction.
        predicted: What was predicted.
    """

    client_id: str
    key: str
    predicted: Predicted


class Predictions:
    """Gathers predictions in memory, writes them every ``FLUSH_EVERY_S``, and drops what does not fit.

    Args:
        redis: Connection.
        samplers: How long they are kept, by model.
    """

    def __init__(self, redis: Redis, samplers: Mapping[str, Sampler]) -> None:
        self._redis = redis
        self._samplers = samplers
        self._waiting: defaultdict[str, deque[PendingOutcome]] = defaultdict(deque)
        self._room = MOST_WAITING

    def offer(self, model: str, predictions: Iterable[PendingOutcome]) -> None:
        """Takes predictions; they are durable a moment later."""
        for prediction in predictions:
            if self._room:
                self._room -= 1
                self._waiting[model].append(prediction)
            else:
                metrics.TRIAL_PREDICTIONS.labels(model, "dropped").inc()

    async def run(self) -> None:
        """Writes for ever; without Redis predictions wait while there is room."""
        await repeat(self.flush, FLUSH_EVERY_S, "predictions could not be kept for their outcomes")

    async def close(self) -> None:
        """Writes what waits; what Redis does not take now is dropped."""
        try:
            await self.flush()
        except StoreUnavailableError as error:
            logger.warning("predictions that waited for their outcomes are lost: %s", reason(error))
            for model, waiting in self._waiting.items():
                metrics.TRIAL_PREDICTIONS.labels(model, "dropped").inc(len(waiting))

    async def flush(self) -> None:
        """Writes what waits.

        Raises:
            StoreUnavailableError: If Redis does not answer; then it goes on waiting.
        """
        for model, waiting in list(self._waiting.items()):
            keep_s = self._samplers[model].policy.outcome_days * DAY_S
            while waiting:
                group = list(islice(waiting, FLUSH_AT_MOST))
                await record_predictions(self._redis, model, group, keep_s)
                for _ in group:
                    waiting.popleft()
                self._room += len(group)
                metrics.TRIAL_PREDICTIONS.labels(model, "kept").inc(len(group))


async def record_predictions(
    redis: Redis, model: str, predictions: Sequence[PendingOutcome], keep_s: int
) -> None:
    """Keeps predictions for their outcomes, and joins them with outcomes that came first.

    The first prediction of a client and key counts; further ones, and those from before their client was
    forgotten, change nothing.

    Args:
        redis: Connection.
        model: The model.
        predictions: At least one.
        keep_s: Seconds that they wait.

    Raises:
        StoreUnavailableError: If Redis does not answer; recording them again is safe.
    """
    names = Keys(model)
    found = [
        (
            item_id(client_id, key, b""),
            names.client(client_id),
            milliseconds(predicted.at),
            msgspec.json.encode(predicted).decode(),
        )
        for client_id, key, predicted in predictions
    ]
    parts = keep_s, names.prediction(""), names.outcome(""), msgspec.msgpack.encode(found)
    await run_script(redis, RECORD, [names.outcomes], *parts)
