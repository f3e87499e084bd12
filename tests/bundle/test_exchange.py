"""Bundles go where others fetch them, and only whole, unchanged ones come from there."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import psutil
import pytest
from bentoml._internal.models import ModelStore
from onnx import TensorProto, helper

from rollout.bounded import usable_memory
from rollout.bundle import exchange, golden_run, store
from rollout.bundle.archive import unpack
from rollout.bundle.exchange import Pull
from rollout.bundle.manifest import hash_files
from rollout.bundle.signing import sign_bundle
from rollout.bundle.storage import Folder
from rollout.bundle.store import bundle_exists, bundle_names, bundle_path, open_bundle, save_bundle
from rollout.errors import BundleError, ConfigError, MissingBundleError, StorageError
from tests.bundle.test_signing import make_keys

TAG = "two:sent"
NAME = "two/sent.bentomodel"


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
    (archive,) = there.glob("two/*.bentomodel")
    unpack(archive, folder)
    change(folder)
    archive.unlink()
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
    said = "two:sent is here: onnx, onnx-int8 agree with its golden examples; not run here: torchscript, export"
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


def test_with_a_key_only_what_it_signed_is_taken(there: Path, elsewhere: Path, tmp_path: Path) -> None:
    private, public = make_keys(tmp_path, "ours")
    pull = Pull(str(there), public)
    assert "is left out: two:sent is refused: it has no signature" in take(pull)[0]
    repack(there, blow_up_the_signature)
    assert "manifest.sig has more than 4,194,304 bytes" in take(pull)[0]
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


def blow_up_the_golden_examples(folder: Path) -> None:
    with (
        zipfile.ZipFile(folder / "golden.npz", "a", zipfile.ZIP_DEFLATED) as file,
        file.open("inputs/y.npy", "w") as member,
    ):
        for _ in range(160):
            member.write(bytes(1024 * 1024))
    edit(folder, hashes=True)


def stretch_the_scores(folder: Path) -> None:
    with np.load(folder / "golden.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["scores"] = np.zeros((1_000_000, 1, 1), np.float32)
    np.savez_compressed(folder / "golden.npz", **arrays)
    edit(folder, hashes=True)


def blow_up_the_manifest(folder: Path) -> None:
    edit(folder, lineage={"notes": ["x" * 1000] * 5000})


def blow_up_the_signature(folder: Path) -> None:
    (folder / "manifest.sig").write_bytes(bytes(5_000_000))


def loop_for_ever(folder: Path) -> None:
    """Adds to nothing 2**62 times."""
    value, number, flag = helper.make_tensor_value_info, TensorProto.FLOAT, TensorProto.BOOL
    body = helper.make_graph(
        [helper.make_node("Add", ["before", "x"], ["after"]), helper.make_node("Identity", ["on"], ["goes_on"])],
        "body",
        [value("turn", TensorProto.INT64, []), value("on", flag, []), value("before", number, None)],
        [value("goes_on", flag, []), value("after", number, None)],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["turns", "", "x"], ["scores"], body=body)],
        "graph",
        [value("x", number, ["rows", 2])],
        [value("scores", number, ["rows", 2])],
        [helper.make_tensor("turns", TensorProto.INT64, [], [2**62])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "onnx" / "model.onnx").write_bytes(model.SerializeToString())
    edit(folder, hashes=True)


def point_outside(folder: Path) -> None:
    variants = json.loads((folder / "manifest.json").read_text())["variants"]
    variants["onnx"]["file"] = "../../../../etc/hostname"
    edit(folder, variants=variants)


def name_it_in_no_encoding(folder: Path) -> None:
    file = folder / "manifest.json"
    file.write_bytes(file.read_bytes().replace(b'"sent"', b'"\xff"'))


def nest_it_deeply(folder: Path) -> None:
    text = (folder / "manifest.json").read_text().rstrip().removesuffix("}")
    (folder / "manifest.json").write_text(f'{text}, "more": {"[" * 100_000}{"]" * 100_000}}}')


def make_a_folder_of_it(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()


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
        (ruin_the_golden_examples, "golden.npz cannot be read: File is not a zip file"),
        (blow_up_the_golden_examples, "golden.npz unpacks to 167,7"),
        (stretch_the_scores, "the scores of its golden examples are float32 of shape (1000000, 1, 1), not"),
        (blow_up_the_manifest, "manifest.json has more than 4,194,304 bytes"),
        (point_outside, "../../../../etc/hostname, its onnx variant, is none of its files"),
        (name_it_in_no_encoding, "is not a manifest: "),
        (nest_it_deeply, "is not a manifest: "),
        (make_a_folder_of_it, "two:sent is refused: manifest.json is a folder"),
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
    assert pull.is_settled
    assert not bundle_exists(TAG)
    assert bundle_names() == set()
    assert not (elsewhere / "staging").exists()
    assert take(pull) == []
    (there / NAME).write_bytes(good)
    assert "two:sent is here" in take(pull)[0]
    assert pull.left_out == {}


def test_a_model_that_does_not_end_is_ended(
    there: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repack(there, loop_for_ever)
    before = psutil.Process().children()
    monkeypatch.setattr(golden_run, "SECONDS", 1)
    (said,) = take(Pull(str(there)))
    assert "its golden examples, run on onnx, onnx-int8, take more than 2 s" in said
    assert psutil.Process().children() == before
    assert not bundle_exists(TAG)


def test_a_model_that_ends_its_process_is_left_out(
    there: Path, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing = tmp_path / "crashing"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(golden_run.sys, "executable", str(crashing))  # type: ignore[attr-defined]
    (said,) = take(Pull(str(there)))
    assert said.endswith("its golden examples ended the process that ran them on onnx, onnx-int8 (SIGSEGV)")


def test_a_model_has_a_limit_of_memory() -> None:
    code = (
        "from rollout.bounded import limit_memory; import numpy; limit_memory(300_000_000);"
        "numpy.ones(200_000_000, 'u1'); print('enough', open('/proc/self/oom_score_adj').read(), end='');"
        "numpy.ones(400_000_000, 'u1')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout == "enough 1000\n"
    assert "Unable to allocate 381. MiB" in ended.stderr
    assert 0 < usable_memory() <= psutil.virtual_memory().total


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


def test_nothing_that_an_archive_does_keeps_another_from_coming(
    there: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, link in enumerate([b"no text \xff".decode(errors="surrogateescape"), "second"]):
        with tarfile.open(there / "two" / f"{number}.bentomodel", "w:xz") as tar:
            info = tarfile.TarInfo(link)
            info.type = tarfile.SYMTYPE
            tar.addfile(info)

    def stumble(archive: Path, folder: Path) -> None:
        try:
            unpack(archive, folder)
        except BundleError as error:
            if "second" in error.detail:
                raise MemoryError from None
            raise

    monkeypatch.setattr(exchange, "unpack", stumble)
    pull = Pull(str(there))
    first, second, third = take(pull)
    assert r"its archive holds no text \udcff, which is neither a file nor a folder" in first
    assert "two/1.bentomodel is left out: MemoryError()" in second
    assert "two:sent is here" in third
    assert take(pull) == []


def test_what_the_store_has_is_checked_once(
    there: Path, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(Pull(str(there)))
    folder = bundle_path(TAG)
    graph = folder / "onnx" / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(b"")
    pull = Pull(str(there))
    assert take(pull) == [
        f"{NAME} is left out: the store has it, but two:sent is refused: onnx/model.onnx was changed after packing; "
        f"after `BENTOML_HOME={os.environ['BENTOML_HOME']} bentoml models delete two:sent` it is fetched again"
    ]
    assert pull.is_settled
    graph.write_bytes(whole)
    unsigned = Pull(str(there), make_keys(tmp_path, "ours")[1])
    (said,) = take(unsigned)
    assert "the store has it, but two:sent is refused: it has no signature" in said
    good = Pull(str(there))
    assert take(good) == []
    monkeypatch.setattr(exchange, "open_bundle", lambda *_: pytest.fail("it is checked again"))
    assert take(pull) == take(unsigned) == take(good) == []
    assert [each.left_out.keys() for each in (pull, unsigned, good)] == [{NAME}, {NAME}, set()]
    shutil.rmtree(folder)
    assert "two:sent is here" in take(pull)[0]
    assert pull.left_out == {}


def test_of_two_pulls_at_once_one_fetches(there: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = store.staging

    @contextlib.contextmanager
    def after_another() -> Iterator[Path]:
        monkeypatch.setattr(exchange, "staging", staging)
        assert "two:sent is here" in take(Pull(str(there)))[0]
        monkeypatch.setattr(Folder, "fetch", lambda *_: pytest.fail("it is fetched again"))
        with staging() as stage:
            yield stage

    monkeypatch.setattr(exchange, "staging", after_another)
    pull = Pull(str(there))
    assert take(pull) == []
    assert pull.left_out == {}


def test_a_bundle_is_on_the_disk_before_it_has_its_name(
    there: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = set()

    def fsync(file: int) -> None:
        assert not bundle_exists(TAG)
        synced.add(os.fstat(file).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    take(Pull(str(there)))
    folder = bundle_path(TAG)
    assert {path.stat().st_ino for path in (folder, *folder.rglob("*"))} <= synced


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

        def fetch(self, *_: object) -> None:
            raise AssertionError("it is fetched")

    pull = Pull(str(there))
    pull._storage = Hostile(there)
    for said in take(pull):
        assert "is left out: this is not a name" in said
    assert not any((elsewhere / "models").iterdir())


def test_nothing_is_unpickled_and_nothing_needs_torch(
    there: Path, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no torch where the variants are run: nothing else would unpickle."""
    (tmp_path / "torch.py").write_text("raise AssertionError('it is imported')")
    path = filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    found = importlib.util.find_spec
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
    monkeypatch.setattr(store, "_sync", full)
    assert "No space left on device" in take(pull)[0]
    assert take(pull) == [], "said once"
    assert not pull.is_settled
    assert bundle_names() == set()
    assert not (elsewhere / "staging").exists()
    monkeypatch.undo()
    monkeypatch.setattr(store, "_models", lambda: elsewhere / "models")
    assert "two:sent is here" in take(pull)[0], "it is tried again"


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
