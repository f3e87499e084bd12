"""How often an arm is right, from what people decided on its own clients' rows.

What comes to review is no fair sample of an arm's rows: it is full of those that the version was unsure of, and
an arm that is unsure more often has more of them. Each row carries the probability ``pi`` with which it came, so
``1 / pi`` mends that (Horvitz & Thompson, "A generalization of sampling without replacement from a finite
universe", 1952). What that does not mend is which of them were looked at first: the least certain are. So only
rows count that were predicted before the earliest one that nobody has decided yet. Up to there people have seen
everything, in whatever order, and which rows are there depends on nothing but their time, the same for both arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from rollout.judge.client_sums import ClientSums, sum_clients


class Decided(NamedTuple):
    """A row of an arm that people have decided.

    Attributes:
        at: When it was predicted, in any unit.
        client: What tells its client from others.
        stage: Index of the stage.
        right: How far the answer was right, from 0 to 1.
        pi: The probability with which it came to review, above 0.
        is_audit: Whether it speaks for what the version was sure of.
    """

    at: float
    client: int
    stage: int
    right: float
    pi: float
    is_audit: bool = False


def sum_reviewed(decided: Sequence[Decided], until: float, stages: int) -> ClientSums:
    """Adds up an arm's rows as far as everything is decided, each ``1 / pi`` times.

    The number of clients is the effective one, ``sum(w)² / sum(w²)`` of their weights (Kish, "Survey Sampling",
    1965): a few audits that stand for hundreds of rows each say no more than few clients do. Without an audit
    there is nothing, since nobody knows of the rows that the version was sure of.

    Args:
        decided: The rows.
        until: Rows predicted before count.
        stages: How many there are.

    Example:
        >>> rows = [Decided(1, 7, 0, 1.0, 1.0), Decided(2, 8, 0, 0.0, 0.5, True), Decided(9, 9, 0, 0.0, 1.0)]
        >>> sum_reviewed(rows, until=9, stages=1).sums
        [1.0, 3.0]
    """
    seen = np.array([one for one in decided if one.at < until], float).reshape(-1, len(Decided._fields))
    _, client, stage, right, pi, is_audit = seen.T
    if not is_audit.any():
        return ClientSums(clients=0, sums=[0.0] * 2 * stages, products=[[0.0] * 2 * stages] * 2 * stages)
    places = np.unique(client, return_inverse=True)[1]
    vectors = np.zeros((places.max() + 1, 2 * stages))
    np.add.at(vectors, (places, 2 * stage.astype(int)), right / pi)
    np.add.at(vectors, (places, 2 * stage.astype(int) + 1), 1 / pi)
    weights = vectors[:, 1::2].sum(axis=1)
    effective = int(weights.sum() ** 2 / (weights**2).sum())
    return msgspec.structs.replace(sum_clients(vectors), clients=effective)
