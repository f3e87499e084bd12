"""Exports are kept by their content, whatever a manifest or a storage says."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import pytest

from rollout.bundle.storage import Folder
from rollout.errors import ConfigError
from rollout.improvement.labels import KeptLabels

CONTENT = b'{"id": "a"}\n'


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "storage"
    folder.mkdir()
    return folder


def kept(home: Path, storage: Path) -> KeptLabels:
    return KeptLabels(home, "digits", Folder(storage))


def test_another_home_finds_what_was_kept(tmp_path: Path, storage: Path) -> None:
    exports = kept(tmp_path / "one", storage).keep(CONTENT)
    assert kept(tmp_path / "one", storage).keep(CONTENT) == exports, "once more changes nothing"
    (file,) = kept(tmp_path / "other", storage).find(exports).values()
    assert file.read_bytes() == CONTENT


def test_a_name_that_a_manifest_gives_leads_nowhere_else(tmp_path: Path, storage: Path) -> None:
    target = tmp_path / "elsewhere"
    (storage / "labels" / "digits").mkdir(parents=True)
    for name in (str(target), "../../../elsewhere", "..", "", "é" * 130):
        (storage / "elsewhere").write_bytes(CONTENT)
        with pytest.raises(ConfigError, match="is no name of a file"):
            kept(tmp_path / "home", storage).find({name: hashlib.sha256(CONTENT).hexdigest()})
        assert not target.exists()


def test_what_a_storage_has_in_the_place_of_labels_is_not_taken(tmp_path: Path, storage: Path) -> None:
    exports = kept(tmp_path / "one", storage).keep(CONTENT)
    (name,) = exports
    (storage / "labels" / "digits" / name).write_bytes(b"something else")
    labels = kept(tmp_path / "other", storage)
    with pytest.raises(ConfigError, match="is not what was kept there"):
        labels.find(exports)
    assert not [*labels.folder.iterdir()]
    with pytest.raises(ConfigError, match="is not what was kept there"):
        labels.keep(CONTENT)
    assert [file.read_bytes() for file in labels.folder.iterdir()] == [CONTENT]
    (storage / "labels" / "digits" / name).unlink()
    assert labels.keep(CONTENT) == exports


def test_what_a_storage_has_in_the_place_of_labels_fills_no_memory(tmp_path: Path, storage: Path) -> None:
    exports = kept(tmp_path / "one", storage).keep(CONTENT)
    (name,) = exports
    with (storage / "labels" / "digits" / name).open("wb") as file:
        file.truncate(100_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="is not what was kept there"):
            kept(tmp_path / "other", storage).find(exports)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
