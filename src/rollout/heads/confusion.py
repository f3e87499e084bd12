"""What was taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Places that overlap by less have nothing to do with each other.
BARELY = 0.1


class Confusion(NamedTuple):
    """One label that was taken for another.

    Attributes:
        truth: What was true.
        answer: What was answered.
        rows: The rows, by their numbers.
        of: Rows of which that was true.
    """

    truth: str
    answer: str
    rows: NDArray[np.intp]
    of: int


def class_confusions(labels: Sequence[str], answers: NDArray[Any], targets: NDArray[Any]) -> list[Confusion]:
    """Returns the pairs of two classes, the most frequent first.

    Args:
        labels: The classes.
        answers: For each row the index of the class that was answered, shape ``(rows,)``.
        targets: The index of the true one, likewise.
    """
    of = np.bincount(targets, minlength=len(labels))
    wrong = np.flatnonzero(answers != targets)
    pairs, where = np.unique(np.stack([targets[wrong], answers[wrong]], axis=1), axis=0, return_inverse=True)
    found = [
        Confusion(labels[truth], labels[answer], wrong[where.ravel() == pair], int(of[truth]))
        for pair, (truth, answer) in enumerate(pairs.tolist())
    ]
    return most_frequent(found)


def most_frequent(found: list[Confusion]) -> list[Confusion]:
    """Orders pairs, those of most rows first."""
    return sorted(found, key=lambda each: (-len(each.rows), each.truth, each.answer))


class Places(NamedTuple):
    """The labelled places of one row: boxes in an image, spans in a text.

    Attributes:
        truths: Labels of the true ones.
        answers: Labels of those that were answered.
        overlaps: How much of both is the same, from 0 to 1, shape ``(truths, answers)``.
    """

    truths: Sequence[str]
    answers: Sequence[str]
    overlaps: NDArray[np.float64]


def place_confusions(rows: Iterable[Places], nothing: str, other: str, same: float) -> list[Confusion]:
    """Returns what was taken for what where rows have several labelled places each, the most frequent first.

    Each place is paired with one at most, right ones first and then those that overlap most.

    Args:
        rows: The places of each row.
        nothing: What is said of a place where nothing is, such as ``no box``.
        other: What is said of an answer with the right label that overlaps too little, such as ``other edges``.
        same: The overlap from which on places are the same.
    """
    found: dict[tuple[str, str], set[int]] = {}
    of = Counter[str]()
    count = 0
    for row, (truths, answers, overlaps) in enumerate(rows):
        count += 1
        of.update(set(truths))
        alike = np.array(truths, object)[:, None] == np.array(answers, object)[None, :]
        ones, others = np.nonzero(overlaps >= BARELY)
        ranked = sorted(
            zip(ones.tolist(), others.tolist(), strict=True),
            key=lambda pair: (-int(alike[pair] and overlaps[pair] >= same), -overlaps[pair]),
        )
        paired: dict[int, int] = {}
        for one, another in ranked:
            if one not in paired and another not in paired.values():
                paired[one] = another
                if not alike[one, another]:
                    found.setdefault((truths[one], answers[another]), set()).add(row)
                elif overlaps[one, another] < same:
                    found.setdefault((truths[one], f"{truths[one]}, {other}"), set()).add(row)
        for one in set(range(len(truths))) - set(paired):
            found.setdefault((truths[one], nothing), set()).add(row)
        for another in set(range(len(answers))) - set(paired.values()):
            found.setdefault((nothing, answers[another]), set()).add(row)
    of[nothing] = count
    return most_frequent(
        [
            Confusion(truth, answer, np.array(sorted(wrong), np.intp), of[truth])
            for (truth, answer), wrong in found.items()
        ]
    )
