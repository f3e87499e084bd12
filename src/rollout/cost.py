"""What a prediction costs: the rows that each variant scores in a second, and what they come to at a price.

Measured is the variant alone, without HTTP, validation and batching.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rollout.bundle.golden import golden_of
from rollout.bundle.manifest import Manifest
from rollout.bundle.parity import MAX_BATCH, Run, count, take
from rollout.bundle.schema import Arrays
from rollout.bundle.variants import VARIANTS, Variant
from rollout.bundle.verify import load_variant
from rollout.cores import usable_cores
from rollout.errors import BundleError
from rollout.inference.profile import measure
from rollout.inference.threads import COSTLY, Threads

BATCH_SIZES = (1, 8, 32, MAX_BATCH)
SECONDS = 5.0
SLICE_SECONDS = 0.02
MIN_ROUNDS = 3
PATIENCE = 4  # so many times as long may that take; of a large network one round does


class Point(NamedTuple):
    """How fast a variant is on one device at one batch size.

    Attributes:
        variant: Its name.
        device: ``cpu``, which is one core, or ``cuda``, which is one GPU and the core that feeds it.
        batch_size: Rows that it gets at once.
        rows_per_second: Median over the rounds.
    """

    variant: str
    device: str
    batch_size: int
    rows_per_second: float

    @property
    def contender(self) -> str:
        """Variant and device, in words."""
        return f"{self.variant} on {self.device}"


class Speeds(NamedTuple):
    """What was measured, and what could not be.

    Attributes:
        points: A point for each variant, device and batch size.
        not_measured: Why not, for each variant on a device that cannot be loaded or does not run.
        threads: Threads in a batch beside batches at a time, for each variant without torch of which a row takes
            more than a millisecond, where there are several cores.
    """

    points: list[Point]
    not_measured: dict[str, str]
    threads: dict[str, Threads]


def measure_speeds(folder: Path, manifest: Manifest, seconds: float, *, is_trusted: bool = False) -> Speeds:
    """Times every variant on every device that it can use here, with one thread, on the golden examples.

    Rows of free lengths are as long as the golden examples, and padded to the longest of these: a long one each.
    The contenders take turns, a short slice each, for as many rounds as there is time for: a machine that slows
    down for a while slows all of them down.

    Args:
        folder: Where the bundle lies; its files are taken as checked.
        manifest: Its manifest.
        seconds: Time for all rounds together. A few may take four times as long, and one is always run.
        is_trusted: Whether its origin may run code here; see ``load_variant``.

    Raises:
        BundleError: If no variant can be measured; with the reason of each.
    """
    inputs = golden_of(folder, manifest).inputs
    batches = {size: take(inputs, np.arange(size) % count(inputs)) for size in BATCH_SIZES}
    variants: dict[tuple[str, str], Variant] = {}
    not_measured: dict[str, str] = {}
    for name in (name for name in VARIANTS if name in manifest.variants):
        for device in VARIANTS[name].devices():
            try:
                variants[name, device] = _warm(
                    folder, manifest, name, device, batches.values(), is_trusted=is_trusted
                )
            except BundleError as error:
                not_measured[f"{name} on {device}"] = error.detail
    if not variants:
        raise BundleError("; ".join(not_measured.values()))
    rates: dict[tuple[str, str, int], list[float]] = {(*at, size): [] for at in variants for size in batches}
    start = time.monotonic()
    rounds = 0
    while not rounds or time.monotonic() - start < seconds * (PATIENCE if rounds < MIN_ROUNDS else 1):
        for size, batch in batches.items():
            for at, variant in variants.items():
                rates[(*at, size)].append(size * _runs_per_second(variant.run, batch))
        rounds += 1
    points = [Point(*at, float(np.median(rate))) for at, rate in rates.items()]
    costly = {point.variant for point in points if point.batch_size == 1 and point.rows_per_second * COSTLY < 1}
    apart = {name: variant for (name, device), variant in variants.items() if device == "cpu" and name in costly}
    return Speeds(points, not_measured, _threads(folder, manifest, apart, inputs, is_trusted=is_trusted))


def _threads(
    folder: Path, manifest: Manifest, apart: Mapping[str, Variant], inputs: Arrays, *, is_trusted: bool
) -> dict[str, Threads]:
    """Measures what a worker with all cores to itself measures when it loads a variant."""
    cores = usable_cores()
    found: dict[str, Threads] = {}
    for name, variant in apart.items() if cores > 1 else ():
        if VARIANTS[name].needs_torch:  # its threads are those of the process, whatever else is loaded
            continue
        together = load_variant(folder, manifest, name, cores, is_trusted=is_trusted)
        found[name] = Threads(cores, measure(variant.run, inputs, cores), measure(together.run, inputs, 1))
    return found


def cost_per_million(price_per_hour: float, rows_per_second: float) -> float:
    """Returns what a million predictions cost: ``price_per_hour / 3600 / rows_per_second * 1e6``.

    Args:
        price_per_hour: Of one core, or of one GPU, in any currency.
        rows_per_second: What it scores, when it is never idle.
    """
    return price_per_hour / 3600 / rows_per_second * 1e6


def at_best_size(points: Iterable[Point]) -> list[Point]:
    """Returns each variant on each device at the batch size at which it is fastest."""
    best: dict[str, Point] = {}
    for point in points:
        held = best.setdefault(point.contender, point)
        if point.rows_per_second > held.rows_per_second:
            best[point.contender] = point
    return list(best.values())


def compare_costs(points: Iterable[Point], prices: Mapping[str, float]) -> list[str]:
    """Says which is the cheapest and by how much, and how fast a GPU that is not there would have to be.

    The cheapest is compared with the cheapest of the other device, or else with the next one on its own.

    Args:
        points: What was measured.
        prices: Price of an hour by device, ``cpu`` or ``cuda``.

    Returns:
        Sentences; none without prices.
    """
    costs = {
        point: cost_per_million(prices[point.device], point.rows_per_second)
        for point in at_best_size(points)
        if point.device in prices
    }
    sentences = []
    ranked = sorted(costs, key=costs.__getitem__)
    if ranked:
        first, *others = ranked
        sentence = (
            f"{first.contender} at batches of {first.batch_size} is the cheapest: "
            f"{shown_cost(costs[first])} per million predictions"
        )
        if others:
            rival = next((point for point in others if point.device != first.device), others[0])
            times = f"{costs[rival] / costs[first]:,.1f}"
            sentence += f"; {rival.contender} costs {'about' if times == '1.0' else f'{times} times'} as much"
        sentences.append(f"{sentence}.")
    if "cuda" in prices and not any(point.device == "cuda" for point in ranked):
        sentence = "No GPU was found here that a variant can use"
        if ranked:
            enough = float(f"{ranked[0].rows_per_second * prices['cuda'] / prices['cpu']:.3g}")
            sentence += (
                f"; one at {prices['cuda']:g} an hour would be cheaper above {enough:,.0f} rows per second"
            )
        sentences.append(f"{sentence}.")
    return sentences


def shown_cost(cost: float) -> str:
    """Writes a cost with two digits that count, and never as a power of ten."""
    return f"{cost:,.{max(1 - math.floor(math.log10(cost)), 0)}f}"


def _warm(
    folder: Path, manifest: Manifest, name: str, device: str, batches: Iterable[Arrays], *, is_trusted: bool
) -> Variant:
    variant = load_variant(folder, manifest, name, device=device, is_trusted=is_trusted)
    try:
        for at, batch in enumerate(batches):
            for _ in range(
                1 if at else 3
            ):  # TorchScript profiles its first runs, and then compiles for all sizes
                variant.run(batch)
    except Exception as error:
        raise BundleError(f"{manifest.tag}: the {name} variant does not run on {device}: {error}") from error
    return variant


def _runs_per_second(run: Run, batch: Arrays) -> float:
    runs = 0
    start = time.perf_counter()
    while not runs or time.perf_counter() - start < SLICE_SECONDS:
        run(batch)
        runs += 1
    return runs / (time.perf_counter() - start)
