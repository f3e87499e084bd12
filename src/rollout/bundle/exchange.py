"""Bundles between the store and where they are kept for others, each as ``NAME/VERSION.bentomodel``."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rollout.bundle.archive import unpack
from rollout.bundle.baseline import read_baseline
from rollout.bundle.golden_run import run_golden
from rollout.bundle.manifest import FILE_NAME, SIGNATURE, Manifest, digest, read_whole
from rollout.bundle.storage import Storage, open_storage
from rollout.bundle.store import (
    bundle_exists,
    check_bundle,
    export_bundle,
    is_tag,
    open_bundle,
    place_bundle,
    removal,
    staging,
)
from rollout.bundle.variants import VARIANTS
from rollout.bundle.verify import may_load
from rollout.errors import BundleError, ConfigError, StorageError

SUFFIX = ".bentomodel"
HERE = "in the store"


def push_bundle(tag: str, url: str, key: Path | None = None) -> str:
    """Puts a bundle where others fetch it, unless it is there.

    It takes the place of the same bundle only if it adds a signature or a gate and loses neither.

    Args:
        tag: Its name and version.
        url: Where, such as ``s3://bucket/path`` or a folder.
        key: Public key of who must have signed it, if anybody.

    Returns:
        What became of it, in a sentence.

    Raises:
        BundleError: If there is no such bundle, it does not hold what it promises, or this version is there with
            another content, signature or gate.
        ConfigError: If the storage cannot be used.
    """
    folder, manifest = open_bundle(tag, key)
    storage = open_storage(url)
    name = f"{manifest.name}/{manifest.version}{SUFFIX}"
    place = f"{url.rstrip('/')}/{name}"
    try:
        with tempfile.TemporaryDirectory(prefix="rollout-push-") as temporary:
            archive, there = Path(temporary, f"bundle{SUFFIX}"), Path(temporary, "there")
            replaces = storage.fetch(name, archive)
            if replaces is not None:
                there.mkdir()
                theirs = _marks(there, _require_same(archive, there, manifest, place))
                if not _adds(_marks(folder, manifest), theirs, place, is_verified=key is not None):
                    return f"{tag} is there already: {place}"
            archive.unlink(missing_ok=True)
            export_bundle(tag, archive)
            storage.put(name, archive, replaces)
    except OSError as error:
        raise StorageError(
            f"{tag} cannot be pushed: {error.strerror or error}; it is packed up under {tempfile.gettempdir()}, "
            "and TMPDIR names another place"
        ) from None
    more = "" if replaces is None else ", now with this signature and gate"
    return f"{tag} is there{more}: {place}"


class Pull:
    """Brings what a storage has into the store.

    Args:
        url: The storage, such as ``s3://bucket/path`` or a folder.
        key: Public key of who must have signed a bundle, if anybody.
        is_trusted: Whether a bundle may run code here although nobody signed it.

    Attributes:
        left_out: What could not be taken, by its name in the storage, and why.

    Raises:
        ConfigError: If the URL is of no known kind, or what it takes is not installed.
    """

    def __init__(self, url: str, key: Path | None = None, *, is_trusted: bool = False) -> None:
        self._storage: Storage = open_storage(url)
        self._key = key
        self._is_trusted = is_trusted or key is not None
        self.left_out: dict[str, str] = {}
        # What was taken or refused for good, by its name in the storage: its content there, or HERE.
        self._settled: dict[str, str] = {}
        self._strange: list[str] = []  # what was said of names that are none

    @property
    def is_settled(self) -> bool:
        """Whether all that is left out was refused for good, so that it is not tried again before it changes."""
        return self.left_out.keys() <= self._settled.keys()

    def look(self) -> dict[str, str]:
        """Returns the bundles that the storage has, each with what changes when its content does.

        Raises:
            StorageError: If it does not answer.
        """
        found = self._storage.list()
        return {name: found[name] for name in sorted(found) if name.endswith(SUFFIX) and name.count("/") == 1}

    def take(self, found: dict[str, str]) -> Iterator[str]:
        """Fetches and verifies the bundles that the store does not have, and says what became of each.

        Those that it has are checked once. What was left out is not mentioned again before something else becomes
        of it, and what was refused is not fetched again before it changes.

        Raises:
            ConfigError: If ``key`` is not a public key.
        """
        for known in (self.left_out, self._settled):
            for name in known.keys() - found.keys():
                del known[name]
        yield from (said for said in self._storage.strange if said not in self._strange)
        self._strange = self._storage.strange
        for name, content in found.items():
            tag = name.removesuffix(SUFFIX).replace("/", ":")
            state = HERE if bundle_exists(tag) else content
            if self._settled.get(name) == state:
                continue
            try:
                said = self._check(tag) if state == HERE else self._fetch(name, tag)
            except (StorageError, OSError) as error:  # perhaps not the next time
                self._settled.pop(name, None)
                said = self._leave_out(name, str(error))
            except ConfigError:
                raise
            except Exception as error:  # whatever one bundle is made of keeps no other away
                self._settled[name] = state
                said = self._leave_out(name, error.detail if isinstance(error, BundleError) else repr(error))
            else:
                self.left_out.pop(name, None)
                if bundle_exists(tag):
                    self._settled[name] = HERE
            if said:
                yield said

    def _check(self, tag: str) -> str:
        try:
            open_bundle(tag, self._key)
        except BundleError as error:
            raise BundleError(
                f"the store has it, but {error.detail}; after {removal(tag)} it is fetched again"
            ) from None
        return ""

    def _fetch(self, name: str, tag: str) -> str:
        if not is_tag(tag):
            raise BundleError("this is not a name and a version that the store can have")
        with staging() as stage:
            if bundle_exists(tag):  # another process was first
                return ""
            archive, folder = stage / "archive", stage / "bundle"
            if self._storage.fetch(name, archive) is None:
                return ""
            folder.mkdir()
            unpack(archive, folder)
            archive.unlink()
            manifest = check_bundle(folder, tag, self._key)
            read_baseline(folder)  # or nothing could serve it
            run, not_run = _run_golden(folder, manifest, is_trusted=self._is_trusted)
            place_bundle(folder, manifest, stage)
        more = f"; not run here: {', '.join(not_run)}" if not_run else ""
        return f"{tag} is here: {', '.join(run)} agree with its golden examples{more}"

    def _leave_out(self, name: str, why: str) -> str:
        if self.left_out.get(name) == why:
            return ""
        self.left_out[name] = why
        # Names of files need not be text.
        return f"{name} is left out: {why}".encode(errors="backslashreplace").decode()


def _require_same(archive: Path, folder: Path, manifest: Manifest, place: str) -> Manifest:
    """Unpacks what is there already, and refuses anything but the same bundle."""
    try:
        unpack(archive, folder)
        there = check_bundle(folder, manifest.tag)
    except BundleError as error:
        raise BundleError(f"{place} is there already, and broken: {error.detail}; delete it, then push") from None
    if digest(there) != digest(manifest):
        raise BundleError(
            f"{place} is there already with another content, and a version never changes: choose another version"
        )
    return there


def _marks(folder: Path, manifest: Manifest) -> dict[str, object]:
    """Returns what a bundle may get after it was packed."""
    signature = folder / SIGNATURE
    signed = (read_whole(signature), read_whole(folder / FILE_NAME)) if signature.exists() else None
    return {"signature": signed, "gate": manifest.gate}


def _adds(ours: dict[str, object], theirs: dict[str, object], place: str, *, is_verified: bool) -> bool:
    """Whether the same bundle has something here that it lacks there.

    Raises:
        BundleError: If it does, and something that it has there would be lost.
    """
    new = [what for what, mark in ours.items() if mark and mark != theirs[what]]
    lost = [what for what, mark in theirs.items() if mark and mark != ours[what]]
    if is_verified and "signature" in lost:
        lost.remove("signature")
    if new and lost:
        hint = "; a signature that ROLLOUT_PUBLIC_KEY checks may replace another" if "signature" in lost else ""
        raise BundleError(
            f"{place} is there already, and its {' and '.join(lost)} would be lost: delete it if that is meant, "
            f"then push{hint}"
        )
    return bool(new)


def _run_golden(folder: Path, manifest: Manifest, *, is_trusted: bool) -> tuple[list[str], list[str]]:
    """Runs the golden examples on the variants that can serve here; returns these and the others."""
    servable = [name for name in manifest.variants if _can_serve(name)]
    run = [name for name in servable if may_load(manifest, name, is_trusted=is_trusted)]
    if not run:
        raise BundleError(
            f"{manifest.tag} is refused: none of its variants can be run here: {', '.join(manifest.variants)}"
            + ("; those that can run code take a signature or --trust" if servable else "")
        )
    run_golden(folder, manifest, run)
    return run, [name for name in manifest.variants if name not in run]


def _can_serve(name: str) -> bool:
    """Whether a variant may be loaded here: it is one that serves, and needs nothing that is not installed."""
    kind = VARIANTS.get(name)
    if kind is None or not kind.is_served:
        return False
    return not kind.needs_torch or importlib.util.find_spec("torch") is not None
