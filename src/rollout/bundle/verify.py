"""Verification: what the manifest promises, checked again from disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rollout.bundle.golden import read_golden
from rollout.bundle.manifest import Manifest
from rollout.bundle.parity import Parity, compare, run_in_batches
from rollout.bundle.runtimes import RUNTIMES, Runtime
from rollout.bundle.schema import InputSchema
from rollout.errors import BundleError


def load_variant(folder: Path, manifest: Manifest, variant: str, threads: int = 1) -> Runtime:
    """Loads one variant of the bundle at ``folder``.

    Raises:
        BundleError: If the bundle has no such variant, or its file cannot be loaded.
    """
    if variant not in manifest.variants or variant not in RUNTIMES:
        raise BundleError(
            f"{manifest.tag} has no variant {variant}; it has {', '.join(sorted(manifest.variants))}"
        )
    try:
        return RUNTIMES[variant](folder / manifest.variants[variant], threads)
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(f"{manifest.tag}: the {variant} variant cannot be loaded: {error}") from error


def check_golden(folder: Path, manifest: Manifest, variant: str, runtime: Runtime) -> Parity:
    """Runs the golden examples through a loaded variant.

    Raises:
        BundleError: If a decision or a score differs from what the bundle promises.
    """
    golden = read_golden(folder)
    InputSchema(manifest.inputs).check_arrays(golden.inputs)
    parity = compare(golden.scores, run_in_batches(runtime.run, golden.inputs), manifest.review_threshold)
    require_parity(manifest.tag, variant, parity)
    return parity


def require_parity(tag: str, variant: str, parity: Parity) -> None:
    """Refuses a variant that does not decide as its source does.

    Raises:
        BundleError: With the figures.
    """
    if not parity.holds:
        raise BundleError(
            f"{tag} is refused: its {variant} variant disagrees with the source module: of {parity.rows} rows "
            f"{parity.labels_flipped} get another label and {parity.reviews_flipped} another review decision; "
            f"the largest difference of a score is {parity.largest_difference:.2g}"
        )


def verify_bundle(folder: Path, manifest: Manifest, variants: Iterable[str] | None = None) -> dict[str, Parity]:
    """Runs the golden examples on each variant, or on those named; the files are taken as checked.

    Raises:
        BundleError: If a variant cannot be loaded or disagrees.
    """
    return {
        variant: check_golden(folder, manifest, variant, load_variant(folder, manifest, variant))
        for variant in variants or manifest.variants
    }
