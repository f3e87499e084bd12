"""An archive from elsewhere: unpacked if it is one of ours, and otherwise refused, whatever is in it."""

from __future__ import annotations

import errno
import io
import lzma
import os
import re
import tarfile
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest

from rollout.bundle import archive as archive_module
from rollout.bundle.archive import unpack
from rollout.bundle.exchange import Pull
from rollout.bundle.store import staging
from rollout.errors import BundleError

LARGE = 64 * 1024 * 1024


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def pack_up(file: Path, info: tarfile.TarInfo, content: bytes = b"") -> Path:
    with tarfile.open(file, "w:xz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(content))
    return file


@pytest.mark.parametrize(
    ("info", "why"),
    [
        (member("../out"), "outside the destination"),
        (member("a/../../out"), "outside the destination"),
        (
            member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            "link, which is neither a file nor a folder",
        ),
        (
            member("link", type=tarfile.LNKTYPE, linkname="model.yaml"),
            "link, which is neither a file nor a folder",
        ),
        (member("pipe", type=tarfile.FIFOTYPE), "pipe, which is neither a file nor a folder"),
        (member("device", type=tarfile.CHRTYPE), "device, which is neither a file nor a folder"),
        (
            member("sparse", pax_headers={"GNU.sparse.size": "99999999999", "GNU.sparse.map": "0,0"}),
            "sparse, which is neither a file nor a folder",
        ),
        (member("long", pax_headers={"comment": "x" * 2_000_000}), "a header that is too large"),
    ],
)
def test_an_archive_cannot_reach_out_of_its_folder(
    tmp_path: Path, folder: Path, info: tarfile.TarInfo, why: str
) -> None:
    file = tmp_path / "archive"
    with tarfile.open(file, "w:xz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member("model.yaml"))
        tar.addfile(info)
    with pytest.raises(BundleError, match=re.escape(why)):
        unpack(file, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "folder"]


def test_an_absolute_name_stays_in_the_folder(tmp_path: Path, folder: Path) -> None:
    unpack(pack_up(tmp_path / "archive", member(f"{tmp_path}/out")), folder)
    assert not (tmp_path / "out").exists()


def test_an_archive_is_no_bomb(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "ALWAYS_ALLOWED", 1024 * 1024)
    file = pack_up(tmp_path / "archive", member("zeros", size=30_000_000), bytes(30_000_000))
    assert file.stat().st_size < 10_000
    with pytest.raises(BundleError, match="unpacks to more than 100 times its size"):
        unpack(file, folder)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000
    monkeypatch.setattr(archive_module, "MOST_FILES", 20)
    with tarfile.open(file, "w:xz") as tar:
        for number in range(21):
            tar.addfile(member(f"file-{number}"))
    with pytest.raises(BundleError, match="holds more than 20 files"):
        unpack(file, folder)
    with tarfile.open(file, "w:xz") as tar:
        for number in range(3):  # each a file, and nine folders that nothing else says
            tar.addfile(member(f"{number}/a/b/c/d/e/f/g/h/file"))
    with pytest.raises(BundleError, match="holds more than 20 files and folders"):
        unpack(file, folder)


def test_an_archive_does_not_say_how_much_memory_is_taken(tmp_path: Path, folder: Path) -> None:
    file = tmp_path / "archive"
    with tarfile.open(file, "w:xz", preset=9) as tar:
        tar.addfile(member("a"))
    unpack(file, folder)
    packed = bytearray(file.read_bytes())
    head = slice(12, 12 + 4 * (packed[12] + 1))  # of its block, with the size of the dictionary
    packed[packed.index(b"\x21\x01", head.start) + 2] = 40  # 4 GiB, which zeros would fill
    packed[head.stop - 4 : head.stop] = zlib.crc32(packed[head.start : head.stop - 4]).to_bytes(4, "little")
    file.write_bytes(packed)
    with pytest.raises(BundleError, match="cannot be unpacked: Memory usage limit exceeded"):
        unpack(file, folder)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_of_less_than_nothing_is_not_read_without_end(tmp_path: Path, folder: Path, kind: bytes) -> None:
    file = tmp_path / "archive"
    with lzma.open(file, "wb", preset=0) as packed:
        packed.write(member("a", type=kind, size=-512).tobuf(tarfile.GNU_FORMAT))
        packed.write(bytes(LARGE))
    tracemalloc.start()
    with pytest.raises(BundleError, match="its archive has a header that is too large"):
        unpack(file, folder)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < LARGE / 4


def test_an_archive_of_deep_folders_leaves_none_behind(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with tarfile.open(tmp_path / "m" / "v1.bentomodel", "w:xz", format=tarfile.GNU_FORMAT) as tar:
        for levels in (800, 1500, 1900):  # each deeper than the one before by less than Python goes
            tar.addfile(member("a/" * levels, type=tarfile.DIRTYPE))
    pull = Pull(str(tmp_path))
    for _ in range(2):
        assert not pull.left_out or list(pull.take({})) == []
        (said,) = pull.take(pull.look())
        assert said.endswith("its archive holds folders that lie more than 32 deep")
    with staging() as stage:  # which takes away what was left there
        assert not list(stage.iterdir())


def test_the_headers_of_an_archive_do_not_gather(tmp_path: Path, folder: Path) -> None:
    file = tmp_path / "archive"
    with tarfile.open(file, "w:xz", format=tarfile.PAX_FORMAT) as tar:
        for number in range(100):
            tar.addfile(member(f"file-{number}", pax_headers={"comment": "x" * 500_000}))
    tracemalloc.start()
    try:
        unpack(file, folder)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    with tarfile.open(file, "w:xz", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as tar:
        tar.addfile(member("a"))
    with pytest.raises(BundleError, match="its archive has a header for all of its files"):
        unpack(file, folder)


def test_what_is_not_a_whole_archive_is_refused(tmp_path: Path, folder: Path) -> None:
    file = pack_up(tmp_path / "archive", member("weights", size=10_000), os.urandom(10_000))
    whole = file.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2], lzma.compress(b"no tar")):
        file.write_bytes(content)
        with pytest.raises(BundleError, match="its archive cannot be unpacked"):
            unpack(file, folder)


@pytest.mark.parametrize(
    "info",
    [
        member("a", pax_headers={"mtime": "nan"}),
        member("a", pax_headers={"mtime": "1e999"}),
        member("a", pax_headers={"path": "a\0b"}),
        member("a", pax_headers={"GNU.sparse.map": "x"}),
        member("n" * 300),
    ],
)
def test_what_tarfile_stumbles_over_is_refused(tmp_path: Path, folder: Path, info: tarfile.TarInfo) -> None:
    with pytest.raises(BundleError, match="its archive cannot be unpacked"):
        unpack(pack_up(tmp_path / "archive", info), folder)


def test_a_full_disk_is_not_the_fault_of_the_archive(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tarfile.TarFile, "extract", full)
    with pytest.raises(OSError, match="No space left on device"):
        unpack(pack_up(tmp_path / "archive", member("a")), folder)
