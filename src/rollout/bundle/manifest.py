"""The manifest: what a bundle promises, as one JSON file inside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from rollout.bundle.evidence import Finding, GateResult, ReferenceResult
from rollout.bundle.fields import Field
from rollout.bundle.parity import Parity
from rollout.errors import NO_JSON, BundleError
from rollout.heads import Head, decode_head
from rollout.heads.review_evidence import ReviewEvidence
from rollout.notebook import figure, show

FILE_NAME = "manifest.json"
SIGNATURE = "manifest.sig"
SCHEMA_VERSION = 2
# Of a file that is read whole. JSON may take twenty times its size in memory.
MOST_BYTES = 4 * 1024 * 1024
NO_MAPPING: Mapping[str, Mapping[str, str]] = {}


class PackedVariant(msgspec.Struct, frozen=True, kw_only=True):
    """A variant that passed.

    Attributes:
        file: Its path in the bundle.
        parity: How far it is from the source, on each set of rows.
        is_exact: Whether it is held to the source's scores, not just to its decisions.
        device: Where it was compared.
        elsewhere: How far its golden examples are from the source on other devices of the machine that packed it.
        memory: Bytes that it takes there with its largest batch, weights included; 0 if that is not known.
        seconds: Of the same golden examples as the others that serve, by turns, on one thread of the processor
            that packed it; 0 where a row is too cheap for that.
    """

    file: str
    parity: dict[str, Parity]
    is_exact: bool
    device: str = "cpu"
    elsewhere: dict[str, Parity] = {}
    memory: int = 0
    seconds: float = 0.0


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A variant that did not pass.

    Attributes:
        why: The reason, in a sentence.
        worst: Its worst rows, a line each.
    """

    why: str
    worst: list[str] = []


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known about a bundle.

    Attributes:
        schema_version: Version of this file's layout.
        name: The model.
        version: This version of it.
        inputs: The input schema, in the order of the module's arguments.
        task: What it answers, and what counts as unsure.
        variants: The variants that passed.
        timed_on: The processor of their ``seconds``; empty if there are none.
        left_out: The variants that did not.
        hashes: SHA-256 of every other file of the bundle, by path.
        metrics: Figures measured when packing, such as the accuracy on the evaluation part.
        review: What the calibration part says about answers without review, where that has a threshold.
        lineage: What made it: seeds, data, code and environment.
        findings: What the checks of the data found.
        fast_path: How the module itself answers otherwise where PyTorch takes its fast path of attention, in a
            sentence; empty if it does not.
        reference: How it compared with the author's own pipeline, if that was given.
        gate: How it compared with the champion over several seeds, once that was done.
        created_at: When it was packed, ISO 8601 in UTC.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    version: str
    inputs: dict[str, Field]
    task: Head
    variants: dict[str, PackedVariant]
    timed_on: str = ""
    left_out: dict[str, LeftOut] = {}
    hashes: dict[str, str]
    metrics: dict[str, float]
    review: ReviewEvidence | None = None
    lineage: dict[str, Any]
    findings: list[Finding] = []
    fast_path: str = ""
    reference: ReferenceResult | None = None
    gate: GateResult | None = None
    created_at: str

    @property
    def tag(self) -> str:
        """Name and version, as BentoML's model store spells them."""
        return f"{self.name}:{self.version}"

    def _repr_html_(self) -> str:
        rows = [("input", name, field.expected) for name, field in self.inputs.items()]
        rows += [("figure", name.replace("_", " "), figure(value)) for name, value in self.metrics.items()]
        rows += [
            ("variant", name, "as its source" if variant.is_exact else f"parity: {compared}")
            for name, variant in self.variants.items()
            for compared in [next(iter(variant.parity.values()), "")]
        ]
        rows += [("left out", name, left.why) for name, left in self.left_out.items()]
        text = (self.task.summary, self.task.policy, f"packed {self.created_at}")
        return show(self.tag, text, ("", "name", ""), rows)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes ``manifest`` into the bundle at ``folder``.

    Raises:
        BundleError: If it is larger than what is read again.
    """
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    if len(text) >= MOST_BYTES:
        raise _too_large(FILE_NAME)
    (folder / FILE_NAME).write_bytes(text + b"\n")


def read_whole(file: Path) -> bytes:
    """Returns the content of a file of a bundle, if it is one of those that are small.

    Raises:
        BundleError: If it is not.
        OSError: If it cannot be read.
    """
    with file.open("rb") as opened:
        content = opened.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise _too_large(file.name)
    return content


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest of the bundle at ``folder``.

    Raises:
        BundleError: If it is missing, too large, of another layout, or not a manifest.
    """
    path = folder / FILE_NAME
    try:
        data = read_whole(path)
    except FileNotFoundError:
        raise BundleError(f"{folder} is not a bundle: it has no {FILE_NAME}") from None
    try:
        found = msgspec.json.decode(data, type=_Header).schema_version
        if found != SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema version {found}; this Rollout reads {SCHEMA_VERSION}: "
                "delete the bundle and pack it again"
            )
        return msgspec.json.decode(data, type=Manifest, dec_hook=decode_head)
    except NO_JSON as error:
        raise BundleError(f"{path} is not a manifest: {error}") from None


