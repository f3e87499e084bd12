"""Sets of labels, said by a model or by people: what is wrong with one, and how far two are apart."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

NAMED = 20  # labels that a sentence names


def must_be_one_of(labels: Sequence[str]) -> str:
    """Says which labels there are, of very many the first."""
    return f"must be one of {', '.join(labels[:NAMED])}{', …' if len(labels) > NAMED else ''}"


def label_faults(said: Sequence[str], labels: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields what is wrong with a set of labels: one that there is not, or that is named twice.

    Args:
        said: The set.
        labels: The labels that there are.
    """
    known, seen = frozenset(labels), set[str]()
    for place, label in enumerate(said):
        if label not in known:
            yield f"/labels/{place}", must_be_one_of(labels)
        elif label in seen:
            yield f"/labels/{place}", f"{label} is there twice"
        seen.add(label)


def jaccard_distance(ones: Collection[str], others: Collection[str]) -> float:
    """Returns how far two sets are apart, from 0 to 1: 1 less the share of their union that is in both.

    Jaccard, "The Distribution of the Flora in the Alpine Zone", 1912; two empty sets are the same. The share of
    decisions that differ (Hamming) would hardly tell a set from an empty one where there are many labels of which
    few hold.
    """
    first, second = set(ones), set(others)
    return 1 - len(first & second) / len(first | second) if first or second else 0.0


def jaccard_distances(ones: NDArray[np.bool_], others: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Returns the same for each row of two arrays, both of shape ``(rows, labels)``; shape ``(rows,)``."""
    both, either = (ones & others).sum(1), (ones | others).sum(1)
    return np.where(either > 0, 1 - both / np.maximum(either, 1), 0.0)
