"""Bundles go where others fetch them, and only whole, unchanged ones come from there."""

from __future__ import annotations

import importlib.util
import io
import json
import lzma
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import pytest
import torch
from bentoml._internal.models import ModelStore

from rollout.bundle import archive as archive_module
from rollout.bundle import store
from rollout.bundle.archive import unpack
from rollout.bundle.exchange import Pull, push_bundle
from rollout.bundle.manifest import hash_files
from rollout.bundle.signing import sign_bundle
from rollout.bundle.storage import Folder
from rollout.bundle.store import bundle_exists, bundle_names, bundle_path, open_bundle, save_bundle
from rollout.errors import BundleError, ConfigError, MissingBundleError, StorageError
from tests.bundle.test_signing import make_keys
from tests.bundle.two import Linear, pack_two

TAG = "two:sent"
NAME = "two/sent.bentomodel"


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to which ``two:sent`` was pushed."""
    pack_two("sent", Linear().eval())
    folder = tmp_path_factory.mktemp("sent")
    push_bundle(TAG, str(folder))
    return folder


@pytest.fixture
def there(sent: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sent, tmp_path / "there")


@pytest.fixture
def elsewhere(sent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty store of another machine, which is used from now on."""
    home = tmp_path / "elsewhere"
    (home / "models").mkdir(parents=True)
    monkeypatch.setattr(store, "_models", lambda: home / "models")
    return home


def take(pull: Pull) -> list[str]:
    return list(pull.take(pull.look()))


def pack_up(folder: Path, file: Path) -> None:
    """Writes a folder as BentoML exports a model."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:xz") as tar:
        tar.add(folder, ".")


def repack(there: Path, change: Callable[[Path], None], name: str = NAME) -> None:
    """Changes what lies there."""
    folder = there / "opened"
    folder.mkdir()
    unpack(there / NAME, folder)
    change(folder)
    (there / NAME).unlink()
    pack_up(folder, there / name)
    shutil.rmtree(folder)


def edit(folder: Path, *, hashes: bool = False, **fields: Any) -> None:
    """Changes the manifest, and its hashes to those of the files."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text()) | fields
    if hashes:
        manifest["hashes"] = hash_files(folder)
    file.write_text(json.dumps(manifest))


