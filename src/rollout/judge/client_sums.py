"""The difference of two arms, from sums over their clients: of each stage of the ramp, and between stages.

The unit is the client: its rows are not independent of each other, nor are its rows in one stage of those in
the next, since a ramp keeps who is in. What is compared is the **ratio of sums**, the mean over rows, and not
the mean over clients of their means: it is what the traffic gets and what a margin is stated in, a client with
one row does not weigh as much as one with a thousand, and it needs sums only, which are kept up to date as rows
come. That clients have different numbers of rows, and that these are not known beforehand, is what the delta
method is for (Deng, Knoblich & Lu, "Applying the delta method in metric analytics", 2018).
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from rollout.judge.sequences import Floats


class ClientSums(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sums over the clients of an arm, each of whom is a vector: outcomes and rows of each stage.

    To add a row with the outcome ``y`` of a client that had the vector ``v``, in the stage ``k``: ``d`` is
    ``y`` at ``2 k``, 1 at ``2 k + 1`` and 0 elsewhere; ``sums += d`` and ``products += outer(v, d) + outer(d,
    v) + outer(d, d)``.

    Attributes:
        clients: Clients with a row.
        sums: Of the vectors, shape ``(2 * stages,)``.
        products: Of their outer products with themselves, shape ``(2 * stages, 2 * stages)``.
    """

    clients: int
    sums: list[float]
    products: list[list[float]]


def sum_clients(vectors: Floats) -> ClientSums:
    """Adds up clients.

    Args:
        vectors: Shape ``(clients, 2 * stages)``; those without a row are left out.

    Example:
        >>> sum_clients(np.array([[3.0, 4.0], [1.0, 1.0], [0.0, 0.0]])).products
        [[10.0, 13.0], [13.0, 17.0]]
    """
    present = vectors[vectors[:, 1::2].any(axis=1)]
    return ClientSums(
        clients=len(present), sums=present.sum(axis=0).tolist(), products=(present.T @ present).tolist()
    )


def sum_groups(clients: int, vectors: Floats) -> ClientSums:
    """Adds up groups of clients: as good as clients, since those of one group are in it by chance.

    Args:
        clients: How many clients there are in all groups together.
        vectors: Of each group the sum of its clients' vectors, shape ``(groups, 2 * stages)``.

    Example:
        >>> sum_groups(3, np.array([[3.0, 4.0], [1.0, 1.0]])).products
        [[10.0, 13.0], [13.0, 17.0]]
    """
    return msgspec.structs.replace(sum_clients(vectors), clients=clients)


class Arm(NamedTuple):
    """Sums over the clients of an arm as arrays, of one look or of many.

    Attributes:
        clients: Shape ``(...)``.
        sums: Shape ``(..., 2 * stages)``.
        products: Shape ``(..., 2 * stages, 2 * stages)``.
    """

    clients: Floats
    sums: Floats
    products: Floats


def as_arm(sums: ClientSums) -> Arm:
    """Returns the sums as arrays."""
    return Arm(np.array(sums.clients, float), np.array(sums.sums, float), np.array(sums.products, float))


class Difference(NamedTuple):
    """By how much the challenger's mean over rows is larger than control's.

    Attributes:
        rows: Rows of each arm that it rests on, where both arms have them.
        mean: The estimate.
        variance: Of one row, so that the estimate has ``variance / rows``.
    """

    rows: Floats
    mean: Floats
    variance: Floats


def difference(control: Arm, challenger: Arm, *, is_share: bool) -> Difference:
    """Compares two arms within each stage, and adds up the stages by their size.

    Pooled over stages, a base rate that drifts while the arms' shares change makes a difference where there is
    none (Simpson 1951). The weight of a stage is ``n1 * n0 / (n1 + n0)`` for its rows (Mantel & Haenszel 1959):
    half of an arm's where both are of one size, and none where one is empty. The variance is that of
    ``sum over stages of weight / n * (x - mean * n)`` over clients, which has what a client's rows in several
    stages have in common.

    Where every outcome is 0 or 1 and all of one kind, that is 0, which proves nothing: as though one client
    more had been on the other side with everything, ``1 / clients²`` is added, so that 100 clients leave about
    3 % open as in the rule of three (Hanley & Lippman-Hand 1983).

    Why it may be looked at any time: the errors of a sum over rows have at two times a covariance of at least
    the variance at the earlier one, since a client's rows only become more; Brownian motion has exactly that,
    and whatever hangs together more crosses a boundary less often (Slepian 1962). In units of rows its variance
    grows no faster than the sequence, ``asymptotic_mean(rows, mean, variance)``, makes room for.

    Args:
        control: The champion's arm.
        challenger: The challenger's.
        is_share: Whether outcomes lie between 0 and 1.
    """
    parts = [(arm, arm.sums[..., 0::2], arm.sums[..., 1::2]) for arm in (control, challenger)]
    (_, _, n0), (_, _, n1) = parts
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = np.where((n0 > 0) & (n1 > 0), n0 * n1 / (n0 + n1), 0)
        rows = weights.sum(axis=-1)
        means, variances = [], []
        for arm, x, n in parts:
            gradient_x = np.where(weights > 0, weights / n, 0) / rows[..., None]
            rates = np.where(weights > 0, x / n, 0)
            gradient = np.stack([gradient_x, -gradient_x * rates], axis=-1).reshape(arm.sums.shape)
            variance = np.einsum("...i,...ij,...j->...", gradient, arm.products, gradient)
            variance = np.maximum(variance, 0) * arm.clients / np.maximum(arm.clients - 1, 1)
            means.append((gradient_x * x).sum(axis=-1))
            variances.append(variance + (is_share / arm.clients**2))
        return Difference(2 * rows, means[1] - means[0], 2 * rows * (variances[0] + variances[1]))


def design_effect(sums: ClientSums) -> float:
    """Returns how many rows are worth one that is independent, for a share: 1 or more.

    The variance of the share over clients, divided by that of as many independent rows (Rao & Scott, "A simple
    method for the analysis of clustered binary data", 1992).

    Example:
        >>> design_effect(sum_clients(np.array([[10.0, 10.0], *[[0.0, 10.0]] * 9]))) > 10
        True
    """
    arm = as_arm(sums)
    x, n = float(arm.sums[0::2].sum()), float(arm.sums[1::2].sum())
    if not 0 < x < n:
        return 1.0
    share = x / n
    stages = len(arm.sums) // 2
    gradient = np.tile([1.0, -share], stages) / n
    variance = float(gradient @ arm.products @ gradient) * sums.clients / max(sums.clients - 1, 1)
    return max(1.0, variance / (share * (1 - share) / n))
