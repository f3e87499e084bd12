"""A bundle is put where others fetch it, and nothing that lies there is lost by that."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from rollout.bundle import exchange, storage
from rollout.bundle.evidence import GateResult
from rollout.bundle.exchange import Pull, push_bundle
from rollout.bundle.manifest import write_manifest
from rollout.bundle.signing import sign_bundle
from rollout.bundle.storage import Folder
from rollout.bundle.store import bundle_path, open_bundle
from rollout.errors import BundleError, StorageError
from tests.bundle.test_exchange import NAME, TAG, edit, repack
from tests.bundle.test_signing import make_keys
from tests.cli.test_report import GATE


def test_the_same_is_left_alone_and_another_is_refused(there: Path) -> None:
    before = (there / NAME).stat()
    assert push_bundle(TAG, str(there)) == f"two:sent is there already: {there}/{NAME}"
    after = (there / NAME).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    repack(there, lambda folder: edit(folder, created_at="earlier"))
    changed = (there / NAME).read_bytes()
    with pytest.raises(BundleError, match="is there already with another content, and a version never changes"):
        push_bundle(TAG, str(there))
    assert (there / NAME).read_bytes() == changed
    (there / NAME).write_bytes(changed[:1000])
    with pytest.raises(BundleError, match="is there already, and broken: its archive cannot be unpacked"):
        push_bundle(TAG, str(there))


def test_a_push_without_room_is_said_in_a_line(
    sent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exchange, "export_bundle", full)
    with pytest.raises(StorageError, match="two:sent cannot be pushed: No space left on device; it is packed up"):
        push_bundle(TAG, str(tmp_path))


@contextlib.contextmanager
def with_gate(gate: GateResult) -> Iterator[None]:
    """Gates the bundle of the tests until the block ends."""
    folder, manifest = open_bundle(TAG)
    write_manifest(folder, msgspec.structs.replace(manifest, gate=gate))
    try:
        yield
    finally:
        write_manifest(folder, manifest)


@contextlib.contextmanager
def with_signature(private: Path) -> Iterator[None]:
    """Signs the bundle of the tests until the block ends."""
    folder = bundle_path(TAG)
    sign_bundle(folder, TAG, private)
    try:
        yield
    finally:
        (folder / "manifest.sig").unlink()


def test_a_gate_is_pushed_later_and_is_not_lost(there: Path, tmp_path: Path) -> None:
    private, public = make_keys(tmp_path, "ours")
    with with_gate(GATE):
        assert "now with this signature and gate" in push_bundle(TAG, str(there))
    gated = (there / NAME).read_bytes()
    assert "is there already" in push_bundle(TAG, str(there))
    lost = "is there already, and its gate would be lost: delete it if that is meant, then push"
    with with_gate(msgspec.structs.replace(GATE, seeds=99)), pytest.raises(BundleError, match=lost):
        push_bundle(TAG, str(there))
    with with_signature(private), pytest.raises(BundleError, match=lost):
        push_bundle(TAG, str(there), public)
    assert (there / NAME).read_bytes() == gated
    with with_gate(GATE), with_signature(private):
        assert "now with this signature" in push_bundle(TAG, str(there))
    with with_signature(private), pytest.raises(BundleError, match=lost):
        push_bundle(TAG, str(there), public)
    with with_signature(private), pytest.raises(BundleError, match="its signature and gate would be lost"):
        push_bundle(TAG, str(there))


def test_another_signature_is_replaced_only_by_one_that_was_checked(there: Path, tmp_path: Path) -> None:
    private, public = make_keys(tmp_path, "ours")
    with with_signature(make_keys(tmp_path, "theirs")[0]):
        push_bundle(TAG, str(there))
    with with_signature(private):
        with pytest.raises(BundleError, match=r"its signature would be lost.*ROLLOUT_PUBLIC_KEY"):
            push_bundle(TAG, str(there))
        assert "now with this signature" in push_bundle(TAG, str(there), public)
    with with_gate(GATE), pytest.raises(BundleError, match="its signature would be lost"):
        push_bundle(TAG, str(there))
    with with_gate(GATE), with_signature(private):
        assert "now with this signature" in push_bundle(TAG, str(there), public)


def test_a_signature_is_pushed_later_and_is_not_lost(there: Path, tmp_path: Path) -> None:
    private, public = make_keys(tmp_path, "ours")
    with pytest.raises(BundleError, match="it has no signature"):
        push_bundle(TAG, str(there), public)
    with with_signature(private):
        assert "now with this signature" in push_bundle(TAG, str(there), public)
        assert "is there already" in push_bundle(TAG, str(there), public)
    signed = (there / NAME).read_bytes()
    assert "is there already" in push_bundle(TAG, str(there))
    assert (there / NAME).read_bytes() == signed


def test_whoever_is_second_does_not_replace_the_first(there: Path, tmp_path: Path) -> None:
    """Two push the same version at the same time: neither sees the other's."""
    other = tmp_path / "other"
    other.write_bytes(b"another")
    before = (there / NAME).read_bytes()
    with pytest.raises(BundleError, match="was written concurrently"):
        Folder(there).put(NAME, other)
    assert (there / NAME).read_bytes() == before
    assert os.listdir(there / "two") == ["sent.bentomodel"]  # noqa: PTH208


def test_a_file_appears_whole(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        assert Folder(there).list().keys() == {NAME, Path(target).relative_to(there).as_posix()}
        assert Pull(str(there)).look().keys() == {NAME}
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(StorageError, match="No space left on device"):
        Folder(there).put("two/next.bentomodel", tmp_path / "any")
    assert os.listdir(there / "two") == ["sent.bentomodel"]  # noqa: PTH208


def test_a_place_of_very_many_files_is_not_read_to_its_end(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        (there / "two" / f"{number}.bentomodel").touch()
    endless = ([{"path": f"two/{number}.bentomodel", "e_tag": "1"}] for number in itertools.count())
    monkeypatch.setattr("obstore.list", lambda _: endless)
    for url in (str(there), "memory:///"):
        pull = Pull(url)
        assert url != str(there) or len(pull.look()) == 5
        monkeypatch.setattr(storage, "MOST_FILES", 4)
        with pytest.raises(StorageError, match="has more than 4 files"):
            pull.look()
