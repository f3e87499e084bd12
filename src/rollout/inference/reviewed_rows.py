"""What people decided on rows, beside the features of these rows: how right is the model where rows moved?"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import msgspec

from rollout.bundle.baseline import ANSWER, features_of_inputs
from rollout.bundle.schema import Arrays, InputSchema, InvalidInputsError
from rollout.inference.served_model import ServedModel
from rollout.inference.version import LoadedVersion
from rollout.judge.reweighting import Seen
from rollout.keys import Keys
from rollout.review.item import ReviewItem
from rollout.review.records import Record, read_changes
from rollout.review.state import State
from rollout.store import Redis, guard

MOST_ROWS = 2000
CONFIDENCE = f"{ANSWER}.confidence"


class _Row(NamedTuple):
    """A row on which people decided: its features, for how many it stands, and how right the model was."""

    values: dict[str, float]
    weight: float
    right: float


class ReviewedRows:
    """Follows the decisions, and remembers the last ones of each version.

    That is in memory only: figures of rows, and neither their inputs nor whose they were.

    Args:
        redis: Connection.
        model: The model.
    """

    def __init__(self, redis: Redis, model: ServedModel) -> None:
        self._redis = redis
        self._model = model
        self._cursor: int | None = None
        self._rows: dict[str, dict[str, _Row]] = {}  # by digest of the version and ID of the item

    async def follow(self) -> None:
        """Takes what was decided since the last time. What is decided anew, or taken back, replaces what was.

        Raises:
            StoreUnavailableError: If Redis does not answer; the rest comes the next time.
        """
        if self._cursor is None:
            self._cursor = await self._begin()
        async for record in read_changes(self._redis, self._model.name, self._cursor):
            await asyncio.to_thread(self._take, record)
            self._cursor = record.cursor

    async def _begin(self) -> int:
        """Returns the cursor before the last decisions: there may be a million of them."""
        async with guard():
            found: list[Any] = await self._redis.zrange(
                Keys(self._model.name).reviews("changes"), -MOST_ROWS, -MOST_ROWS, withscores=True
            )
        return int(found[0][1]) - 1 if found else 0

    def of(self, loaded: LoadedVersion, feature: str) -> list[Seen]:
        """Returns the rows of a version on which people decided, by one of their features."""
        return [
            Seen(row.values[feature], row.weight, row.right)
            for row in self._rows.get(loaded.digest, {}).values()
            if feature in row.values
        ]

    def _take(self, record: Record) -> None:
        loaded = self._model.versions.get(record.item.version)
        if loaded is None or loaded.baseline is None:
            return
        rows = self._rows.setdefault(loaded.digest, {})
        rows.pop(record.item.id, None)
        loss = None
        if record.work.state is State.RESOLVED:
            loss = record.item.head.loss(record.item.answer, record.work.truth)
        if loss is None:
            return
        weight = sum(1 / one.pi for one in (record.item, *record.links))
        rows[record.item.id] = _Row(_values(loaded, record.item), weight, 1 - loss)
        if len(rows) > MOST_ROWS:
            del rows[next(iter(rows))]


def _values(loaded: LoadedVersion, item: ReviewItem) -> dict[str, float]:
    """Returns the features of a row: those of its inputs, as far as they are kept, and its confidence."""
    values: dict[str, float] = {}
    arrays = _decode(loaded.schema, item)
    if arrays is not None:
        features = features_of_inputs(loaded.schema.fields, arrays)
        values = {name: float(one.values[0]) for name, one in features.items()}
    confidence = item.answer.get("confidence")
    if isinstance(confidence, float | int):
        values[CONFIDENCE] = float(round(100 * confidence))  # as `Head.confidence_feature` has it
    return values


def _decode(schema: InputSchema, item: ReviewItem) -> Arrays | None:
    """Returns an item's inputs as one row; ``None`` where they are gone, redacted or do not fit."""
    if not item.has_inputs:
        return None
    try:
        return schema.decode_row(item.sent)
    except (InvalidInputsError, msgspec.MsgspecError):
        return None
