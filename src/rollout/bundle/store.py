"""The bundle store: bundles as models of BentoML's model store, where each appears whole and never changes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore

from rollout.bundle.manifest import (
    FILE_NAME,
    SIGNATURE,
    Manifest,
    check_hashes,
    digest,
    read_manifest,
    write_manifest,
)
from rollout.errors import BundleError, MissingBundleError
from rollout.whole_file import write_whole

# As BentoML has it; `latest` is what it calls its pointer to one of the versions.
NAME = re.compile(r"(?!latest$)[a-z0-9]([-._a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
BENTOML_FILE = "model.yaml"
# A bundle that nothing has written to for so long, in seconds, is taken as it is.
SETTLED_S = 5.0


def is_tag(tag: str) -> bool:
    """Whether a tag is a name and a version that the store can have, and so names no other place on disk."""
    name, _, version = tag.partition(":")
    return bool(NAME.fullmatch(name) and NAME.fullmatch(version))


def save_bundle(folder: Path, manifest: Manifest) -> Path:
    """Copies a bundle that was packed here into the store.

    Returns:
        Where it lies in the store.

    Raises:
        BundleError: If this version exists already, or BentoML cannot have a version of this name.
    """
    if not is_tag(manifest.tag):
        raise BundleError(
            f"the store cannot have {manifest.tag}: a name and a version are up to 63 lowercase letters, digits, "
            "dots, dashes and underscores, with a letter or digit at both ends, and `latest` is no version"
        )
    _refuse_another(manifest.tag)
    with staging() as stage:
        copy = shutil.copytree(folder, stage / "bundle")
        _refuse_another(manifest.tag)
        note = _packed(manifest.tag)
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # As it will be read: what JSON makes of it may differ. Noted first: this may be killed in between.
        write_whole(note, digest(read_manifest(copy)).encode())
        return place_bundle(copy, manifest, stage)


def was_packed_here(manifest: Manifest) -> bool:
    """Whether ``rollout.pack`` made a bundle in this store: no other way into the store notes that."""
    try:
        return is_tag(manifest.tag) and _packed(manifest.tag).read_text() == digest(manifest)
    except OSError:
        return False


def place_bundle(folder: Path, manifest: Manifest, stage: Path) -> Path:
    """Moves the bundle at ``folder``, within ``staging``, into the store, whole or not at all.

    Raises:
        BundleError: If this version exists already.
    """
    drafts = ModelStore(stage / "drafts")
    with bentoml.models.create(
        manifest.tag, labels={"made-by": "rollout"}, metadata={**manifest.metrics}, _model_store=drafts
    ):
        pass  # it is BentoML's own file that is wanted: one from elsewhere has no say here
    (stage / "drafts" / manifest.name / manifest.version / BENTOML_FILE).replace(folder / BENTOML_FILE)
    place = _place(manifest.tag)
    place.parent.mkdir(parents=True, exist_ok=True)
    _refuse_another(manifest.tag)
    _sync(folder)
    folder.rename(place)
    (place.parent / "latest").write_text(manifest.version)
    return place


def replace_manifest(manifest: Manifest) -> None:
    """Puts a manifest in the place of the one that its bundle has, whole or not at all: it may be serving.

    Raises:
        BundleError: If it is larger than what is read again.
        OSError: If it cannot be written.
    """
    with staging() as stage:
        write_manifest(stage, manifest)
        _sync(stage)
        (stage / FILE_NAME).replace(_place(manifest.tag) / FILE_NAME)


@contextlib.contextmanager
def staging() -> Iterator[Path]:
    """A folder on the store's disk where one process at a time makes a bundle ready.

    What a process left there that was killed goes first.
    """
    folder = _models().with_name("staging")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def export_bundle(tag: str, file: Path) -> None:
    """Writes a bundle into one file, ``*.bentomodel``, which ``bentoml models import`` takes as well."""
    bentoml.models.export_model(tag, str(file))


def bundle_exists(tag: str) -> bool:
    """Whether the store has this version."""
    return is_tag(tag) and _place(tag).is_dir()


def bundle_path(tag: str) -> Path:
    """Returns the folder of a bundle.

    Raises:
        MissingBundleError: If the store has no such version.
        BundleError: If it is not a bundle of ours.
    """
    if not bundle_exists(tag):
        raise MissingBundleError(f"there is no bundle {tag}; `rollout ls` shows what the store has")
    path = _place(tag)
    if not (path / FILE_NAME).exists():
        raise BundleError(f"{tag} is a model of BentoML's store, but not a bundle that `rollout.pack` made")
    return path


def open_bundle(tag: str, key: Path | None = None) -> tuple[Path, Manifest]:
    """Finds a bundle and checks its files against its manifest.

    Args:
        tag: Its name and version.
        key: Public key of who must have signed it, if anybody.

    Raises:
        MissingBundleError: If there is none.
        BundleError: If it is not signed as ``key`` asks, or any file was changed, lost or added.
    """
    path = bundle_path(tag)
    return path, check_bundle(path, tag, key)


def changed_lately(tag: str) -> bool:
    """Whether a bundle was written to moments ago: whoever copies it may not be done."""
    return changed_since(tag, time.time() - SETTLED_S)


def changed_since(tag: str, when: float) -> bool:
    """Whether a bundle was written to after ``when``, in seconds since 1970, or appears or goes right now."""
    folder = _place(tag)
    try:
        return max(path.stat().st_ctime for path in (folder, *folder.rglob("*"))) > when
    except OSError:
        return True


def check_bundle(folder: Path, tag: str, key: Path | None = None) -> Manifest:
    """Checks the files of the bundle at ``folder`` against its manifest, and this against its signature.

    Raises:
        BundleError: If it is another bundle, not signed as ``key`` asks, or any file was changed, lost or added.
    """
    for name in (FILE_NAME, SIGNATURE, BENTOML_FILE):
        if (folder / name).is_dir():
            raise BundleError(f"{tag} is refused: {name} is a folder")
    if key is not None:
        from rollout.bundle.signing import check_signature  # noqa: PLC0415  7 MiB of a worker, and seldom asked for

        check_signature(folder, tag, key)
    manifest = read_manifest(folder)
    if manifest.tag != tag:
        raise BundleError(f"{tag} is refused: its manifest says {manifest.tag}")
    check_hashes(folder, manifest)
    for name, variant in manifest.variants.items():
        if variant.file not in manifest.hashes:
            raise BundleError(f"{tag} is refused: {variant.file}, its {name} variant, is none of its files")
    return manifest


def bundle_names() -> set[str]:
    """Returns the names of all models that have a bundle."""
    return {tag.partition(":")[0] for tag in bundle_tags()}


def bundle_tags() -> list[str]:
    """Returns name and version of every bundle, whether or not it is whole; other folders are none."""
    folders = (file.parent for file in _models().glob(f"*/*/{FILE_NAME}"))
    return sorted(filter(is_tag, (f"{folder.parent.name}:{folder.name}" for folder in folders)))


def bundle_bytes(tag: str) -> int:
    """Returns how much a bundle takes on disk; a file that goes meanwhile takes nothing."""
    size = 0
    for path in _place(tag).rglob("*"):
        with contextlib.suppress(OSError):
            size += path.lstat().st_size if not path.is_dir() else 0
    return size


def is_signed(tag: str) -> bool:
    """Whether a bundle has a signature, whoever made it."""
    return (_place(tag) / SIGNATURE).is_file()


def remove_bundle(tag: str) -> None:
    """Takes a bundle out of the store, whole or not at all.

    Raises:
        MissingBundleError: If there is none.
    """
    if not bundle_exists(tag):
        raise MissingBundleError(f"there is no bundle {tag}")
    place = _place(tag)
    with staging() as stage:
        place.rename(stage / "removed")
        _packed(tag).unlink(missing_ok=True)
        left = [other for other in place.parent.iterdir() if other.is_dir()]
        latest = place.parent / "latest"
        if left and latest.is_file() and latest.read_text().strip() == place.name:
            latest.write_text(max(left, key=lambda other: other.stat().st_mtime).name)
        if not left:
            shutil.rmtree(place.parent)


def _models() -> Path:
    """Where BentoML has its models: under its home, and where a Bento is served, those of the Bento."""
    return Path(BentoMLContainer.model_store.get()._path)


def _place(tag: str) -> Path:
    name, _, version = tag.partition(":")
    return _models() / name / version


def _packed(tag: str) -> Path:
    """Returns where the digest of a bundle stands if it was packed here: beside the models, in none of them."""
    name, _, version = tag.partition(":")
    return _models().with_name("packed") / name / version


def _sync(folder: Path) -> None:
    """Returns when the disk has all of a folder; else, after a power cut, a new name may lead to empty files."""
    for path in (*folder.rglob("*"), folder):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def removal(tag: str) -> str:
    """Returns the command that removes a bundle from the store, which is seldom BentoML's own."""
    home = os.environ.get("BENTOML_HOME")
    return f"`{f'BENTOML_HOME={shlex.quote(home)} ' if home else ''}bentoml models delete {tag}`"


def _refuse_another(tag: str) -> None:
    if bundle_exists(tag):
        raise BundleError(
            f"{tag} exists already and a version never changes: choose another version, "
            f"or {removal(tag)} if nothing serves it"
        )
