"""A row of named columns as one input: what a row of a DataFrame is to a tabular model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from rollout.bundle.apart import Apart, Part, features
from rollout.bundle.numbers import Number
from rollout.bundle.texts import Category
from rollout.bundle.wire import WireField
from rollout.judge.features import Features, named

Column = Number | Category

# Values of a column of texts from which ``Table.of`` makes a category: more are names, not kinds.
MOST_VALUES = 1000
# Beyond it, float32 leaves whole numbers out.
LARGEST_WHOLE = 2**24
# Columns that a sentence names.
NAMED = 20


class Table(WireField, frozen=True, kw_only=True, tag="table", dict=True):
    """A row of named columns, on the wire an object; the module gets ``float32`` of shape ``(rows, columns)``.

    A number is itself and a category is its index among its values, which is what trees and, after ``.long()``,
    ``nn.Embedding`` take. Where a column says that its value may be missing, it is NaN, or its default.

    Attributes:
        columns: The columns by name, numbers and categories, in the module's order. Seconds since 1970 do not
            fit a ``float32``: a ``Time`` is a field of its own beside the table.

    Example:
        >>> row = Table(columns={"age": Number(optional=True), "port": Category(values=("C", "Q", "S"))})
        >>> row.encode([{"age": 29, "port": "S"}, {"port": "C"}])
        array([[29.,  2.],
               [nan,  0.]], dtype=float32)
    """

    columns: Mapping[str, Column]

    def __post_init__(self) -> None:
        if not self.columns or not all(isinstance(name, str) and name for name in self.columns):
            raise ValueError("a table needs columns, and each a text for its name")
        for name, field in self.columns.items():
            if not isinstance(field, Column):
                raise ValueError(
                    f"column {name} is a {type(field).__name__}; a table is one array of float32, which holds "
                    "numbers and categories: make it an input of its own beside the table"
                )

    @classmethod
    def of(cls, frame: Any) -> Table:
        """Derives the columns from a DataFrame of pandas.

        Numbers become ``Number``, truth values ``Number`` from 0 to 1, and texts and categories a ``Category``
        of the values that are there, in the order of a categorical dtype or else sorted. A column in which a
        value is
        missing may be missing.

        Args:
            frame: Rows that the model is trained on, without the target.

        Raises:
            ValueError: If a column is none of these: a time, mixed objects, texts of more than 1,000 values,
                whole numbers that float32 cannot tell apart, or a name that is no text or there twice.

        Example:
            >>> import pandas as pd
            >>> list(Table.of(pd.DataFrame({"age": [29, None], "port": ["S", "C"]})).columns.values())
            [Number(optional=True, default=UNSET, minimum=None, maximum=None), \
Category(optional=UNSET, default=UNSET, values=('C', 'S'), other=UNSET)]
        """
        names = list(frame.columns)
        if len(set(names)) != len(names):
            raise ValueError("two columns of the frame have the same name")
        return cls(columns={name: _derive(name, frame[name]) for name in names})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row, without the batch dimension."""
        return (len(self.columns),)

    @property
    def dtype(self) -> Literal["float32"]:
        """The dtype of the array that the model takes."""
        return "float32"

    @property
    def parts(self) -> Mapping[str, Column]:
        """The columns by name."""
        return self.columns

    @cached_property
    def limits(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The smallest and the largest number taken in each column."""
        low, high = zip(*(field.code_limits for field in self.columns.values()), strict=True)
        return np.array(low, np.float32), np.array(high, np.float32)

    @cached_property
    def fill(self) -> NDArray[np.float32] | None:
        """What the module gets in each column where it is missing; ``None`` where none may be."""
        if not self.may_be_nan.any():
            return None
        fields = self.columns.values()
        return np.array([np.nan if field.missing is None else field.code(None) for field in fields], np.float32)

    @cached_property
    def may_be_nan(self) -> NDArray[np.bool_]:
        """Which columns may be missing."""
        return np.array([field.missing is not None for field in self.columns.values()])

    @property
    def wire_type(self) -> Any:
        """The type that ``msgspec`` checks the JSON value against."""
        return self._type("Table")

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        names = ", ".join([*self.columns][:NAMED])
        further = len(self.columns) - NAMED
        return f"an object with {names}" + (f" and {further:,} more" if further > 0 else "")

    def declaration(self, name: str) -> tuple[Any, ...]:
        """Returns its type, which is called ``name``."""
        return (self._type(name),)

    def decode(self, value: Any) -> NDArray[np.float32]:
        """Turns an object that passed ``wire_type`` into an array of shape ``(columns,)``.

        Raises:
            ValueError: If a number does not fit a finite ``float32``.
        """
        cells = zip(self._coders, msgspec.structs.astuple(value), strict=True)
        with np.errstate(over="ignore"):
            array = np.array([code(cell) for code, cell in cells], np.float32)
        if np.isinf(array).any():
            name = [*self.columns][int(np.isinf(array).argmax())]
            raise ValueError(f"{name} must fit a finite float32")
        return array

    def take_apart(self, row: NDArray[Any], background: NDArray[Any]) -> Apart:
        """Takes the row apart into its columns."""
        parts = [
            Part(part=name, value="missing" if np.isnan(code) else f"{field.value_of(code)}")
            for (name, field), code in zip(self.columns.items(), row.tolist(), strict=True)
        ]
        return features(row, parts, np.arange(len(row)))

    def admit(self, array: NDArray[Any]) -> NDArray[Any]:
        """Checks rows that came as an array of shape ``(rows, columns)``, and fills in what is missing.

        Raises:
            ValueError: If a number is none that its column takes; the sentence says where.
        """
        low, high = self.limits
        is_missing = np.isnan(array) & self.may_be_nan
        is_fit = (array >= low) & (array <= high) & (~self._is_index | (array == np.rint(array)))
        if not (is_fit | is_missing).all():
            row, column = np.argwhere(~(is_fit | is_missing))[0].tolist()
            name, field = [*self.columns.items()][column]
            what = f"the index of {field.expected}" if self._is_index[column] else field.expected
            raise ValueError(f"holds {array[row, column]} at {[row, column]}, in {name}; it must be {what}")
        return array if self.fill is None else np.where(is_missing, self.fill, array)

    def keep(self, sent: msgspec.Raw | None, array: NDArray[Any]) -> Any:
        """Returns what is kept of a row for a reviewer: an object, without what is missing."""
        if sent is not None:
            return super().keep(sent, array)
        cells = zip(self.columns.items(), array.tolist(), strict=True)
        return {name: field.value_of(code) for (name, field), code in cells if not np.isnan(code)}

    def features(self, column: NDArray[Any]) -> Features:
        """Returns those of each column, by its name."""
        found: Features = {}
        for place, (name, field) in enumerate(self.columns.items()):
            found |= named(name, field.features_of_codes(column[:, place]))
        return found

    def encode(self, values: Any) -> NDArray[np.float32]:
        """Turns rows into a batch, shape ``(rows, columns)``: for training code.

        Args:
            values: A DataFrame of pandas with these columns, others are left out; or a sequence of mappings, as a
                caller would send them. ``None``, NaN, NaT and NA are missing values.

        Raises:
            ValueError: If a column is not there, or a value does not fit or is missing and must not be.
        """
        cells = self._cells_of_frame(values) if hasattr(values, "columns") else self._cells_of_rows(list(values))
        columns = []
        for name, field in self.columns.items():
            try:
                columns.append(field.codes(cells[name]))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return np.stack(columns, axis=1)

    def _cells_of_frame(self, frame: Any) -> Mapping[str, Iterable[Any]]:
        if lacking := [name for name in self.columns if name not in frame.columns]:
            raise ValueError(f"the frame lacks {', '.join(lacking)}")
        return {name: frame[name] for name in self.columns}

    def _cells_of_rows(self, rows: list[Mapping[str, Any]]) -> Mapping[str, Iterable[Any]]:
        if unknown := set().union(*rows) - self.columns.keys():
            raise ValueError(
                f"{', '.join(map(str, sorted(unknown)))}: not a column of this table; it must be {self.expected}"
            )
        return {name: [row.get(name) for row in rows] for name in self.columns}

    @cached_property
    def _coders(self) -> list[Any]:
        return [field.code for field in self.columns.values()]

    @cached_property
    def _is_index(self) -> NDArray[np.bool_]:
        return np.array([isinstance(field, Category) for field in self.columns.values()])

    def _type(self, name: str) -> Any:
        # Names of columns need not be identifiers, names of attributes must be.
        attributes = {f"column_{index}": column for index, column in enumerate(self.columns)}
        return msgspec.defstruct(
            name,
            [(attribute, *self.columns[column].declaration(name)) for attribute, column in attributes.items()],
            rename=attributes,
            forbid_unknown_fields=True,
            kw_only=True,
        )


def _derive(name: str, column: Any) -> Column:
    optional = True if column.isna().any() else UNSET
    known = column.dropna()
    kind = column.dtype.kind
    if kind == "b":
        return Number(minimum=0, maximum=1, optional=optional)
    if kind in "iuf":
        if kind != "f" and len(known) and max(abs(int(known.min())), abs(int(known.max()))) > LARGEST_WHOLE:
            raise ValueError(
                f"column {name} has whole numbers beyond {LARGEST_WHOLE:,}, which float32 cannot tell apart: "
                "leave an identifier out, or scale a quantity"
            )
        return Number(optional=optional)
    if kind != "O":
        raise ValueError(
            f"column {name} is {column.dtype}: a table holds numbers and categories; make a time a Time of its "
            "own beside the table"
        )
    is_categorical = hasattr(column.dtype, "categories")
    values = column.dtype.categories.tolist() if is_categorical else known.unique().tolist()
    if not values or not all(isinstance(value, str) for value in values):
        raise ValueError(
            f"column {name} has values that are no texts, or none at all: make them texts, or numbers"
        )
    if len(values) > MOST_VALUES:
        raise ValueError(
            f"column {name} has {len(values):,} different texts, and a category at most {MOST_VALUES:,}: make "
            "the rare ones one value and declare that as other=, or leave the column out"
        )
    try:
        return Category(values=tuple(values if is_categorical else sorted(values)), optional=optional)
    except ValueError as error:
        raise ValueError(f"column {name}: {error}") from None
