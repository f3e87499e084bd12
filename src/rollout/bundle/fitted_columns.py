"""The columns of a fitted estimator, taken out of the fields: numbers, and texts where a field is a category."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollout.bundle.fields import Field
from rollout.bundle.schema import Arrays
from rollout.bundle.table import Table
from rollout.bundle.texts import Category

Values = tuple[str, ...]


def text_columns(field: Field) -> list[Values | None]:
    """Returns for each column that a field holds the texts that it may be; ``None`` where it is a number."""
    if isinstance(field, Category):
        return [field.values]
    if isinstance(field, Table):
        return [one.values if isinstance(one, Category) else None for one in field.columns.values()]
    return [None] * math.prod(field.step_shape)


def is_columns(field: Field) -> bool:
    """Whether what a field holds can be columns."""
    return field.dtype == "float32" or isinstance(field, Category)


def read_columns(fields: Mapping[str, Field], inputs: Arrays) -> list[NDArray[Any]]:
    """Returns the columns as training code has them: ``float32``, and objects for texts, NaN if missing."""
    columns: list[NDArray[Any]] = []
    for name, field in fields.items():
        array = inputs[name]
        if isinstance(field, Category):
            texts = [row.tobytes().rstrip(b"\0").decode() or math.nan for row in array]
            columns.append(np.array(texts, object))
            continue
        flat = array.reshape(len(array), -1)
        for index, values in enumerate(text_columns(field)):
            codes = flat[:, index]
            columns.append(codes if values is None else _texts(codes, values))
    return columns


def _texts(codes: NDArray[Any], values: Values) -> NDArray[Any]:
    return np.array([math.nan if math.isnan(code) else values[int(code)] for code in codes], object)
