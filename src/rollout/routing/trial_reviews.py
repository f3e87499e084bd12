"""What people decided on rows of both arms' own clients, as outcomes of the trial."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import msgspec

from rollout.judge.evidence import Outcomes
from rollout.judge.reviewed import Decided, sum_reviewed
from rollout.keys import Keys
from rollout.routing.split import Split
from rollout.routing.traffic import EVIDENCE_KEPT_S
from rollout.store import Redis, decode_stored, guard


class Reviewed(msgspec.Struct, frozen=True, kw_only=True):
    """What people decided on a row of an arm.

    Attributes:
        at: When it was predicted, milliseconds since 1970.
        arm: The client's arm.
        client: A hash of the client's ID, 32 bits.
        revision: Revision of the split under which it was predicted.
        right: How far the answer was right, from 0 to 1.
        pi: The probability with which it came to review.
        is_audit: Whether it came as an audit.
    """

    at: int
    arm: str
    client: int
    revision: int
    right: float
    pi: float
    is_audit: bool


class ReviewedUntil(msgspec.Struct, frozen=True, kw_only=True):
    """How far everything of a trial that came to review is decided.

    Attributes:
        first: The revision with which the trial began.
        until: Everything that was predicted before is, milliseconds since 1970.
        kept_out: What limits had kept out of review when the trial began.
        is_whole: Whether they have kept nothing out since then, and nothing went unseen; if not, ``until`` stays
            where it was.
    """

    first: int
    until: int
    kept_out: int
    is_whole: bool = True


def client_hash(client_id: str) -> int:
    """Returns what tells a client from others among those whose rows were reviewed."""
    return zlib.crc32(client_id.encode("utf-8", "surrogatepass"))


async def read_until(redis: Redis, model: str) -> ReviewedUntil | None:
    """Returns how far everything is decided, if that is known.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async with guard():
        stored = await redis.get(Keys(model).reviewed_until)
    return None if stored is None else decode_stored(stored, ReviewedUntil, Keys(model).reviewed_until)


async def move_until(
    redis: Redis, model: str, first: int, until: int, kept_out: int, *, is_any_unseen: bool
) -> None:
    """Notes how far everything is decided.

    Args:
        redis: Connection.
        model: The model.
        first: The revision with which the trial began.
        until: Everything that was predicted before is decided, milliseconds since 1970.
        kept_out: What limits have kept out of review so far.
        is_any_unseen: Whether something was retired that nobody decided on.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    before = await read_until(redis, model)
    if before is None or before.first != first:
        before = ReviewedUntil(first=first, until=0, kept_out=kept_out)
    is_whole = before.is_whole and kept_out == before.kept_out and not is_any_unseen
    now = msgspec.structs.replace(before, is_whole=is_whole, until=until if is_whole else before.until)
    async with guard():
        await redis.set(Keys(model).reviewed_until, msgspec.json.encode(now), ex=EVIDENCE_KEPT_S)


async def read_reviewed(redis: Redis, model: str, stages: Sequence[Sequence[Split]]) -> Outcomes | None:
    """Returns the accuracy of both arms by what people decided; ``None`` where they have decided nothing.

    Args:
        redis: Connection.
        model: The model.
        stages: The trial's revisions, by stages.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    until = await read_until(redis, model)
    if until is None or until.first != stages[0][0].revision:
        return None
    async with guard():
        stored: Mapping[bytes, bytes] = await redis.hgetall(Keys(model).reviewed)  # type: ignore[assignment]
    stage_of = {split.revision: index for index, stage in enumerate(stages) for split in stage}
    arms: dict[str, list[Decided]] = {"control": [], "challenger": []}
    for value in stored.values():
        one = decode_stored(value, Reviewed, Keys(model).reviewed)
        if one.revision in stage_of:
            row = Decided(one.at, one.client, stage_of[one.revision], one.right, one.pi, one.is_audit)
            arms[one.arm].append(row)
    if not any(arms.values()):
        return None
    sums = {arm: sum_reviewed(rows, until.until, len(stages)) for arm, rows in arms.items()}
    return Outcomes(control=sums["control"], challenger=sums["challenger"])