def hash_files(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file below ``folder`` but the manifest, by path relative to it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {path.relative_to(folder).as_posix(): _sha256(path) for path in paths}
    return {name: digest for name, digest in hashes.items() if name not in (FILE_NAME, SIGNATURE, "model.yaml")}


def check_hashes(folder: Path, manifest: Manifest) -> None:
    """Compares the files at ``folder`` with the manifest's hashes.

    Raises:
        BundleError: If a file is missing, changed or not listed; the sentence names it.
    """
    found = hash_files(folder)
    for name, digest in manifest.hashes.items():
        if name not in found:
            raise BundleError(f"{manifest.tag} is refused: {name} is missing")
        if found[name] != digest:
            raise BundleError(f"{manifest.tag} is refused: {name} was changed after packing")
    if unlisted := sorted(found.keys() - manifest.hashes.keys()):
        raise BundleError(f"{manifest.tag} is refused: {unlisted[0]} is not in the manifest")


def require_interchangeable(
    champion: Manifest, challenger: Manifest, labels: Mapping[str, Mapping[str, str]] = NO_MAPPING
) -> None:
    """Refuses a pair of versions between which a caller would notice the difference.

    Args:
        champion: The one.
        challenger: The other.
        labels: By version, what its labels mean to callers, where that is not the label itself.

    Raises:
        BundleError: If they do not take the same inputs, or do not have the same labels.
    """
    for manifest in (champion, challenger):
        own = manifest.task.labels_used
        if unknown := sorted(labels.get(manifest.version, {}).keys() - set(own)):
            raise BundleError(f"{manifest.tag} has no label {unknown[0]!r} that could mean something else")
    if challenger.inputs != champion.inputs:
        raise BundleError(f"{challenger.tag} takes other inputs than {champion.tag}: they cannot share a split")
    one, other = (each.task.public(labels.get(each.version, {})) for each in (champion, challenger))
    if one.signature != other.signature:
        if sorted(one.labels_used) == sorted(other.labels_used):
            raise BundleError(
                f"{challenger.tag} answers with something else than {champion.tag}: they cannot share a split"
            )
        raise BundleError(
            f"{challenger.tag} has other labels than {champion.tag}: they cannot share a split unless its "
            "`labels` say what each of them means"
        )


def digest(manifest: Manifest) -> str:
    """Returns what a bundle is known by: the SHA-256 of its manifest, which holds those of all other files.

    Without the gate, which is added to a bundle that may be serving already.
    """
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(manifest, gate=None))).hexdigest()


def _too_large(name: str) -> BundleError:
    return BundleError(f"{name} has more than {MOST_BYTES:,} bytes")


class _Header(msgspec.Struct):
    schema_version: int


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
