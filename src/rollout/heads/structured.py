"""Of several heads: their answers as one, their targets as one structured array, and figures of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_type_hints

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError


class SeveralAnswer(NamedTuple):
    """The answers of all heads, by name."""

    heads: dict[str, dict[str, Any]]


def described(name: str, answers: Mapping[str, type[tuple[Any, ...]]]) -> type[tuple[Any, ...]]:
    """Returns ``SeveralAnswer`` with the fields of each head, for a schema.

    Args:
        name: What the object of all heads is called there.
        answers: By the name of a head, what it answers with.
    """
    parts = [
        (
            own,
            msgspec.defstruct(
                f"{name}_{own}",
                list(get_type_hints(kind, include_extras=True).items()),
                namespace={"__doc__": kind.__doc__},
            ),
        )
        for own, kind in answers.items()
    ]
    found: Any = NamedTuple("SeveralAnswer", [("heads", msgspec.defstruct(name, parts))])  # type: ignore[misc]
    found.__doc__ = SeveralAnswer.__doc__
    return found


def targets_of(**targets: NDArray[Any] | Sequence[Any]) -> NDArray[Any]:
    """Makes the targets of several heads: a structured array with a field for each.

    Args:
        targets: By the name of the head its targets, each of the same number of rows.

    Returns:
        Shape ``(rows,)``.

    Raises:
        BundleError: If they have different numbers of rows.

    Example:
        >>> targets_of(late=[0, 1], minutes=[81.0, 95.5])["minutes"]
        array([81. , 95.5])
    """
    columns = {name: np.asarray(column) for name, column in targets.items()}
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) != 1:
        raise BundleError(f"the targets have different numbers of rows: {counts}")
    fields = [(name, column.dtype, column.shape[1:]) for name, column in columns.items()]
    table = np.empty(next(iter(counts.values())), fields)
    for name, column in columns.items():
        table[name] = column
    return table


def without_name(name: str, figures: Mapping[str, float]) -> dict[str, float]:
    """Returns the figures of one head, without its name."""
    start = f"{name}_"
    return {figure.removeprefix(start): value for figure, value in figures.items() if figure.startswith(start)}
