"""Inputs that no data set has: random ones, and those at the ends of what a field takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollout.bundle.columns import ragged
from rollout.bundle.fields import Category, Field, Text, Time
from rollout.bundle.schema import Arrays
from rollout.bundle.wire import Free

# Where a field sets no limits, numbers beyond this are nothing that a model could answer sensibly.
UNLIMITED = 1000.0
LETTERS = "aeinrstlo ETAOIN.,!? 0123456789 äöüßéèñçøłę 日本語 😀"
FIRST_SECOND, LAST_SECOND = -62135596800, 253402300799  # the years 1 to 9999


def random_inputs(fields: dict[str, Field], rows: int, seed: int) -> Arrays:
    """Draws ``rows`` rows over everything that the fields take."""
    generator = np.random.default_rng(seed)
    return {name: _random(field, rows, generator) for name, field in fields.items()}


def extreme_inputs(fields: dict[str, Field]) -> Arrays:
    """Returns three rows: every field and free length at its lower end, at its upper end, and in the middle."""
    return {name: np.stack([_extreme(field, part) for part in (0.0, 1.0, 0.5)]) for name, field in fields.items()}


def _random(field: Field, rows: int, generator: np.random.Generator) -> NDArray[Any]:
    if isinstance(field, Category):
        return field.encode([field.values[index] for index in generator.integers(len(field.values), size=rows)])
    if isinstance(field, Text):
        return field.encode([_text(field, int(size), generator) for size in generator.integers(0, 200, rows)])
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


def _numbers(field: Any, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[Any]:
    low, high = _ends(field)
    if field.dtype == "float32":
        return generator.uniform(low, high, shape).astype(np.float32)
    return generator.integers(int(low), int(high), shape, endpoint=True).astype(field.dtype)


def _extreme(field: Field, part: float) -> NDArray[Any]:
    if isinstance(field, Category):
        return field.decode(field.values[round(part * (len(field.values) - 1))])
    if isinstance(field, Text):
        return field.decode("z" * round(part * field.max_bytes))
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
    low, high = field.limits
    if getattr(field, "minimum", 0.0) is None:
        low = max(low, min(-UNLIMITED, high))
    if getattr(field, "maximum", 0.0) is None:
        high = min(high, max(UNLIMITED, low))
    return low, high
