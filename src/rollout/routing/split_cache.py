"""The splits that were last seen, on disk: with Redis gone they hold, over a restart too."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rollout.errors import NO_JSON, InvalidSplitError
from rollout.routing.split import Split
from rollout.whole_file import write_whole

FOLDER = "splits"


def cache_split(home: Path, model: str, split: Split) -> None:
    """Writes a split down, in place of the one before."""
    write_whole(home / FOLDER / f"{model}.json", msgspec.json.encode(split))


def forget_split(home: Path, model: str, _: Split) -> None:
    """Removes the split of a model that is not served any more."""
    (home / FOLDER / f"{model}.json").unlink(missing_ok=True)


def cached_splits(home: Path) -> dict[str, Split]:
    """Returns the split of each model that was last seen; what cannot be read counts as never seen."""
    splits = {}
    for file in sorted((home / FOLDER).glob("*.json")):
        try:
            splits[file.stem] = msgspec.json.decode(file.read_bytes(), type=Split)
        except (*NO_JSON, InvalidSplitError):
            continue
    return splits
