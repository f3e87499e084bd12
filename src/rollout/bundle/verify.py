"""Verification: what the manifest promises, checked again from disk and on this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from rollout.bundle.golden import Golden, read_golden, require_scores, rows_that_fit
from rollout.bundle.machine import cpu_name
from rollout.bundle.manifest import Manifest, PackedVariant
from rollout.bundle.memory import free_memory, in_words
from rollout.bundle.parity import (
    ELSEWHERE,
    TOLERANCE,
    Parity,
    compare,
    decided_otherwise,
    run_in_batches,
    seconds_of,
    take,
)
from rollout.bundle.raw_examples import RawExamples, read_raw_examples
from rollout.bundle.schema import Arrays
from rollout.bundle.store import was_packed_here
from rollout.bundle.variants import VARIANTS, Variant
from rollout.errors import BundleError

logger = logging.getLogger(__name__)

# A quantized variant may compute a little differently on another processor, not much.
SLACK = 2.0
ROUNDS = 15
LONGEST_TURN_S = 0.05
# What a few rows of a large network give stays in the cache.
GOLDEN_BATCH = 8
# A variant further down the list must be this much faster: a race within the noise would be won by chance.
CLEARLY = 0.9


class Choice(NamedTuple):
    """The variant that serves.

    Attributes:
        name: Its name.
        variant: It, loaded.
        parity: How far its golden examples are from the source here.
        seconds: For each variant that passed, the median time of the same golden examples; of a large network it
            was measured where it was packed.
        refused: For each variant that was tried and did not, why.
    """

    name: str
    variant: Variant
    parity: Parity
    seconds: dict[str, float]
    refused: dict[str, str]


def load_variant(
    folder: Path,
    manifest: Manifest,
    name: str,
    threads: int = 1,
    device: str = "cpu",
    *,
    is_trusted: bool = False,
) -> Variant:
    """Loads one variant of the bundle at ``folder`` onto ``cpu`` or ``cuda``.

    Args:
        folder: Where the bundle lies; its files are taken as checked.
        manifest: Its manifest.
        name: The variant.
        threads: Threads that one batch may use.
        device: ``cpu`` or ``cuda``.
        is_trusted: Whether its origin may run code here: it is signed, or somebody says so. What was packed here
            may in any case; of any other bundle, only what cannot run code is loaded.

    Raises:
        BundleError: If the bundle has no such variant, it may not be loaded, or its file cannot be.
    """
    if name not in manifest.variants or name not in VARIANTS:
        left_out = manifest.left_out.get(name)
        why = f" ({name} was left out: {left_out.why})" if left_out else ""
        raise BundleError(
            f"{manifest.tag} has no variant {name}; it has {', '.join(sorted(manifest.variants))}{why}"
        )
    if not may_load(manifest, name, is_trusted=is_trusted):
        raise BundleError(
            f"{manifest.tag}: the {name} variant is not loaded: that can run code, and the bundle was neither "
            "packed here nor signed by the key that ROLLOUT_PUBLIC_KEY names; --trust or ROLLOUT_TRUST=1 loads it"
        )
    require_room(manifest, name, device)
    try:
        return VARIANTS[name](folder / manifest.variants[name].file, threads, device)
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(f"{manifest.tag}: the {name} variant cannot be loaded: {error}") from error


def servable(manifest: Manifest, wanted: Collection[str] = (), device: str = "cpu") -> tuple[str, ...]:
    """Returns the variants of a bundle that may serve, those to be preferred first.

    Args:
        manifest: Its manifest.
        wanted: Those that are named. Without any, those that need no torch if there are some, and the others if
            not: importing torch costs a worker more memory than most models gain by it. On a card, all that can
            use it.
        device: Where they run.
    """
    if wanted:
        return tuple(wanted)
    kinds = [kind for name, kind in VARIANTS.items() if name in manifest.variants and kind.is_served]
    if device != "cpu":
        there = [kind for kind in kinds if device in kind.devices()]
        return tuple(kind.name for kind in there or kinds)  # or one of them says what is missing
    light = [kind.name for kind in kinds if not kind.needs_torch]
    return tuple(light or [kind.name for kind in kinds])


def check_golden(golden: Golden, manifest: Manifest, name: str, variant: Variant, device: str = "cpu") -> Parity:
    """Runs the golden examples of a bundle through a loaded variant of it.

    On another device than where the variant was compared, scores may differ as far as single precision does from
    one to the other. Decisions may not, but for ties, which are named.

    Raises:
        BundleError: If the examples do not fit the bundle, or a decision or a score differs from its promise.
    """
    shape = rows_that_fit(golden, manifest), manifest.task.outputs
    scores = run_in_batches(variant.run, golden.inputs, GOLDEN_BATCH)
    require_scores(scores, shape, f"{manifest.tag} is refused: the scores of its {name} variant")
    promised = manifest.variants[name]
    found = compare(manifest.task, golden.scores, scores, _tolerance(promised, device))
    holds = found.is_exact
    if not promised.is_exact:
        packed = promised.elsewhere.get(device) or promised.parity.get("golden")
        if packed is None:
            raise BundleError(
                f"{manifest.tag} is refused: its manifest does not say how far the {name} variant may be from "
                "the source module"
            )
        further = 0.0 if device == promised.device or device in promised.elsewhere else ELSEWHERE
        holds = (
            found.answers_flipped <= packed.answers_flipped
            and found.reviews_flipped <= packed.reviews_flipped
            and found.largest_difference <= SLACK * packed.largest_difference + further
        )
    if not holds:
        raise BundleError(
            f"{manifest.tag} is refused: its {name} variant disagrees with the source module"
            f"{'' if device == promised.device else f' on {device}'}: {found}"
        )
    return found


def check_raw_examples(
    examples: RawExamples | None, manifest: Manifest, name: str, variant: Variant, device: str = "cpu"
) -> Parity | None:
    """Runs the raw examples of a bundle, decoded on this machine, through a loaded variant of it.

    Returns:
        How far it is from the author's own pipeline; ``None`` if the bundle was not compared with one.

    Raises:
        BundleError: If more rows are decided otherwise than where it was packed, or a score is further off than
            may be.
    """
    if examples is None or manifest.reference is None:
        return None
    shape = examples.scores.shape[0], manifest.task.outputs
    scores = run_in_batches(variant.run, examples.inputs, GOLDEN_BATCH)
    require_scores(scores, shape, f"{manifest.tag} is refused: the scores of its {name} variant")
    promised = manifest.variants[name]
    tolerance = _tolerance(promised, device)
    found = compare(manifest.task, examples.scores, scores, tolerance)
    packed = promised.parity.get("reference")
    if packed is None:
        raise BundleError(f"{manifest.tag} is refused: its {name} variant was not compared with its reference")
    flipped = int((decided_otherwise(manifest.task, examples.scores, scores, tolerance)).sum())
    slack = 1.0 if promised.is_exact else SLACK
    further = tolerance if promised.is_exact or device != promised.device else 0.0
    is_close = found.largest_difference <= max(
        slack * packed.largest_difference + further, manifest.reference.tolerance
    )
    if flipped > packed.answers_flipped + packed.reviews_flipped or not is_close:
        moved = "".join(
            f"; {field} is decoded to another array here than where the bundle was packed: is Pillow, or what "
            "else decodes it, of another version?"
            for field in examples.moved
        )
        raise BundleError(
            f"{manifest.tag} is refused: from the raw input, its {name} variant does not decide as the author's "
            f"own pipeline: {found}{moved}"
        )
    return found


def _tolerance(promised: PackedVariant, device: str) -> float:
    """Returns how far scores may be off on a device, in units of ``task.scale``."""
    packed = promised.parity.get("golden")
    own = TOLERANCE if packed is None else packed.tolerance
    return own if device == promised.device else max(own, ELSEWHERE)


def require_room(manifest: Manifest, name: str, device: str) -> None:
    """Refuses a variant that does not fit on a card; of one that does not fit in memory, a warning is logged.

    Raises:
        BundleError: If so; the sentence says what it takes and what is free.
    """
    takes, free = manifest.variants[name].memory, free_memory(device)
    if free is None or takes <= free:
        return
    said = (
        f"{manifest.tag}: the {name} variant takes some {in_words(takes)} on {device}, where {in_words(free)} "
        "are free: let fewer versions or workers share it, serve a smaller variant, or give it more"
    )
    if device != "cpu":
        raise BundleError(said)
    logger.warning("%s", said)


def may_load(manifest: Manifest, name: str, *, is_trusted: bool = False) -> bool:
    """Whether a variant may be loaded here; see ``load_variant``."""
    kind = VARIANTS.get(name)
    return kind is not None and (not kind.can_run_code or is_trusted or was_packed_here(manifest))


def verify_bundle(folder: Path, manifest: Manifest, *, is_trusted: bool = False) -> dict[str, dict[str, Parity]]:
    """Runs golden and raw examples on each variant that may be loaded; the files are taken as checked.

    Returns:
        For each variant how far it is from the source (``golden``) and from the author's own pipeline
        (``reference``), if the bundle was compared with one.

    Raises:
        BundleError: If a variant cannot be loaded or disagrees, or none may be loaded.
    """
    golden, raw = read_golden(folder), read_raw_examples(folder, manifest)
    names = [name for name in manifest.variants if may_load(manifest, name, is_trusted=is_trusted)]
    checked: dict[str, dict[str, Parity]] = {}
    for name in names or manifest.variants:  # of which the first says why it may not be loaded
        variant = load_variant(folder, manifest, name, is_trusted=is_trusted)
        checked[name] = {"golden": check_golden(golden, manifest, name, variant)}
        if (parity := check_raw_examples(raw, manifest, name, variant)) is not None:
            checked[name]["reference"] = parity
    return checked


def choose_variant(
    folder: Path,
    manifest: Manifest,
    golden: Golden,
    names: Iterable[str],
    threads: int = 1,
    device: str = "cpu",
    agree: Callable[[str], str] = lambda fastest: fastest,
    *,
    is_trusted: bool = False,
) -> Choice:
    """Loads the variants that may serve, checks each on this machine, and picks the fastest that passed.

    Where the manifest says how fast each is on a processor of this kind, only the fastest is loaded, and another
    one if it does not pass.

    Args:
        folder: Where the bundle lies; its files are taken as checked.
        manifest: Its manifest.
        golden: Its golden examples.
        names: The variants that may serve, those to be preferred first.
        threads: Threads that one batch may use.
        device: ``cpu`` or ``cuda``.
        agree: Makes of the fastest the one that all workers serve.
        is_trusted: Whether its origin may run code here; see ``load_variant``.

    Raises:
        BundleError: If none passed; with the reason of each.
    """
    passed: dict[str, Variant] = {}
    parity: dict[str, Parity] = {}
    refused: dict[str, str] = {}
    raw = read_raw_examples(folder, manifest)
    names = list(names)
    known = _known(manifest, names, device)
    for name in _fastest_first(known) if known else names:
        try:
            variant = load_variant(folder, manifest, name, threads, device, is_trusted=is_trusted)
            parity[name] = check_golden(golden, manifest, name, variant, device)
            check_raw_examples(raw, manifest, name, variant, device)
            passed[name] = variant
        except BundleError as error:
            refused[name] = error.detail
        except Exception as error:  # whatever a runtime raises on this machine
            refused[name] = f"{manifest.tag}: the {name} variant cannot be run here: {error}"
        if known and passed:
            break
    if not passed:
        raise BundleError("; ".join(refused.values()))
    seconds = known or _race(passed, golden.inputs)
    best = next(name for name in _fastest_first(seconds) if name in passed)
    agreed = agree(best)
    best = agreed if agreed in passed else best
    return Choice(best, passed[best], parity[best], seconds, refused)


def timed(folder: Path, manifest: Manifest, golden: Golden) -> Manifest:
    """Adds to the manifest of a new bundle how fast the variants are that would serve on this processor."""
    variants = {name: load_variant(folder, manifest, name, is_trusted=True) for name in servable(manifest)}
    seconds = _race(variants, golden.inputs)
    held = {
        name: msgspec.structs.replace(one, seconds=seconds.get(name, 0.0))
        for name, one in manifest.variants.items()
    }
    return msgspec.structs.replace(manifest, variants=held, timed_on=cpu_name())


def _known(manifest: Manifest, names: Iterable[str], device: str) -> dict[str, float]:
    """Returns how fast each of some variants is here, if the manifest knows."""
    packed = manifest.variants
    seconds = {name: packed[name].seconds if name in packed else 0.0 for name in names}
    is_here = device == "cpu" and manifest.timed_on == cpu_name()
    return seconds if is_here and all(seconds.values()) else {}


def _fastest_first(seconds: dict[str, float]) -> list[str]:
    """Sorts variants by how fast they are, but for those that are not clearly faster than one further up."""
    best = next(iter(seconds))
    for name, taken in seconds.items():
        if taken < CLEARLY * seconds[best]:
            best = name
    return [best, *sorted((name for name in seconds if name != best), key=seconds.__getitem__)]


def _race(variants: dict[str, Variant], inputs: Arrays) -> dict[str, float]:
    """Times variants in turns, on as many rows as none takes long for."""
    one = take(inputs, slice(0, 1))
    # TorchScript compiles in its first two calls.
    slowest = max(min(seconds_of(variant.run, one) for _ in range(3)) for variant in variants.values())
    rows = take(inputs, slice(0, max(1, int(LONGEST_TURN_S / slowest))))
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, variant in variants.items():
            times[name].append(seconds_of(variant.run, rows))
    return {name: float(np.median(taken)) for name, taken in times.items()}
