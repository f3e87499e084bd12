"""What a wanted rate takes: how many cores or cards, how long a row waits, and which is the cheapest in time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from rollout.bundle.parity import MAX_BATCH
from rollout.cost import Point, shown_cost

# A device is planned for so much of what it could do: rows come in no even stream.
BUSY = 0.7
WORDS = {"cpu": "core", "cuda": "GPU"}


class Plan(NamedTuple):
    """A way to score a rate of rows.

    Attributes:
        contender: Variant and device, in words.
        device: ``cpu``, of which one is a core, or ``cuda``.
        devices: How many.
        batch_size: Rows of a typical batch.
        p99: Seconds within which about 99 of 100 rows are scored, HTTP and validation not included.
        price: Of an hour of all devices; not a number where there is no price.
    """

    contender: str
    device: str
    devices: int
    batch_size: int
    p99: float
    price: float

    def __str__(self) -> str:
        many = "s" if self.devices > 1 else ""
        price = "" if math.isnan(self.price) else f", {shown_cost(self.price)} an hour"
        return (
            f"{self.contender}: {self.devices} {WORDS[self.device]}{many}, batches of about {self.batch_size}, "
            f"p99 about {self.p99 * 1000:,.3g} ms{price}"
        )


def plans(
    points: Iterable[Point], rate: float, prices: Mapping[str, float], longest: float = math.inf
) -> list[Plan]:
    """Returns for each contender the fewest devices that score a rate in time, the cheapest first.

    While a batch runs, the next one gathers: of ``rate`` rows a second on a device, batches settle at the size
    ``b`` that comes in while one of them runs, ``rate * seconds(b) = BUSY * b``. A row waits for the batch that
    runs and then for its own, ``2 * seconds(b)`` at most.

    Args:
        points: What was measured.
        rate: Rows a second, of all devices together.
        prices: Price of an hour by device.
        longest: Seconds that ``p99`` may be; who cannot keep that is not in the list.
    """
    measured: dict[tuple[str, str], dict[int, float]] = {}
    for point in points:
        taken = point.batch_size / point.rows_per_second
        measured.setdefault((point.contender, point.device), {})[point.batch_size] = taken
    found = []
    for (contender, device), of_size in measured.items():
        sizes = np.arange(1, MAX_BATCH + 1)
        known = sorted(of_size)
        seconds = np.interp(sizes, known, [of_size[size] for size in known])
        fits = sizes[2 * seconds <= longest]
        if not len(fits):
            continue
        most = float((BUSY * fits / seconds[fits - 1]).max())
        devices = math.ceil(rate / most)
        batch = int(fits[np.flatnonzero(rate / devices * seconds[fits - 1] <= BUSY * fits * (1 + 1e-9))[0]])
        p99, price = 2 * float(seconds[batch - 1]), devices * prices.get(device, math.nan)
        found.append(Plan(contender, device, devices, batch, p99, price))
    return sorted(found, key=lambda plan: (math.isnan(plan.price), plan.price, plan.p99))


def describe_plans(
    points: Iterable[Point], rate: float, prices: Mapping[str, float], longest: float = math.inf
) -> list[str]:
    """Says what each contender takes for a rate, and which is the cheapest that is in time; see ``plans``."""
    points = list(points)
    found = plans(points, rate, prices, longest)
    under = "" if math.isinf(longest) else f" with p99 under {longest * 1000:g} ms"
    if not found:
        least = min(2 / point.rows_per_second for point in points if point.batch_size == 1)
        return [f"Nothing scores {rate:,g} rows a second{under}: one row at a time has {least * 1000:,.3g} ms."]
    sentences = [f"At {rate:,g} rows a second{under}, {plan}." for plan in found]
    if not math.isnan(found[0].price):
        sentences.append(f"The cheapest of these is {found[0].contender}.")
    return sentences
