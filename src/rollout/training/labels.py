"""Reviewed labels: rows of an export of the review queue become training rows, or correct some."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from rollout.bundle.fields import Field
from rollout.bundle.lineage import part_of
from rollout.bundle.manifest import Manifest
from rollout.bundle.schema import InputSchema, InvalidInputsError, Labelled, RawInputs
from rollout.errors import NO_JSON, ConfigError
from rollout.heads import Head, Truth
from rollout.heads.structured import as_numbers, corrected, joined
from rollout.review.item import SUSPECT
from rollout.training.checks import row_keys
from rollout.training.fit import Fit
from rollout.training.recipe import Dataset, Recipe, ReviewedLabels

# Why a row is left out: a later one of the same prediction counts, or the one that it is linked to; its label was
# taken back; its inputs are no longer kept, or never all were; calibration or evaluation has the same inputs. Of
# a row whose label looked wrong: people say that it is right; no part has that row with that label any more.
# Of several heads, one was left out, and the version is trained by a function, which would take it for known.
WHY = (
    *("repeated", "linked", "retracted", "without_inputs", "held_out", "confirmed", "gone"),
    "incomplete",
)


class _Row(Truth, frozen=True, kw_only=True):
    id: str
    model: str
    client_id: str
    cursor: int
    key: str | None = None
    inputs: RawInputs | None = None
    retracted: bool = False
    linked_to: str | None = None
    reason: str = ""
    place: str = ""


class Reviewed(NamedTuple):
    """Predictions that people have decided.

    Attributes:
        rows: Their inputs and what people said; ``None`` where there are none.
        ids: The review items.
        left_out: Rows that are not among them, by why.
    """

    rows: Labelled | None
    ids: list[str]
    left_out: dict[str, int]

    @property
    def left_out_in_words(self) -> str:
        """How many rows were left out, and why."""
        return _in_words(self.left_out)


def name_exports(files: Iterable[Path]) -> dict[str, Path]:
    """Returns exports by their names, as a lineage tells them apart.

    Raises:
        ConfigError: If two have the same name.
    """
    named: dict[str, Path] = {}
    for file in files:
        if named.setdefault(file.name, file) != file:
            raise ConfigError(f"two files of labels are called {file.name}: rename one")
    return named


def learnt_from(manifest: Manifest) -> dict[str, str]:
    """Returns the exports of reviewed labels that a bundle learnt from: SHA-256 of each, by its name."""
    return {name: str(digest) for name, digest in part_of(manifest.lineage, "data", "labels", "files").items()}


def find_exports(manifest: Manifest, files: Iterable[Path]) -> dict[str, Path]:
    """Returns, by their recorded names, those of ``files`` that a bundle learnt from.

    Raises:
        ConfigError: If one is not among them, whatever its name.
    """
    recorded = learnt_from(manifest)
    given = {hashlib.sha256(_read(file)).hexdigest(): file for file in files}
    if lacking := [f"{name} (SHA-256 {digest})" for name, digest in recorded.items() if digest not in given]:
        raise ConfigError(f"{manifest.tag} learnt from labels in {', '.join(lacking)}: give that with --labels")
    return {name: given[digest] for name, digest in recorded.items()}


def add_labels(dataset: Dataset, recipe: Recipe, name: str, exports: Mapping[str, Path]) -> Dataset:
    """Adds reviewed labels to the training part, if the version learns from them.

    Each reviewed prediction counts once, with its latest label, whatever the order of the files. What calibration
    or evaluation has as well is left out: figures measured on rows that the model learnt from would be too good.

    Args:
        dataset: What the recipe loads.
        recipe: The model's recipe.
        name: The version.
        exports: Files of JSON lines as the review queue exports them, by name.

    Raises:
        ConfigError: If the version learns from labels and there are none that can be used, or a row does not fit
            the recipe.
    """
    version = recipe.version(name)
    if not version.needs_labels:
        return dataset
    if not exports:
        raise ConfigError(
            f"{recipe.name}:{name} learns from reviewed labels: give an export of them with --labels FILE"
        )
    contents = {export: _read(file) for export, file in exports.items()}
    left_out: Counter[str] = Counter()
    given = [row for export, content in contents.items() for row in _parse(content, export, recipe.name)]
    rows = list(_final(_of_traffic(given), recipe.inputs, left_out))
    train = dataset.train
    if not isinstance(version.train, Fit):  # it leaves out of the loss what nobody said; a function may not
        complete = [row for row in rows if version.task.is_complete(row.truth)]
        left_out["incomplete"], rows = len(rows) - len(complete), complete
    if rows:
        learnt = _decode(rows, InputSchema(recipe.inputs), version.task)
        measured = (dataset.calibration, dataset.evaluation)
        held_out = {key for part in measured for key in row_keys(part.inputs, recipe.inputs)}
        kept = [row for row, key in enumerate(row_keys(learnt.inputs, recipe.inputs)) if key not in held_out]
        left_out["held_out"] = len(rows) - len(kept)
        train = _append(train, learnt, kept)
    used = len(train.targets) - len(dataset.train.targets)
    suspects = [row for row in given if row.reason == SUSPECT]
    train, changed = _correct(dataset._replace(train=train), recipe.inputs, version.task, suspects, left_out)
    labels = ReviewedLabels(
        files={export: hashlib.sha256(content).hexdigest() for export, content in contents.items()},
        used=used,
        left_out={why: left_out[why] for why in WHY},
        corrected=changed,
    )
    if not (used or changed):
        raise ConfigError(f"no row of {', '.join(exports)} can be used: {in_words(labels)}")
    return dataset._replace(train=train, labels=labels)


def in_words(labels: ReviewedLabels) -> str:
    """Says how many reviewed rows were used, and how many were left out and why.

    Example:
        >>> in_words(ReviewedLabels(files={}, used=40, left_out={"linked": 2, "retracted": 0, "held_out": 1}))
        '40 used; left out: 2 linked, 1 held out'
    """
    corrected = f", {labels.corrected:,} labels of the training part corrected" if labels.corrected else ""
    left_out = _in_words(labels.left_out)
    return f"{labels.used:,} used{corrected}" + (f"; left out: {left_out}" if left_out else "")


def _in_words(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{rows:,} {why.replace('_', ' ')}" for why, rows in left_out.items() if rows)


def read_reviewed(exports: Mapping[str, Path], model: str, inputs: Mapping[str, Field], head: Head) -> Reviewed:
    """Reads the predictions that people have decided, each once, with its latest label.

    Args:
        exports: Files of JSON lines as the review queue exports them, by name.
        model: The model.
        inputs: Its input schema.
        head: What it answers.

    Raises:
        ConfigError: If a row does not fit the model.
    """
    left_out: Counter[str] = Counter()
    given = [row for export, file in exports.items() for row in _parse(_read(file), export, model)]
    rows = list(_final(_of_traffic(given), inputs, left_out))
    decoded = _decode(rows, InputSchema(inputs), head) if rows else None
    return Reviewed(decoded, [row.id for row in rows], dict(left_out))


def label_keys(part: Labelled, inputs: Mapping[str, Field]) -> list[str]:
    """Returns what each row is told from others by, with its label: 16 hexadecimal digits.

    What is said of the label of a row is said of all rows that are the same, and of none once it was corrected.
    """
    targets = as_numbers(part.targets)
    return [
        hashlib.blake2b(key + target.tobytes(), digest_size=8).hexdigest()
        for key, target in zip(row_keys(part.inputs, inputs), targets, strict=True)
    ]


def _of_traffic(rows: Iterable[_Row]) -> list[_Row]:
    return [row for row in rows if row.reason != SUSPECT]


def _correct(
    dataset: Dataset, inputs: Mapping[str, Field], task: Head, rows: Iterable[_Row], left_out: Counter[str]
) -> tuple[Labelled, int]:
    """Replaces labels of the training part by what people said of them.

    Returns:
        It, and how many of its rows have another label now.
    """
    latest = {row.key: row for row in sorted(rows, key=lambda row: (row.cursor, row.id)) if row.key is not None}
    train = dataset.train
    if not latest:
        return train, 0
    held_out = {key for part in dataset[1:3] for key in label_keys(part, inputs)}
    places: dict[str, list[int]] = {}
    for place, key in enumerate(label_keys(train, inputs)):
        places.setdefault(key, []).append(place)
    targets, changed = train.targets.copy(), 0
    for key, row in latest.items():
        if row.retracted:
            left_out["retracted"] += 1
            continue
        _require_truth(row, task)
        found = places.get(key, [])
        said = corrected(targets[found[:1]], task.targets([row.truth]))
        if not found:
            left_out["held_out" if key in held_out else "gone"] += 1
        elif targets[found[0]].tobytes() == said.tobytes():
            left_out["confirmed"] += 1
        else:
            targets[found] = said[0]
            changed += len(found)
    return Labelled(train.inputs, targets), changed


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"the labels in {file} cannot be read: {error.strerror}") from None


def _parse(content: bytes, export: str, model: str) -> Iterator[_Row]:
    decoder = msgspec.json.Decoder(_Row)
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        place = f"{export}, line {number}"
        try:
            row = decoder.decode(line)
        except NO_JSON as error:
            raise ConfigError(f"{place} is no row of an export of the review queue in JSON: {error}") from None
        if row.model != model:
            raise ConfigError(f"{place} is a row of {row.model}, not of {model}: export the labels of {model}")
        row = msgspec.structs.replace(row, place=place)
        yield row


def _final(rows: list[_Row], fields: Mapping[str, Field], left_out: Counter[str]) -> Iterator[_Row]:
    latest = {
        (row.client_id, row.key) if row.key is not None else row.id: row
        for row in sorted(rows, key=lambda row: (row.cursor, row.id))
    }
    left_out["repeated"] = len(rows) - len(latest)
    items: dict[str, _Row] = {}
    for row in sorted(latest.values(), key=lambda row: row.linked_to is not None):
        items.setdefault(row.linked_to or row.id, row)
    left_out["linked"] = len(latest) - len(items)
    for row in items.values():
        if row.retracted:
            left_out["retracted"] += 1
        elif not all(_is_kept(row, name, field) for name, field in fields.items()):
            left_out["without_inputs"] += 1
        else:
            yield row


def _is_kept(row: _Row, name: str, field: Field) -> bool:
    if row.inputs is None:
        return False
    if name not in row.inputs:
        return field.missing is not None
    return bytes(row.inputs[name]) != b"null"  # redacted


def _decode(rows: list[_Row], schema: InputSchema, task: Head) -> Labelled:
    decoded = []
    for row in rows:
        try:
            decoded.append(schema.decode(row.inputs or {}))
        except InvalidInputsError as error:
            details = "; ".join(f"/inputs{pointer}: {detail}" for pointer, detail in error.errors)
            raise ConfigError(f"{row.place}: {details}") from None
    inputs = {name: np.stack([arrays[name] for arrays in decoded]) for name in schema.fields}
    for row in rows:
        _require_truth(row, task)
    return Labelled(inputs, task.targets([row.truth for row in rows]))


def _require_truth(row: _Row, task: Head) -> None:
    if faults := [f"{pointer} {detail}" for pointer, detail in task.faults(row.truth)]:
        raise ConfigError(f"{row.place}: {'; '.join(faults)}")


def _append(train: Labelled, learnt: Labelled, kept: list[int]) -> Labelled:
    inputs = {name: np.concatenate([array, learnt.inputs[name][kept]]) for name, array in train.inputs.items()}
    return Labelled(inputs, joined(train.targets, learnt.targets[kept]))
