"""Raw examples: rows as a caller sends them, with the scores of the author's own pipeline, to be run anywhere."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.bundle.columns import bare
from rollout.bundle.image_file import PixelBudget
from rollout.bundle.manifest import Manifest
from rollout.bundle.schema import Arrays, InputSchema, InvalidInputsError, RawInputs
from rollout.errors import NO_JSON, BundleError
from rollout.heads import Flags, Head, Scores

FILE_NAME = "reference.ndjson"
ROWS = 32
# Every worker reads and decodes them when it starts.
MOST_BYTES = 16 * 1024 * 1024
MOST_PIXELS = 100_000_000


class RawExample(msgspec.Struct, frozen=True, kw_only=True):
    """A row.

    Attributes:
        row: Its number among the raw rows of the reference.
        inputs: The JSON value of each field.
        scores: The scores of the author's own pipeline.
        decoded: SHA-256 of the array that each field was decoded to where the bundle was packed.
    """

    row: int
    inputs: RawInputs
    scores: list[float]
    decoded: dict[str, str]


class RawExamples(NamedTuple):
    """The rows of a bundle, decoded on this machine.

    Attributes:
        inputs: For each field an array of shape ``(rows, *field.shape)``, or a ragged column.
        scores: The scores of the author's own pipeline, ``float32`` of shape ``(rows, task.outputs)``.
        moved: The fields that are decoded to another array here than where the bundle was packed.
    """

    inputs: Arrays
    scores: Scores
    moved: list[str]


def choose_rows(
    task: Head, schema: InputSchema, raws: list[RawInputs], scores: Scores, flipped: Flags
) -> list[int]:
    """Picks rows to be kept: those decided otherwise, then the least sure, then some spread evenly."""
    unsure = np.argsort(task.sureness(scores), kind="stable")
    spread = np.linspace(0, len(raws) - 1, min(len(raws), ROWS // 2)).astype(int)
    order = [*np.flatnonzero(flipped), *unsure[: ROWS - len(spread)], *spread, *unsure]
    kept: list[int] = []
    budget, size = PixelBudget(MOST_PIXELS), 0
    for row in dict.fromkeys(map(int, order)):
        size += sum(len(bytes(raw)) for raw in raws[row].values())
        if len(kept) == ROWS or size > MOST_BYTES // 2:
            break
        try:
            schema.decode(raws[row], budget)
        except InvalidInputsError:  # there are no pixels or samples left
            break
        kept.append(row)
    if not kept:
        raise BundleError(
            f"raw row {int(order[0])} of the reference is too large to travel with the bundle: give rows of at "
            f"most {MOST_BYTES // 2:,} bytes as JSON, and {MOST_PIXELS:,} pixels or samples"
        )
    return sorted(kept)


def write_raw_examples(folder: Path, examples: list[RawExample]) -> None:
    """Writes rows into the bundle at ``folder``, a JSON object a line."""
    (folder / FILE_NAME).write_bytes(b"".join(msgspec.json.encode(example) + b"\n" for example in examples))


def read_raw_examples(folder: Path, manifest: Manifest) -> RawExamples | None:
    """Reads the rows of the bundle at ``folder`` and decodes them as the service does; ``None`` if it has none.

    Raises:
        BundleError: If they are too many or too large, no rows, or this machine cannot decode them.
    """
    if manifest.reference is None:
        return None
    examples = _read(folder, manifest.tag)
    schema, budget = InputSchema(manifest.inputs), PixelBudget(MOST_PIXELS)
    rows = []
    for example in examples:
        try:
            rows.append(schema.decode(example.inputs, budget))
        except InvalidInputsError as error:
            raise BundleError(
                f"{manifest.tag} is refused: this machine does not take raw row {example.row} of its reference, "
                f"which the one that packed it did: {error}"
            ) from None
    if {len(example.scores) for example in examples} != {manifest.task.outputs}:
        raise BundleError(
            f"{manifest.tag} is refused: {FILE_NAME} has other scores than {manifest.task.outputs} a row"
        )
    moved = [
        name
        for name in manifest.inputs
        if any(hash_array(row[name]) != each.decoded.get(name) for row, each in zip(rows, examples, strict=True))
    ]
    inputs = {name: np.stack([row[name] for row in rows]) for name in manifest.inputs}
    return RawExamples(inputs, np.array([example.scores for example in examples], np.float32), moved)


def hash_array(array: NDArray[Any]) -> str:
    """Returns the SHA-256 of the dtype, the shape and the content of the array of a row."""
    array = bare(array)
    content = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def _read(folder: Path, tag: str) -> list[RawExample]:
    try:
        with (folder / FILE_NAME).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{tag} is refused: {FILE_NAME} cannot be read: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise BundleError(f"{tag} is refused: {FILE_NAME} has more than {MOST_BYTES:,} bytes")
    lines = data.splitlines()
    if not 1 <= len(lines) <= ROWS:
        raise BundleError(f"{tag} is refused: {FILE_NAME} has {len(lines):,} rows, not 1 to {ROWS}")
    try:
        return [msgspec.json.decode(line, type=RawExample) for line in lines]
    except NO_JSON as error:
        raise BundleError(f"{tag} is refused: {FILE_NAME} holds something else than raw rows: {error}") from None
