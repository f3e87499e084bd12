"""What comes from elsewhere fills no disk, whatever its size and whatever it says."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import msgspec
import pytest

from rollout.bundle import store
from rollout.bundle.archive import unpack
from rollout.bundle.storage import Folder, Objects
from rollout.bundle.store import bundle_path, open_bundle, replace_manifest
from rollout.errors import StorageError
from tests.cli.test_report import GATE
from tests.disks import fill, small_disk

MIB = 1024 * 1024


def free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


@pytest.mark.parametrize("kind", [Folder, lambda path: Objects(f"file://{path}")], ids=["folder", "objects"])
def test_a_file_of_any_size_leaves_half_of_a_small_disk(tmp_path: Path, kind: type[Folder]) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for name, size in (("huge", 2**40), ("large", 5 * MIB), ("small", MIB)):
        with (there / name).open("wb") as file:
            file.truncate(size)
    with small_disk(tmp_path / "disk", "8m") as disk:
        for name in ("huge", "large"):
            with pytest.raises(StorageError, match=rf"{name} has [\d,]+ bytes, and .*disk has room for 4,"):
                kind(there).fetch(name, disk / "file")
            assert not [*disk.iterdir()]
        assert kind(there).fetch("small", disk / "file") is not None
        assert (disk / "file").stat().st_size == MIB


def test_what_is_unpacked_leaves_half_of_a_small_disk(tmp_path: Path) -> None:
    for size in (3 * MIB, 6 * MIB):
        with tarfile.open(tmp_path / f"{size}", "w:xz", preset=0) as tar:
            info = tarfile.TarInfo("weights")
            info.size = size
            tar.addfile(info, io.BytesIO(os.urandom(size)))
    with small_disk(tmp_path / "disk", "8m") as disk:
        before = free(disk)
        with pytest.raises(OSError, match="No space left on device"):
            unpack(tmp_path / f"{6 * MIB}", disk)
        assert free(disk) >= before // 2
        (disk / "weights").unlink()
        unpack(tmp_path / f"{3 * MIB}", disk)
        assert (disk / "weights").stat().st_size == 3 * MIB


@pytest.mark.usefixtures("sent")
def test_a_bundle_is_whole_although_the_disk_is_full_when_it_gets_its_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = bundle_path("two:sent")
    with small_disk(tmp_path / "disk", "8m") as disk:
        shutil.copytree(packed, disk / "models" / "two" / "sent")
        monkeypatch.setattr(store, "_models", lambda: disk / "models")
        manifest = open_bundle("two:sent")[1]
        gated = msgspec.structs.replace(manifest, gate=GATE)
        full = fill(disk)
        with pytest.raises(OSError, match="No space left on device"):
            replace_manifest(gated)
        assert open_bundle("two:sent")[1] == manifest
        full.unlink()
        replace_manifest(gated)
        assert open_bundle("two:sent")[1] == gated
