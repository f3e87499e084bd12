"""Arrays of the author and of the bundle: how far they are apart, and what would make them the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, product
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.bundle.fields import Field

# What a sum of float32 in another order may do to the array of a field.
ROUNDING = 1e-5
# Settings of a field that are tried together.
MOST_TRIED = 500


def difference(
    ours: NDArray[Any], theirs: NDArray[Any], rounding: float = ROUNDING
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Compares arrays of the same shape; what is missing (NaN) in both is the same.

    Args:
        ours: The bundle's.
        theirs: The author's.
        rounding: Relative and absolute difference of floating-point numbers that counts as rounding.

    Returns:
        The absolute difference of each number, and whether it is more than rounding.
    """
    one, other = ours.astype(np.float64), theirs.astype(np.float64)
    with np.errstate(invalid="ignore"):
        far = np.where(np.isnan(one) & np.isnan(other), 0.0, np.abs(one - other))
    far = np.nan_to_num(far, nan=np.inf)
    allowed = rounding * (1 + np.abs(np.nan_to_num(other))) if ours.dtype.kind == "f" else 0.0
    return far, far > allowed


def fitting(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Returns an array in this shape, if it has it but for a leading batch of one row."""
    return array.reshape(shape) if array.shape in (shape, (1, *shape)) else None


def in_figures(figure: float | None) -> str:
    """Returns a difference with two digits, or more where it has more before the point."""
    if figure is None:
        return "–"
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.2g}"


def better_settings(field: Field, is_right: Callable[[Field], bool]) -> str:
    """Returns the first settings of a field that are right, as they would be written; empty if none are.

    Tried are the settings that have a few values to choose from, few changes first.
    """
    for settings, other in islice(_variations(field), MOST_TRIED):
        if is_right(other):
            words = ", ".join(f"{setting}={value!r}" for setting, value in settings.items())
            return f"{type(field).__name__}({words})"
    return ""


def other_order(ours: NDArray[Any], theirs: NDArray[Any], rounding: float) -> list[int] | None:
    """Returns where among the author's outputs each of ours is, if they are the same in another order.

    Args:
        ours: Shape ``(rows, outputs)``.
        theirs: The same.
        rounding: The absolute difference that counts as rounding.
    """
    far = np.abs(ours[:, :, None] - theirs[:, None, :]).max(0)  # of each of ours from each of theirs
    order: list[int] = far.argmin(1).tolist()
    is_same = len(set(order)) == ours.shape[1] and far.min(1).max() <= rounding
    return order if is_same and order != sorted(order) else None


def _variations(field: Field) -> Iterator[tuple[dict[str, Any], Field]]:
    choices: dict[str, list[Any]] = {}
    for setting in msgspec.structs.fields(type(field)):
        now = getattr(field, setting.name)
        others = [value for value in _values(msgspec.inspect.type_info(setting.type)) if value != now]
        choices[setting.name] = [now, *others]
    combined = (dict(zip(choices, values, strict=True)) for values in product(*choices.values()))
    changed = ({name: value for name, value in each.items() if value != choices[name][0]} for each in combined)
    for settings in sorted(filter(None, changed), key=len):
        try:
            yield settings, msgspec.structs.replace(field, **settings)
        except ValueError:  # they do not go together
            continue


def _values(kind: msgspec.inspect.Type) -> list[Any]:
    """Returns what a setting may be, where that is a few values."""
    if isinstance(kind, msgspec.inspect.UnionType):
        return [value for each in kind.types for value in _values(each)]
    if isinstance(kind, msgspec.inspect.LiteralType):
        return list(kind.values)
    return [False, True] if isinstance(kind, msgspec.inspect.BoolType) else []
