"""Golden examples: inputs with the scores that the source module gave, to be run again anywhere."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.bundle.columns import flat, is_ragged, lengths, ragged, sizes
from rollout.bundle.manifest import Manifest
from rollout.bundle.parity import take
from rollout.bundle.schema import Arrays, InputSchema
from rollout.errors import BundleError
from rollout.heads import Head, Scores

FILE_NAME = "golden.npz"
ROWS = 32
# Of a row, 2 MiB then, with as much left for the examples that somebody adds. Larger ones are fewer.
MOST_BYTES = 128 * 1024 * 1024
# Arrays are read in pieces far smaller than this; only the directory of the file could ask for more at once.
LARGEST_READ = 1024 * 1024


class Golden(NamedTuple):
    """Examples and what is expected of them.

    Attributes:
        inputs: For each field an array of shape ``(rows, *field.shape)``, or a ragged column.
        scores: The source's scores, ``float32`` of shape ``(rows, task.outputs)``.
    """

    inputs: Arrays
    scores: Scores


def choose_golden(task: Head, inputs: Arrays, scores: Scores) -> Golden:
    """Picks examples: half of them the least sure, where a flip would show first, half spread evenly."""
    row_bytes = sum(array[:1].nbytes for array in inputs.values()) + int(sizes(inputs).sum(1).max())
    rows = max(1, min(ROWS, MOST_BYTES // 2 // row_bytes))
    uncertain = np.argsort(task.sureness(scores), kind="stable")[: rows // 2]
    spread = np.linspace(0, len(scores) - 1, rows - len(uncertain)).astype(int)
    chosen = np.unique(np.concatenate([uncertain, spread, *_ends(inputs)]))
    return Golden(take(inputs, chosen), scores[chosen])


def _ends(inputs: Arrays) -> list[list[int]]:
    """Returns the shortest and the longest row, where they have lengths of their own."""
    held = sizes(inputs).sum(1)
    return [[int(held.argmin()), int(held.argmax())]] if held.any() else []


def write_golden(folder: Path, golden: Golden) -> None:
    """Writes the examples into the bundle at ``folder``.

    Raises:
        BundleError: If they are larger than what is read again.
    """
    arrays = {f"inputs/{name}": flat(column) for name, column in golden.inputs.items()}
    arrays |= {f"lengths/{name}": lengths(column) for name, column in golden.inputs.items() if is_ragged(column)}
    np.savez_compressed(folder / FILE_NAME, scores=golden.scores, **arrays)  # type: ignore[arg-type]
    with zipfile.ZipFile(folder / FILE_NAME) as file:
        _members(file)


def read_golden(folder: Path) -> Golden:
    """Reads the examples of the bundle at ``folder``; never unpickles, and never takes more memory than they may.

    Raises:
        BundleError: If they are too large, or no examples.
    """
    try:
        with _InPieces(folder / FILE_NAME) as pieces, zipfile.ZipFile(pieces) as file:
            arrays = {member.filename.removesuffix(".npy"): _read(file, member) for member in _members(file)}
        inputs = {name.removeprefix("inputs/"): arrays[name] for name in arrays if name.startswith("inputs/")}
        inputs = {name: _rows(array, arrays.get(f"lengths/{name}")) for name, array in inputs.items()}
        return Golden(inputs, arrays["scores"])
    except BundleError:
        raise
    except Exception as error:  # whatever its bytes make of what reads them
        raise BundleError(f"{FILE_NAME} cannot be read: {error}") from error


def golden_of(folder: Path, manifest: Manifest) -> Golden:
    """Reads the examples of the bundle at ``folder``: rows of its inputs, with scores of what it answers.

    Who runs them by ``check_golden`` only reads them: that looks as well.

    Raises:
        BundleError: If they are too large, no examples, or those of something else.
    """
    golden = read_golden(folder)
    rows_that_fit(golden, manifest)
    return golden


def rows_that_fit(golden: Golden, manifest: Manifest) -> int:
    """Returns the number of examples; each is a row of the bundle's inputs, with scores of what it answers.

    Raises:
        BundleError: If there are none, or they do not fit the bundle.
    """
    rows = InputSchema(manifest.inputs).check_arrays(golden.inputs)
    if not rows:
        raise BundleError(f"{manifest.tag} is refused: it has no golden examples")
    whose = f"{manifest.tag} is refused: the scores of its golden examples"
    require_scores(golden.scores, (rows, manifest.task.outputs), whose)
    return rows


def require_scores(scores: Scores, shape: tuple[int, int], whose: str) -> None:
    """Refuses what numpy would stretch to be compared.

    Raises:
        BundleError: If they are no ``float32`` of that shape.
    """
    if scores.shape != shape or scores.dtype != np.float32:
        raise BundleError(f"{whose} are {scores.dtype} of shape {scores.shape}, not float32 of {shape}")


def _rows(array: NDArray[Any], own: NDArray[Any] | None) -> NDArray[Any]:
    """Makes a ragged column of what was written of one; any other array is one already."""
    if own is None:
        return array
    if own.ndim != 1 or own.dtype != np.int64 or not len(own) or own.min() < 1 or own.sum() != len(array):
        raise BundleError(f"{FILE_NAME}: the lengths of its rows do not fit them")
    return ragged(np.split(array, np.cumsum(own)[:-1]))


class _InPieces(io.FileIO):
    """A file that is read a piece at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            here = self.tell()
            size = self.seek(0, io.SEEK_END) - here
            self.seek(here)
        if size > LARGEST_READ:
            raise BundleError(
                f"{FILE_NAME} has a part of {size:,} bytes; at most {LARGEST_READ:,} are read at once"
            )
        return super().read(size)


def _members(file: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Returns the arrays in a file; zipfile gives no more bytes of one than its entry says.

    Raises:
        BundleError: If they are too large together, or compressed in a way that has no bound.
    """
    members = file.infolist()
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise BundleError(f"{FILE_NAME} is compressed in another way than deflate")
    size = sum(member.file_size for member in members)
    if size > MOST_BYTES:
        raise BundleError(f"{FILE_NAME} unpacks to {size:,} bytes; golden examples have at most {MOST_BYTES:,}")
    return members


def _read(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with file.open(member) as array:
        version = np.lib.format.read_magic(array)
        if version != (1, 0):
            raise BundleError(
                f"{FILE_NAME}: {member.filename} has version {version} of numpy's format, not (1, 0)"
            )
        shape, _, dtype = np.lib.format.read_array_header_1_0(array)
        # numpy takes all the memory that a header asks for before it looks whether there is so much.
        if not dtype.itemsize or math.prod(shape) * dtype.itemsize != member.file_size - array.tell():
            raise BundleError(f"{FILE_NAME}: {member.filename} is not as large as its header says")
        array.seek(0)
        return np.lib.format.read_array(array, allow_pickle=False)
