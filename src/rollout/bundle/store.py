"""The bundle store: bundles as models of BentoML's model store, which never overwrites a version."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
import bentoml.exceptions

from rollout.bundle.manifest import FILE_NAME, Manifest, check_hashes, read_manifest
from rollout.bundle.signing import check_signature
from rollout.errors import BundleError


def save_bundle(folder: Path, manifest: Manifest) -> Path:
    """Copies the bundle at ``folder`` into the store.

    Returns:
        Where it lies in the store.

    Raises:
        BundleError: If this version exists already.
    """
    if bundle_exists(manifest.tag):
        raise BundleError(
            f"{manifest.tag} exists already and a version never changes: choose another version, "
            f"or `bentoml models delete {manifest.tag}` if nothing serves it"
        )
    with bentoml.models.create(
        manifest.tag, labels={"made-by": "rollout"}, metadata={**manifest.metrics}
    ) as model:
        shutil.copytree(folder, model.path, dirs_exist_ok=True)
    return Path(bentoml.models.get(manifest.tag).path)


def bundle_exists(tag: str) -> bool:
    """Whether the store has this version."""
    try:
        bentoml.models.get(tag)
    except bentoml.exceptions.NotFound:
        return False
    return True


def bundle_path(tag: str) -> Path:
    """Returns the folder of a bundle.

    Raises:
        BundleError: If the store has no such version, or it is not a bundle of ours.
    """
    try:
        path = Path(bentoml.models.get(tag).path)
    except (bentoml.exceptions.BentoMLException, ValueError):
        raise BundleError(f"there is no bundle {tag}; `bentoml models list` shows what the store has") from None
    if not (path / FILE_NAME).exists():
        raise BundleError(f"{tag} is a model of BentoML's store, but not a bundle that `rollout.pack` made")
    return path


def open_bundle(tag: str, key: Path | None = None) -> tuple[Path, Manifest]:
    """Finds a bundle and checks its files against its manifest.

    Args:
        tag: Its name and version.
        key: Public key of who must have signed it, if anybody.

    Raises:
        BundleError: If there is none, it is not signed as ``key`` asks, or any file was changed, lost or added.
    """
    path = bundle_path(tag)
    if key is not None:
        check_signature(path, tag, key)
    manifest = read_manifest(path)
    if manifest.tag != tag:
        raise BundleError(f"{tag} is refused: its manifest says {manifest.tag}")
    check_hashes(path, manifest)
    return path, manifest


def bundle_names() -> set[str]:
    """Returns the names of all models that have a bundle."""
    return {model.tag.name for model in bentoml.models.list() if (Path(model.path) / FILE_NAME).exists()}
