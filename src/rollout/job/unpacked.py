"""The bundle of a job on a machine that takes part in it: unpacked there once, by whichever process is first."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from rollout.bundle.archive import unpack
from rollout.bundle.manifest import Manifest, digest
from rollout.bundle.store import check_bundle
from rollout.errors import BundleError
from rollout.job.plan import Plan


def open_unpacked(plan: Plan, fetch: Callable[[], bytes], home: Path | None = None) -> tuple[Path, Manifest]:
    """Returns the bundle of a plan: its folder, each file of which is what the plan pins, and its manifest.

    It lies under the folder for temporary files, where only this user gets in, for other processes and later
    jobs, until somebody removes it.

    Args:
        plan: The plan.
        fetch: Returns the archive; asked only where the bundle is not there, or not whole any more.
        home: Where it is unpacked; a folder of the user's under ``TMPDIR`` by default.

    Raises:
        BundleError: If the archive is not the bundle that the plan names, or the folder is not the user's alone.
    """
    home = home or Path(tempfile.gettempdir(), f"rollout-jobs-{os.getuid()}")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = home.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise BundleError(f"{home} is not for this user alone: others could change what runs; remove it")
    place = home / plan.digest
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return place, _checked(place, plan)
        except (BundleError, OSError):  # it is not there, or what cleans temporary files took some
            shutil.rmtree(place, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=home) as stage:
            archive, folder = Path(stage, "archive"), Path(stage, "bundle")
            archive.write_bytes(fetch())
            folder.mkdir()
            unpack(archive, folder)
            manifest = _checked(folder, plan)
            folder.rename(place)
        return place, manifest


def _checked(folder: Path, plan: Plan) -> Manifest:
    manifest = check_bundle(folder, plan.tag)
    if digest(manifest) != plan.digest:
        raise BundleError(
            f"{plan.tag} is refused: its manifest has the SHA-256 {digest(manifest)[:12]}…, and the job pins "
            f"{plan.digest[:12]}…"
        )
    return manifest