def test_it_arrives_as_it_was_sent(there: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull = Pull(str(there))
    said = "two:sent is here: onnx, onnx-int8, torchscript agree with its golden examples; not run here: export"
    assert take(pull) == [said]
    assert take(pull) == []
    folder, manifest = open_bundle(TAG)
    assert bundle_names() == {"two"}
    assert sorted(path.name for path in elsewhere.iterdir()) == ["models", "staging.lock"]
    assert bentoml.models.get(TAG, _model_store=ModelStore(elsewhere / "models")).path == str(folder)
    monkeypatch.undo()
    ours, packed = open_bundle(TAG)
    assert manifest == packed
    for file in ours.rglob("*"):
        if file.is_file() and file.name != "model.yaml":
            assert file.read_bytes() == (folder / file.relative_to(ours)).read_bytes()


def test_bentoml_takes_it_as_well(there: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    model = bentoml.models.import_model(str(there / NAME), _model_store=ModelStore(tmp_path / "models"))
    assert str(model.tag) == TAG


def test_the_same_is_left_alone_and_another_is_refused(there: Path) -> None:
    before = (there / NAME).stat()
    assert push_bundle(TAG, str(there)) == f"two:sent is there already: {there}/{NAME}"
    assert (there / NAME).stat() == before
    repack(there, lambda folder: edit(folder, created_at="earlier"))
    changed = (there / NAME).read_bytes()
    with pytest.raises(BundleError, match="is there already with another content, and a version never changes"):
        push_bundle(TAG, str(there))
    assert (there / NAME).read_bytes() == changed
    (there / NAME).write_bytes(changed[:1000])
    with pytest.raises(BundleError, match="is there already, and broken: its archive cannot be unpacked"):
        push_bundle(TAG, str(there))


def test_a_signature_is_pushed_later_and_is_not_lost(there: Path, tmp_path: Path) -> None:
    private, public = make_keys(tmp_path, "ours")
    folder = bundle_path(TAG)
    with pytest.raises(BundleError, match="it has no signature"):
        push_bundle(TAG, str(there), public)
    sign_bundle(folder, TAG, private)
    try:
        assert "now with this signature" in push_bundle(TAG, str(there), public)
        assert "is there already" in push_bundle(TAG, str(there), public)
    finally:
        (folder / "manifest.sig").unlink()
    signed = (there / NAME).read_bytes()
    assert "is there already" in push_bundle(TAG, str(there))
    assert (there / NAME).read_bytes() == signed


def test_with_a_key_only_what_it_signed_is_taken(there: Path, elsewhere: Path, tmp_path: Path) -> None:
    private, public = make_keys(tmp_path, "ours")
    pull = Pull(str(there), public)
    assert "is left out: two:sent is refused: it has no signature" in take(pull)[0]
    repack(there, lambda folder: sign_bundle(folder, TAG, make_keys(tmp_path, "theirs")[0]))
    assert "was not made with the private key that belongs to" in take(pull)[0]
    repack(there, lambda folder: sign_bundle(folder, TAG, private))
    assert take(pull)[0].startswith("two:sent is here")
    assert pull.left_out == {}


def flip_a_byte(folder: Path) -> None:
    file = folder / "onnx" / "model.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def flip_the_golden_examples(folder: Path) -> None:
    with np.load(folder / "golden.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["scores"] = arrays["scores"][:, ::-1].copy()
    np.savez_compressed(folder / "golden.npz", **arrays)
    edit(folder, hashes=True)


def ruin_the_graph(folder: Path) -> None:
    (folder / "onnx" / "model.onnx").write_bytes(b"no graph")
    edit(folder, hashes=True)


def ruin_the_golden_examples(folder: Path) -> None:
    (folder / "golden.npz").write_bytes(b"no examples")
    edit(folder, hashes=True)


def point_outside(folder: Path) -> None:
    variants = json.loads((folder / "manifest.json").read_text())["variants"]
    variants["onnx"]["file"] = "../../../../etc/hostname"
    edit(folder, variants=variants)


def keep_only_export(folder: Path) -> None:
    variants = json.loads((folder / "manifest.json").read_text())["variants"]
    edit(folder, variants={"export": variants["export"]})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (flip_a_byte, "onnx/model.onnx was changed after packing"),
        (lambda folder: (folder / "golden.npz").unlink(), "golden.npz is missing"),
        (
            lambda folder: (folder / "custom_objects.pkl").write_bytes(b""),
            "custom_objects.pkl is not in the manifest",
        ),
        (lambda folder: (folder / "manifest.json").unlink(), "is not a bundle: it has no manifest.json"),
        (lambda folder: edit(folder, version="v9"), "two:sent is refused: its manifest says two:v9"),
        (flip_the_golden_examples, "its onnx variant disagrees with the source module"),
        (ruin_the_graph, "the onnx variant cannot be loaded"),
        (ruin_the_golden_examples, "its golden examples cannot be run"),
        (point_outside, "../../../../etc/hostname, its onnx variant, is none of its files"),
        (keep_only_export, "none of its variants can be run here: export"),
    ],
)
def test_what_does_not_hold_is_left_out_and_said_once(
    there: Path, elsewhere: Path, change: Callable[[Path], None], why: str
) -> None:
    good = (there / NAME).read_bytes()
    repack(there, change)
    pull = Pull(str(there))
    (said,) = take(pull)
    assert said.startswith(f"{NAME} is left out: ")
    assert why in said
    assert pull.left_out.keys() == {NAME}
    assert not bundle_exists(TAG)
    assert bundle_names() == set()
    assert not (elsewhere / "staging").exists()
    assert take(pull) == []
    (there / NAME).write_bytes(good)
    assert "two:sent is here" in take(pull)[0]
    assert pull.left_out == {}


def test_what_was_refused_is_not_fetched_again(
    there: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repack(there, flip_a_byte)
    pull = Pull(str(there))
    take(pull)
    monkeypatch.setattr(Folder, "fetch", lambda *_: pytest.fail("it is fetched again"))
    assert take(pull) == []
    monkeypatch.undo()
    (there / NAME).unlink()
    assert take(pull) == []
    assert pull.left_out == {}


def test_one_that_is_left_out_keeps_no_other_from_coming(there: Path, elsewhere: Path) -> None:
    shutil.copy(there / NAME, there / "two" / "other.bentomodel")
    pull = Pull(str(there))
    first, second = take(pull)
    assert "two/other.bentomodel is left out: two:other is refused: its manifest says two:sent" in first
    assert "two:sent is here" in second


@pytest.mark.parametrize(
    "name", ["TWO/sent", "two/latest", "two/.sent", "two/sent ", "tw\no/sent", "latest/sent"]
)
def test_names_that_are_no_tags_never_become_paths(there: Path, elsewhere: Path, name: str) -> None:
    repack(there, lambda _: None, f"{name}.bentomodel")
    pull = Pull(str(there))
    (said,) = take(pull)
    assert "is left out: this is not a name and a version that the store can have" in said
    assert not any((elsewhere / "models").iterdir())


def test_names_that_lead_out_of_the_store_are_left_alone(there: Path, elsewhere: Path) -> None:
    class Hostile(Folder):
        def list(self) -> dict[str, str]:
            return {
                f"{name}.bentomodel": "1" for name in ("../two", "../../etc", "two/../x", "..", "/x", "two/..")
            }

        def fetch(self, *_: object) -> bool:
            raise AssertionError("it is fetched")

    pull = Pull(str(there))
    pull._storage = Hostile(there)
    for said in take(pull):
        assert "is left out: this is not a name" in said
    assert not any((elsewhere / "models").iterdir())


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


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
def test_an_archive_cannot_reach_out_of_its_folder(tmp_path: Path, info: tarfile.TarInfo, why: str) -> None:
    file, folder = tmp_path / "archive", tmp_path / "folder"
    folder.mkdir()
    with tarfile.open(file, "w:xz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member("model.yaml"))
        tar.addfile(info)
    with pytest.raises(BundleError, match=re.escape(why)):
        unpack(file, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "folder"]


def test_an_absolute_name_stays_in_the_folder(tmp_path: Path) -> None:
    file, folder = tmp_path / "archive", tmp_path / "folder"
    folder.mkdir()
    with tarfile.open(file, "w:xz") as tar:
        tar.addfile(member(f"{tmp_path}/out"))
    unpack(file, folder)
    assert not (tmp_path / "out").exists()


def test_an_archive_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "ALWAYS_ALLOWED", 1024 * 1024)
    file, folder = tmp_path / "archive", tmp_path / "folder"
    folder.mkdir()
    with tarfile.open(file, "w:xz") as tar:
        tar.addfile(member("zeros", size=30_000_000), io.BytesIO(bytes(30_000_000)))
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


def test_what_is_not_a_whole_archive_is_refused(there: Path, tmp_path: Path) -> None:
    whole = (there / NAME).read_bytes()
    file, folder = tmp_path / "archive", tmp_path / "folder"
    for content in (b"", b"no archive", whole[: len(whole) // 2], lzma.compress(b"no tar")):
        file.write_bytes(content)
        folder.mkdir()
        with pytest.raises(BundleError, match="its archive cannot be unpacked"):
            unpack(file, folder)
        shutil.rmtree(folder)


def test_nothing_is_unpickled_and_nothing_needs_torch(
    there: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it is loaded")

    found = importlib.util.find_spec
    monkeypatch.setattr(torch.export, "load", never)
    monkeypatch.setattr(torch.jit, "load", never)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    (said,) = take(Pull(str(there)))
    assert said.endswith("onnx, onnx-int8 agree with its golden examples; not run here: torchscript, export")


def test_what_a_killed_process_left_is_removed(there: Path, elsewhere: Path) -> None:
    (elsewhere / "staging" / "bundle").mkdir(parents=True)
    (elsewhere / "staging" / "bundle" / "half").write_bytes(b"half")
    assert "two:sent is here" in take(Pull(str(there)))[0]
    assert not (elsewhere / "staging").exists()


def test_a_bundle_that_cannot_be_placed_leaves_nothing(
    there: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    pull = Pull(str(there))
    monkeypatch.setattr(store.shutil, "copytree", full)  # type: ignore[attr-defined]
    assert "No space left on device" in take(pull)[0]
    assert take(pull) == [], "said once"
    assert bundle_names() == set()
    assert not (elsewhere / "staging").exists()
    monkeypatch.undo()
    monkeypatch.setattr(store, "_models", lambda: elsewhere / "models")
    assert "two:sent is here" in take(pull)[0], "it is tried again"


def test_whoever_is_second_does_not_replace_the_first(there: Path, tmp_path: Path) -> None:
    """Two push the same version at the same time: neither sees the other's."""
    other = tmp_path / "other"
    other.write_bytes(b"another")
    before = (there / NAME).read_bytes()
    with pytest.raises(BundleError, match="somebody else put"):
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


def test_a_place_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match=rf"{tmp_path}/nowhere cannot be used: No such file or directory"):
        Pull(str(tmp_path / "nowhere")).look()
    with pytest.raises(
        ConfigError, match=r"foo://x cannot be used: .*; a URL reads s3://bucket/path, and a folder"
    ):
        Pull("foo://x")
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(ConfigError, match=r"s3://b takes the extra `s3`: pip install 'rollout\[s3\]'"):
        Pull("s3://b")


def test_a_version_is_not_taken_for_one_that_begins_alike(sent: Path) -> None:
    """BentoML answers for `sen` with `sent`, if that is the only one."""
    assert not bundle_exists("two:sen")
    with pytest.raises(MissingBundleError):
        bundle_path("two:sen")


def test_a_name_that_the_store_cannot_have_is_refused(sent: Path) -> None:
    folder, manifest = open_bundle(TAG)
    for name, version in (("Two", "v1"), ("two", "latest"), ("../two", "v1"), ("two", "x" * 64)):
        changed = type(manifest)(**{f: getattr(manifest, f) for f in manifest.__struct_fields__} | {"name": name, "version": version})  # fmt: skip
        with pytest.raises(BundleError, match="the store cannot have"):
            save_bundle(folder, changed)
