"""A model that comes as a file: its inputs, targets and parts are derived from the file and a table of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from rollout.bundle.artefact import kind_of, load_artefact
from rollout.bundle.estimators import as_identifier
from rollout.bundle.fields import Field, Tensor
from rollout.bundle.lineage import hash_rows
from rollout.bundle.numbers import Number
from rollout.bundle.scalar import is_missing
from rollout.bundle.schema import Arrays, Labelled
from rollout.bundle.texts import Category
from rollout.errors import ConfigError
from rollout.heads import Head
from rollout.words import plural

SPLIT = "every other row, in the order of the file: the first calibrates, the second evaluates, and so on"
TABLE = "table"
FEWEST = 3  # with two that calibrate

Columns = Mapping[str, NDArray[Any]]


class Derived(NamedTuple):
    """What follows from a file and its rows.

    Attributes:
        inputs: The input schema.
        calibration: Half of the rows.
        evaluation: The other half.
        lineage: What the manifest says of the rows.
    """

    inputs: dict[str, Field]
    calibration: Labelled
    evaluation: Labelled
    lineage: dict[str, Any]


def derive(file: Path, data: Path, task: Head, *, target: str = "target", trust_pickle: bool = False) -> Derived:
    """Derives the inputs of a model that comes as a file.

    Args:
        file: The artefact.
        data: Rows that it was not trained on: ``.npz`` with an array for each input, or ``.csv`` or ``.parquet``
            with columns of numbers, and of texts where it is fitted on those.
        task: What it answers.
        target: The name of the array or column that holds the index or the name of the label, or the value.
        trust_pickle: Whether a pickle may be read.

    Raises:
        ConfigError: If the rows cannot be read or do not have what is needed.
        BundleError: If the artefact cannot be read.
    """
    thing = load_artefact(file, trust_pickle=trust_pickle)
    kind = kind_of(thing)
    columns = dict(_read(data))
    if target not in columns:
        raise ConfigError(f"{data} has no {target!r}; it has {', '.join(columns)}: say --target NAME")
    targets = _targets(columns.pop(target), task, data)
    if not columns:
        raise ConfigError(f"{data} has nothing but targets")
    if data.suffix != ".npz" and not kind.has_columns:
        columns = {TABLE: np.stack([_number(column, name) for name, column in columns.items()], axis=1)}
    wanted, texts = kind.inputs(thing), kind.known_texts(thing)
    names = wanted if set(wanted) == set(columns) else list(columns)
    fields: dict[str, Field] = {}
    arrays: Arrays = {}
    for name in names:
        known = None if texts is None else texts.get(name, ())
        fields[as_identifier(name)], arrays[as_identifier(name)] = _field(columns[name], name, known)
    lengths = {len(array) for array in (*arrays.values(), targets)}
    if len(lengths) != 1:
        raise ConfigError(
            f"{data}: the arrays have {', '.join(map(str, sorted(lengths)))} rows, not the same number"
        )
    if len(targets) < FEWEST:
        raise ConfigError(f"{data} has {plural(len(targets), 'row')}: {FEWEST} at least calibrate and evaluate")
    first, second = (
        Labelled({name: array[start::2] for name, array in arrays.items()}, targets[start::2]) for start in (0, 1)
    )
    described = {
        "source": data.name,
        "split": SPLIT,
        "rows": [len(first.targets), len(second.targets)],
        "sha256": hash_rows(first, second),
    }
    return Derived(fields, first, second, {"data": described})


def _read(data: Path) -> Columns:
    reader = READERS.get(data.suffix)
    if reader is None:
        raise ConfigError(f"{data}: rows are read from {', '.join(READERS)}")
    try:
        return reader(data)
    except ImportError as error:
        raise ConfigError(f"{data.suffix} needs {error.name}: pip install 'rollout[batch]'") from error
    except Exception as error:
        raise ConfigError(f"{data} cannot be read: {error}") from error


def _npz(data: Path) -> Columns:
    with np.load(data, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _csv(data: Path) -> Columns:
    import pyarrow.csv  # noqa: PLC0415  of the extra `batch`

    return _columns(pyarrow.csv.read_csv(data))


def _parquet(data: Path) -> Columns:
    import pyarrow.parquet  # noqa: PLC0415

    return _columns(pyarrow.parquet.read_table(data))


def _columns(table: Any) -> Columns:
    return {name: table[name].to_numpy() for name in table.column_names}


READERS: dict[str, Callable[[Path], Columns]] = {".npz": _npz, ".csv": _csv, ".parquet": _parquet}


def _targets(column: NDArray[Any], task: Head, data: Path) -> NDArray[Any]:
    if not task.classes:
        return np.asarray(_number(column, "the target"), np.float64)
    if column.dtype.kind in "iub":
        return column.astype(np.int64)
    names = column.astype(str).tolist()
    if unknown := sorted(set(names) - set(task.classes)):
        raise ConfigError(f"{data} has the target {unknown[0]!r}, which is none of {', '.join(task.classes)}")
    return np.array([list(task.classes).index(name) for name in names], np.int64)


def _field(column: NDArray[Any], name: str, known: Sequence[str] | None) -> tuple[Field, NDArray[Any]]:
    """Returns the field of a column or array, and it as that.

    Args:
        column: What the rows have.
        name: What it is called there.
        known: Texts that it may be besides those of the rows; ``None`` if it may be none.
    """
    if column.dtype.kind in "OU" and known is not None:
        return _category(column, name, known)
    shape = tuple(column.shape[1:])
    if column.dtype.kind not in "iu" or not shape:
        numbers = _number(column, name)
        lacks = True if np.isnan(numbers).any() else UNSET
        return Tensor(shape=shape, nan=lacks) if shape else Number(optional=lacks), numbers
    if column.dtype == np.uint8:
        return Tensor(shape=shape, dtype="uint8"), column
    return Tensor(shape=shape, dtype="int64"), column.astype(np.int64)


def _category(column: NDArray[Any], name: str, known: Sequence[str]) -> tuple[Field, NDArray[Any]]:
    texts: list[Any] = [None if is_missing(text) or text == "" else text for text in column.tolist()]  # of a CSV
    there = [text for text in texts if text is not None]
    if not all(isinstance(text, str) for text in there):
        raise ConfigError(f"{name} has values that are neither numbers nor texts")
    values = tuple(sorted({*known, *there}))
    try:
        field = Category(values=values, optional=True if None in texts else UNSET)
        return field, field.encode(texts)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def _number(column: NDArray[Any], name: str) -> NDArray[np.float32]:
    if column.dtype.kind not in "fiub":
        raise ConfigError(f"{name} is of {column.dtype}; a model of this kind takes numbers")
    return column.astype(np.float32)
