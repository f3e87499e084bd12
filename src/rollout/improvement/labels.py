"""The labels that a version is made of: exported since the last time, kept by their content, looked at."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rollout.bundle.storage import Storage
from rollout.errors import ConfigError
from rollout.home import prepare_home
from rollout.job.sink import until_whole
from rollout.review.export import encode_row, export_rows, read_lineage
from rollout.store import Redis
from rollout.training.checks import agreement, contradicting, mislabelled, row_keys
from rollout.training.labels import in_words
from rollout.training.recipe import Dataset, Recipe

# Among so many labels that look wrong, a mistake of one reviewer is no longer the likely reason.
MOST_SUSPECT = 0.2
SHOWN = 3
NAME = re.compile(r"[^./\0][^/\0]*")
LONGEST_NAME = 200  # bytes; a draft has a few more
UNLIKELY = 0.001


class Exported(NamedTuple):
    """Labels that are new.

    Attributes:
        content: Their rows, JSON lines as `rollout review export` writes them.
        labels: How many there are, those that were taken back left out.
        cursor: Where the next export goes on.
    """

    content: bytes
    labels: int
    cursor: int


async def export_new(redis: Redis, model: str, since: int, who: str) -> Exported:
    """Exports what people decided since a cursor.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    lines, labels, cursor = [], 0, since
    # From the very beginning, only what stands: what was taken back by then nobody has learnt from.
    start = since or None
    async for row in export_rows(redis, model, start, read_lineage(model), who=who, role="terminal"):
        lines.append(encode_row(row) + b"\n")
        labels += not row.retracted
        cursor = row.cursor
    return Exported(b"".join(lines), labels, cursor)


class KeptLabels:
    """Exports by their content, under ``ROLLOUT_HOME`` and where bundles are kept for all.

    Args:
        home: ``ROLLOUT_HOME``.
        model: The model.
        storage: Where else; without it, an export that is lost from the home is lost.
    """

    def __init__(self, home: Path, model: str, storage: Storage | None = None) -> None:
        self._home, self._model, self._storage = home, model, storage

    @property
    def folder(self) -> Path:
        """Where they lie in the home."""
        return self._home.resolve() / "labels" / self._model

    def keep(self, content: bytes) -> dict[str, str]:
        """Keeps an export for good.

        Returns:
            Its SHA-256, by its name.

        Raises:
            ConfigError: If it cannot be written, or the storage has something else there.
            StorageError: If the storage does not answer.
        """
        digest = hashlib.sha256(content).hexdigest()
        name = f"labels-{digest[:16]}.jsonl"
        self._write(name, content)
        if self._storage is not None and not self._fetch(self._storage, name, digest):
            self._storage.put(self._place(name), self.folder / name)
        return {name: digest}

    def find(self, exports: Mapping[str, str]) -> dict[str, Path]:
        """Returns the files of exports by their names; those that the home lacks come from the storage.

        Raises:
            ConfigError: If one is gone, or is another than it was.
            StorageError: If the storage does not answer.
        """
        found = {}
        for name, digest in exports.items():
            if not NAME.fullmatch(name) or len(name.encode()) > LONGEST_NAME:  # a manifest may say anything
                raise ConfigError(
                    f"labels are learnt from {name!r}, which is no name of a file: look at its bundle"
                )
            file = self.folder / name
            if not file.is_file() and self._storage is not None:
                self._fetch(self._storage, name, digest)
            if not file.is_file() or _digest(file) != digest:
                raise ConfigError(
                    f"the labels {name} (SHA-256 {digest}), which are learnt from, are not in {self.folder} as "
                    "they were: put that file there"
                )
            found[name] = file
        return found

    def _fetch(self, storage: Storage, name: str, digest: str) -> bool:
        """Returns whether the storage has it; then it is in the home as well."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f".{name}.fetched"
        try:
            if storage.fetch(self._place(name), draft) is None:
                return False
            if _digest(draft) != digest:
                raise ConfigError(
                    f"{self._place(name)} in the storage is not what was kept there (SHA-256 {digest}): remove it"
                )
            draft.replace(self.folder / name)
        finally:
            draft.unlink(missing_ok=True)
        return True

    def _place(self, name: str) -> str:
        return f"labels/{self._model}/{name}"

    def _write(self, name: str, content: bytes) -> None:
        prepare_home(self._home)
        self.folder.mkdir(parents=True, exist_ok=True)
        with until_whole(self.folder / name) as partial:
            partial.write_bytes(content)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:  # which may be of any size
        return hashlib.file_digest(opened, "sha256").hexdigest()


def kept_files(home: Path, model: str) -> list[Path]:
    """Returns all exports of a model that the home has."""
    return sorted(KeptLabels(home, model).folder.glob("labels-*.jsonl"))


class Look(NamedTuple):
    """What labels look like.

    Attributes:
        used: What is learnt from, in words.
        warnings: What a person should look at, in sentences.
        stop: Why nothing is trained on them; empty where it is.
    """

    used: str
    warnings: list[str]
    stop: str


def look_at(recipe: Recipe, name: str, plain: Dataset, taught: Dataset) -> Look:
    """Looks at the reviewed labels among the rows that a version learns from.

    Args:
        recipe: The recipe.
        name: The version.
        plain: What the recipe loads.
        taught: The same with the labels at the end of its training part.
    """
    first, rows = len(plain.train.targets), len(taught.train.targets)
    warnings = []
    contradictions = contradicting(row_keys(taught.train.inputs, recipe.inputs), taught.train.targets)
    if conflicts := sum(row >= first for row in contradictions):
        warnings.append(
            f"{conflicts} of {rows - first} reviewed rows have the same inputs as another row and a different "
            "target: look at them in review, and correct those that are wrong."
        )
    suspects: list[str] = []
    classes = recipe.version(name).task.classes
    if classes:
        found = mislabelled(taught.train, recipe.inputs, classes)
        suspects = [
            f"row {row - first + 1} is labelled {given} and looks like {likely}"
            for row, given, likely in zip(found.rows, found.given, found.likely, strict=True)
            if row >= first
        ]
    if suspects:
        warnings.append(
            f"{len(suspects)} of {rows - first} reviewed rows may be mislabelled, the likeliest first: "
            f"{'; '.join(suspects[:SHOWN])}."
        )
    stop, wrong = "", max(conflicts, len(suspects))
    if wrong > MOST_SUSPECT * (rows - first):
        stop = f"{wrong} of {rows - first} reviewed labels look wrong, more than {MOST_SUSPECT:.0%}"
    if classes and len(np.unique(plain.train.targets)) > 1:
        agrees = agreement(taught.train, first, recipe.inputs)
        words = (
            f"{agrees.share:.0%} of {rows - first} reviewed labels are what a classifier of the recipe's own "
            f"rows says; labels that say nothing would be so in {agrees.by_chance:.0%}"
        )
        if agrees.p_less < UNLIKELY:
            stop = f"{words}: as if they were swapped"
        elif agrees.p_more > UNLIKELY:
            warnings.append(f"{words}, and chance alone may be behind that.")
    assert taught.labels is not None  # noqa: S101  since there are rows of them
    return Look(in_words(taught.labels), warnings, stop)
