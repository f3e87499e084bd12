"""The export: a row for each prediction that people decided on, with its label and all that is known about it."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Callable, Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec

from rollout.bundle.lineage import HEADS
from rollout.bundle.manifest import digest, read_manifest
from rollout.errors import BundleError, InvalidRequestError
from rollout.heads import Truth
from rollout.review.access_log import record_access
from rollout.review.item import Reason, ReviewItem
from rollout.review.outcomes import Outcome, read_outcomes
from rollout.review.queue import CHUNK, matches, share
from rollout.review.records import Record, read_changes
from rollout.review.state import State
from rollout.store import Redis

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
NOTHING: Mapping[str, str] = {}

T = TypeVar("T")
Lineage = Callable[[str], dict[str, Any] | None]


class ExportRow(Truth, frozen=True, kw_only=True):
    """A prediction with the answer that people agreed on, in the form that its model takes.

    Attributes:
        id: The item; a later row with the same ID replaces this one.
        model: The model.
        client_id: The caller's own ID of the client.
        key: The caller's own ID of the prediction, if it gave one.
        inputs: The inputs as the caller sent or could have sent them; ``null`` once they are gone.
        retracted: Whether the answer was taken back; then there is none.
        reviewers: Who answered, the first first.
        explained: Who of them had seen an explanation of the model's answer before.
        agreement: Share of their answers that became the label; ``None`` where there is none.
        reason: Why it was reviewed.
        pi: Probability with which it came to review, for weighted estimates.
        at: When it was predicted, ISO 8601 in UTC.
        decided_at: When it was decided, likewise; ``None`` where it is open again.
        arm: The client's arm.
        version: The version that answered.
        variant: The variant that answered.
        revision: Revision of the split under which it was decided.
        threshold: The figure that sends a prediction to review, if there is one.
        unsure: The head, of several, that sent it to review.
        predicted: What the model answered, as it went out.
        other: What the challenger made of it unseen, if it was asked: its version and its answer.
        outcome: What the caller reported for it, if it did by now: that, and ``at``.
        lineage: Where the version comes from: digest, code, data, environment; ``None`` where this machine does
            not have its bundle.
        linked_to: The item of the same inputs whose label this prediction shares, if it is not an item itself.
        cursor: Where to go on after this row.
    """

    id: str
    model: str
    client_id: str
    key: str | None
    inputs: msgspec.Raw
    retracted: bool
    reviewers: list[str]
    explained: list[str]
    agreement: float | None
    reason: Reason
    pi: float
    at: str
    decided_at: str | None
    arm: str
    version: str
    variant: str
    revision: int
    threshold: float | None
    unsure: str | None
    predicted: dict[str, Any]
    other: dict[str, Any] | None
    outcome: dict[str, Any] | None
    lineage: dict[str, Any] | None
    linked_to: str | None
    cursor: int


async def export_rows(
    redis: Redis,
    model: str,
    since: int | None,
    lineage: Lineage,
    *,
    who: str,
    role: str,
    filters: Mapping[str, str] = NOTHING,
) -> AsyncIterator[ExportRow]:
    """Yields a row for every decided item and for each prediction linked to it, in the order of decisions.

    Args:
        redis: Connection.
        model: The model.
        since: Cursor of the last row seen; later ones are given, and labels that were taken back. All labels that
            stand where it is ``None``.
        lineage: Says where a version comes from, as ``read_lineage`` returns it.
        who: Who sees the rows, for the access log.
        role: The role of their token.
        filters: Fields of ``ReviewItem`` with the values wanted, and ``label``.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async for records in in_chunks(
        read_changes(redis, model, since or 0), lambda record: share(record.item) + len(record.links)
    ):
        found = [
            (record, shown)
            for record in records
            if since is not None or record.work.state is State.RESOLVED
            for shown in [_predictions(record, filters)]
        ]
        ids = [prediction.id for _, shown in found for prediction in shown]
        await record_access(redis, model, who, role, "export", ids)
        outcomes = dict(zip(ids, await read_outcomes(redis, model, ids), strict=True))
        for record, shown in found:
            for place, prediction in enumerate(shown, start=1):
                # Whoever stops among the rows of an item goes on with all of them.
                cursor = record.cursor - (place < len(shown))
                yield _row(record, prediction, outcomes[prediction.id], lineage(prediction.version), cursor)


encode_row: Callable[[ExportRow], bytes] = msgspec.json.Encoder().encode


def read_since(text: str) -> int:
    """Reads where an export goes on: the cursor of a row, or a time, from which on all decisions are given.

    Raises:
        InvalidRequestError: If it is neither.

    Example:
        >>> read_since("2026-11-22T10:00:00Z"), read_since("1795341600000000")
        (1795341599999999, 1795341600000000)
    """
    if text.isascii() and text.isdecimal() and len(text) < 20:
        return int(text)
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(
            f"since must be the cursor of a row or a time in ISO 8601, such as 2026-11-22T10:00:00Z, not {text!r}"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - EPOCH) // datetime.timedelta(microseconds=1) - 1


def read_lineage(model: str) -> Lineage:
    """Returns what says where a version of a model comes from; it reads each manifest once."""
    from rollout.bundle.store import bundle_path  # noqa: PLC0415  it imports BentoML

    @cache
    def read(version: str) -> dict[str, Any] | None:
        try:
            manifest = read_manifest(bundle_path(f"{model}:{version}"))
        except BundleError:
            return None
        entries = [entry for head in HEADS.values() for entry in head]
        known = {entry: manifest.lineage[entry] for entry in entries if entry in manifest.lineage}
        return {"digest": digest(manifest), "created_at": manifest.created_at, **known}

    return read


async def in_chunks(found: AsyncIterator[T], size: Callable[[T], int] = lambda _: 1) -> AsyncIterator[list[T]]:
    """Yields what is found in groups that have a size of ``CHUNK`` together, or hardly more.

    Args:
        found: What is found.
        size: Of one of it.
    """
    chunk: list[T] = []
    together = 0
    async for one in found:
        chunk.append(one)
        together += size(one)
        if together >= CHUNK:
            yield chunk
            chunk, together = [], 0
    yield chunk


def _predictions(record: Record, filters: Mapping[str, str]) -> list[ReviewItem]:
    links = sorted(record.links, key=lambda link: (link.at, link.id))
    return [prediction for prediction in (record.item, *links) if matches(prediction, filters, blind=False)]


def _row(
    record: Record, item: ReviewItem, outcome: Outcome | None, lineage: dict[str, Any] | None, cursor: int
) -> ExportRow:
    work = record.work
    retracted = work.state is not State.RESOLVED
    final = work.truth
    return ExportRow(
        id=item.id,
        model=item.model,
        client_id=item.client_id,
        key=item.key,
        inputs=record.item.inputs,
        **msgspec.structs.asdict(final),
        retracted=retracted,
        reviewers=[review.reviewer for review in work.reviews],
        explained=[review.reviewer for review in work.reviews if review.explained],
        agreement=None
        if retracted
        else sum(item.head.agreed(review.truth, final) is not None for review in work.reviews)
        / len(work.reviews),
        reason=item.reason,
        pi=item.pi,
        at=item.at,
        decided_at=work.decided_at,
        arm=item.arm,
        version=item.version,
        variant=item.variant,
        revision=item.revision,
        threshold=item.threshold,
        unsure=item.unsure,
        predicted=item.answer,
        other=item.other,
        outcome=None if outcome is None else {**outcome.said, "at": outcome.at},
        lineage=lineage,
        linked_to=item.linked_to,
        cursor=cursor,
    )
