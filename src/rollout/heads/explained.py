"""Which number of an answer is explained: the answers of each kind of head have one, or one for each label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.errors import LONGEST_TEXT, FieldError, InvalidRequestError, invalid

NAMED = 20


class Explained(NamedTuple):
    """One number of an answer.

    Attributes:
        what: What it is, in words.
        label: The label that it is of; empty where it is of none.
        head: The head, of several, that it is of.
        read: Takes it from the head's numbers, shape ``(rows, columns)``, as ``float64`` of shape ``(rows,)``.
    """

    what: str
    label: str
    head: str
    read: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def within(self, head: str, own: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Explained:
        """Returns the same of one of several heads.

        Args:
            head: Its name.
            own: Takes its numbers from those of all.
        """
        return Explained(f"{self.what} of the head {head}", self.label, head, lambda all_: self.read(own(all_)))


def of_column(what: str, column: int, label: str = "") -> Explained:
    """Explains one column of the numbers."""
    return Explained(what, label, "", lambda numbers: numbers[:, column])


def of_surest(what: str, label: str, found: Callable[[Sequence[float]], Any]) -> Explained:
    """Explains how sure the surest of what was found with a label is; 0 where nothing was.

    Args:
        what: What it is, in words.
        label: The label.
        found: Takes what was found from a row of numbers, each with ``label`` and ``confidence``.
    """

    def read(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        sure = ([confidence for known, confidence in found(row) if known == label] for row in numbers.tolist())
        return np.array([max(one, default=0.0) for one in sure], np.float64)

    return Explained(what, label, "", read)


def require_name(kind: str, wanted: str, names: Sequence[str]) -> str:
    """Returns what somebody asks for, if it is there.

    Args:
        kind: ``label`` or ``head``.
        wanted: What they ask for.
        names: What there is.

    Raises:
        InvalidRequestError: If there is no such thing.
    """
    if wanted in names:
        return wanted
    if not any(names):
        raise invalid([FieldError(f"/{kind}", f"must be left out: this answer has no {kind} to choose")])
    further = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    raise invalid(
        [
            FieldError(
                f"/{kind}",
                f"{wanted[:LONGEST_TEXT]!r} is not there: take one of {', '.join(names[:NAMED])}{further}",
            )
        ]
    )


def require_neither(label: str, head: str) -> None:
    """Refuses a label and a head where an answer has one number alone."""
    require_name("label", label, [""])
    require_name("head", head, [""])


def refuse(summary: str) -> InvalidRequestError:
    """Returns the error of a head whose answers have no such number."""
    return InvalidRequestError(
        f"this model answers with {summary}: there is no one number in that which could be explained"
    )
