"""Labels made elsewhere, on their way in: read from a file, and taken over one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from rollout.errors import NO_JSON, InvalidRequestError, LeaseLostError, UnknownItemError
from rollout.heads import Truth
from rollout.review.actions import Said, take_over
from rollout.review.item import item_id
from rollout.store import Redis

LONGEST_NAME = 128


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that was given elsewhere.

    Attributes:
        place: Where it stands in its file.
        item_id: The item.
        said: The answer, or what reads it for the head of the item.
        reviewer: Who gave it, if the file says so.
    """

    place: str
    item_id: str
    said: Said
    reviewer: str | None


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What was not taken over.

    Attributes:
        place: Where it stands in its file.
        why: The reason, in a sentence.
    """

    place: str
    why: str


class Imported(msgspec.Struct, kw_only=True):
    """What became of the labels of a file.

    Attributes:
        taken: Items that were resolved by them.
        already_there: Items that had the same answer already.
        conflicts: Items that were resolved otherwise.
        unknown: Items that the queue does not have.
        refused: What cannot be an answer.
    """

    taken: int = 0
    already_there: int = 0
    conflicts: list[Fault] = []
    unknown: list[Fault] = []
    refused: list[Fault] = []

    @property
    def is_whole(self) -> bool:
        """Whether every label is in the queue now."""
        return not (self.conflicts or self.unknown or self.refused)


class _Row(Truth, frozen=True, kw_only=True):
    id: str | None = None
    client_id: str | None = None
    key: str | None = None
    reviewer: str | None = None


def read_label(place: str, row: Mapping[str, Any], said: Said | None = None) -> Label | Fault:
    """Reads a label: ``id``, or ``client_id`` and ``key``; the answer; ``reviewer`` if it says so.

    Args:
        place: Where it stands in its file.
        row: What stands there.
        said: Reads the answer; without it, the row has it in one form of ``Truth``.
    """
    try:
        found = msgspec.convert(row, _Row)
    except msgspec.ValidationError as error:
        return Fault(place=place, why=str(error))
    if said is None:
        said = found.truth
        if len(said.forms) != 1:
            return Fault(place=place, why="it needs one answer, such as a label or a value, and not several")
    if found.reviewer is not None and not is_name(found.reviewer):
        return Fault(place=place, why=f"reviewer must be 1 to {LONGEST_NAME} printable characters")
    if found.id is not None:
        item = found.id
    elif found.client_id is not None and found.key is not None:
        item = item_id(found.client_id, found.key, b"")
    else:
        return Fault(place=place, why="it needs an id, or a client_id and a key")
    return Label(place=place, item_id=item, said=said, reviewer=found.reviewer)


def is_name(reviewer: str) -> bool:
    """Whether somebody may be called so."""
    return 0 < len(reviewer) <= LONGEST_NAME and reviewer.isprintable()


def read_lines(lines: Iterable[bytes]) -> Iterator[Label | Fault]:
    """Yields the labels of a file of JSON lines, such as an export."""
    for number, line in enumerate(lines, start=1):
        text = line.strip(b"\xef\xbb\xbf \t\r\n")
        if not text:
            continue
        place = f"line {number}"
        try:
            row = msgspec.json.decode(text, type=dict[str, Any])
        except NO_JSON as error:
            yield Fault(place=place, why=f"it is no JSON object: {error}")
        else:
            yield read_label(place, row)


async def take_labels(redis: Redis, model: str, labels: Iterable[Label | Fault], reviewer: str) -> Imported:
    """Resolves items by answers that were given elsewhere.

    Args:
        redis: Connection.
        model: The model.
        labels: The answers, and what was found to be none.
        reviewer: Who gave those that do not say.

    Raises:
        StoreUnavailableError: If Redis does not answer; some may be taken, and taking them again is safe.
    """
    imported = Imported()
    for label in labels:
        if isinstance(label, Fault):
            imported.refused.append(label)
            continue
        try:
            is_new = await take_over(redis, model, label.item_id, label.reviewer or reviewer, label.said)
        except LeaseLostError as error:
            imported.conflicts.append(Fault(place=label.place, why=error.detail))
        except UnknownItemError as error:
            imported.unknown.append(Fault(place=label.place, why=error.detail))
        except InvalidRequestError as error:
            imported.refused.append(Fault(place=label.place, why=error.detail))
        else:
            imported.taken += is_new
            imported.already_there += not is_new
    return imported
