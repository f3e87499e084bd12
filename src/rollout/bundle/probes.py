"""Inputs that no data set has: random ones, those at the ends of what a field takes, and those with gaps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollout.bundle.audio import LOUDEST, Audio
from rollout.bundle.columns import each, ragged
from rollout.bundle.fields import Field
from rollout.bundle.numbers import Time
from rollout.bundle.schema import Arrays
from rollout.bundle.table import Table
from rollout.bundle.texts import Category, Text
from rollout.bundle.wire import Free

# Where a field sets no limits, numbers beyond this are nothing that a model could answer sensibly.
UNLIMITED = 1000.0
LETTERS = "aeinrstlo ETAOIN.,!? 0123456789 äöüßéèñçøłę 日本語 😀"
FIRST_SECOND, LAST_SECOND = -62135596800, 253402300799  # the years 1 to 9999
# Of the values that may be missing, so many are in random inputs.
GAPS = 0.2


def random_inputs(fields: dict[str, Field], rows: int, seed: int) -> Arrays:
    """Draws ``rows`` rows over everything that the fields take; a fifth of what may be missing is."""
    generator = np.random.default_rng(seed)
    drawn = {name: _random(field, rows, generator) for name, field in fields.items()}
    return {name: _with_gaps(field, drawn[name], generator) for name, field in fields.items()}


def extreme_inputs(fields: dict[str, Field]) -> Arrays:
    """Returns three rows: every field and free length at its lower end, at its upper end, and in the middle.

    Where something may be missing, the fourth row lacks all of it.
    """
    ends = {name: np.stack([_extreme(field, part) for part in (0.0, 1.0, 0.5)]) for name, field in fields.items()}
    middle = {name: column[2:] for name, column in ends.items()}
    lacking = {name: _without(field, middle[name]) for name, field in fields.items()}
    if all(lacking[name] is middle[name] for name in fields):
        return ends
    return {name: np.concatenate([ends[name], lacking[name]]) for name in fields}


def gaps(fields: dict[str, Field], row: Arrays) -> Iterator[tuple[str, Arrays]]:
    """Yields a row as often as something may be missing of it, without that, and what it is.

    Args:
        fields: The fields.
        row: For each field an array of shape ``(1, *field.shape)``, or a ragged column.
    """
    for name, field in fields.items():
        lacking = _without(field, row[name])
        for index, part in enumerate(field.parts):
            if np.any(np.broadcast_to(field.may_be_nan, field.step_shape)[index]):
                one = row[name].copy()
                one[:, index] = lacking[:, index]
                yield f"{name}.{part}", {**row, name: one}
        if not field.parts and (field.missing is not None or field.fill is not None):
            yield name, {**row, name: lacking}


def whole_rows(fields: dict[str, Field], rows: Arrays) -> NDArray[np.bool_]:
    """Returns which of some rows have everything that may be missing."""
    whole = np.ones(len(next(iter(rows.values()))), bool)
    for name, field in fields.items():
        array = rows[name]
        if field.fill is not None:
            whole &= [not np.isnan(row).any() for row in array]
        elif field.missing is not None:
            whole &= (array != field.missing).reshape(len(array), -1).any(1)
    return whole


def _without(field: Field, array: NDArray[Any]) -> NDArray[Any]:
    """Returns rows without all that may be missing of them."""
    fill = field.fill
    if fill is not None:
        return each(array, lambda part: np.where(field.may_be_nan, fill, part))
    return array if field.missing is None else np.stack([field.missing] * len(array))


def _with_gaps(field: Field, array: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    if field.fill is not None:
        return each(
            array, lambda part: np.where(generator.random(part.shape) < GAPS, _without(field, part), part)
        )
    if field.missing is not None:
        array = array.copy()
        array[generator.random(len(array)) < GAPS] = field.missing
    return array


def _random(field: Field, rows: int, generator: np.random.Generator) -> NDArray[Any]:
    if isinstance(field, Category):
        return field.encode([field.values[index] for index in generator.integers(len(field.values), size=rows)])
    if isinstance(field, Text):
        return field.encode([_text(field, int(size), generator) for size in generator.integers(0, 200, rows)])
    if isinstance(field, Table):
        drawn = [
            generator.integers(len(column.values), size=rows).astype(np.float32)
            if isinstance(column, Category)
            else _random(column, rows, generator)
            for column in field.columns.values()
        ]
        return np.stack(drawn, axis=1)
    if field.free is None:
        return _numbers(field, (rows, *field.step_shape), generator)
    sizes = _sizes(field.free, rows)
    return ragged(_numbers(field, (size, *field.step_shape), generator) for size in sizes)


def _sizes(free: Free, rows: int) -> list[int]:
    """Returns lengths of rows: the shortest and the longest, and between them as many short as long ones.

    Those of one name are the same ones, whatever the field.
    """
    spread = np.geomspace(1, free.longest, rows).round().astype(int)
    return [int(size) for size in np.random.default_rng(rows).permutation(spread)]


def _numbers(field: Field, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[Any]:
    low, high = _ends(field)
    if field.dtype == "float32":
        return generator.uniform(low, high, shape).astype(np.float32)
    return generator.integers(int(low), int(high), shape, endpoint=True).astype(field.dtype)


def _extreme(field: Field, part: float) -> NDArray[Any]:
    if isinstance(field, Category):
        return field.decode(field.values[round(part * (len(field.values) - 1))])
    if isinstance(field, Text):
        return field.decode("z" * round(part * field.max_bytes))
    if isinstance(field, Table):
        codes = [
            float(round(part * (len(column.values) - 1)))
            if isinstance(column, Category)
            else float(_extreme(column, part))
            for column in field.columns.values()
        ]
        return np.array(codes, np.float32)
    low, high = _ends(field)
    steps = 1 if field.free is None else max(1, round(part * field.free.longest))
    shape = (math.prod(field.step_shape) * steps,)
    if field.dtype == "float32":
        return field.shaped(np.full(shape, low + part * (high - low), np.float32))
    ends = {0.0: int(low), 1.0: int(high)}
    return field.shaped(np.full(shape, ends.get(part, (int(low) + int(high)) // 2), field.dtype))


def _text(field: Text, size: int, generator: np.random.Generator) -> str:
    text = "".join(LETTERS[index] for index in generator.integers(len(LETTERS), size=size))
    return text.encode()[: field.max_bytes].decode(errors="ignore")


def _ends(field: Any) -> tuple[float, float]:
    if isinstance(field, Time):
        return FIRST_SECOND, LAST_SECOND
    if isinstance(field, Audio):
        return -LOUDEST, LOUDEST
    low, high = field.limits
    if getattr(field, "minimum", 0.0) is None:
        low = max(low, min(-UNLIMITED, high))
    if getattr(field, "maximum", 0.0) is None:
        high = min(high, max(UNLIMITED, low))
    return low, high
