"""A baseline: what the rows were like that a model was evaluated on, in counts; and live rows counted alike.

Rows are counted in bins that were chosen at packing, so that counts add up over workers, replicas and time, and
no row is kept. All of them lie side by side in one vector of a fixed length, a *sketch*.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.judge.features import Feature, Features
from rollout.judge.joint import MOST_SUMS, MOST_TOGETHER, Joint

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

# Counts and sums of a sketch: so many features of a table are looked at as have room in it.
MOST_PLACES = 4096
# Bins of a number, each with as many rows of the evaluation part; with fewer rows than so many for each, fewer.
BINS = 10
ROWS_A_BIN = 10
# How far beyond the smallest and the largest number further bins reach, in widths of their range: by how much a
# unit that changed is seen.
BEYOND = (1.0, 10.0, 100.0, 1000.0)
# Bins of categories: those that are frequent. Others share one.
CATEGORIES = 40
# Categories that a sentence names.
NAMED = 5
MOST_CODES = 1_000_000
MOST_ROWS = 2**53  # which a float counts
Special = Literal["missing", "not finite", "refused"]
SPECIAL: tuple[Special, ...] = ("missing", "not finite", "refused")


class Bins(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """The bins of one feature, and how many rows of the evaluation part lie in each.

    The last three are of rows where it is missing, no finite number, or for which the row was refused.

    Attributes:
        counts: Rows of the evaluation part, by bin.
        right: Of these, how many were answered right; in part, where an answer may be. Empty where none is.
        edges: Of numbers, the upper edges of the bins, which belong to them, in order; the last bin has none.
        categories: The categories that have a bin, before the bin of all others.
        codes: The index of each of them, in order.
        unit: The unit of numbers.
        period_s: See ``Feature``.
    """

    counts: list[int]
    right: list[float] = []
    edges: list[float] = []
    categories: list[str] = []
    codes: list[int] = []
    unit: str = ""
    period_s: float = 0.0

    @classmethod
    def of(cls, feature: Feature, right: Floats | None = None) -> Bins:
        """Chooses bins for the rows of the evaluation part, and counts them.

        Args:
            feature: Of these rows.
            right: How far each was answered right, from 0 to 1; ``None`` where nothing is right or wrong.
        """
        if feature.categories:
            codes = _frequent(feature)
            names = [feature.categories[code] for code in codes]
            bins = cls(counts=_none(codes), categories=names, codes=codes, period_s=feature.period_s)
        else:
            edges = _edges(feature.values[np.isfinite(feature.values)])
            bins = cls(counts=_none(edges), edges=edges, unit=feature.unit, period_s=feature.period_s)
        places = bins.places(feature.values)
        counts = np.bincount(places, minlength=bins.size).tolist()
        told = [] if right is None else np.bincount(places, right, bins.size).round(6).tolist()
        return msgspec.structs.replace(bins, counts=counts, right=told)

    def __post_init__(self) -> None:
        fits = len(self.counts) == self.size and all(0 <= count <= MOST_ROWS for count in self.counts)
        is_right = not self.right or len(self.right) == self.size
        is_right = is_right and all(
            abs(own) <= most + 1 for own, most in zip(self.right, self.counts, strict=False)
        )
        is_ordered = all(low < high for low, high in pairwise(self.edges)) and all(map(math.isfinite, self.edges))
        is_coded = len(self.codes) == len(self.categories) and all(0 <= code < MOST_CODES for code in self.codes)
        is_coded = is_coded and all(low < high for low, high in pairwise(self.codes))
        if not (fits and is_right and is_ordered and is_coded and 0 <= self.period_s < math.inf):
            raise ValueError("the bins of a feature do not fit their counts")

    @property
    def size(self) -> int:
        """How many bins there are."""
        return self._ordinary + len(SPECIAL)

    @property
    def _ordinary(self) -> int:
        return 1 + (len(self.categories) or len(self.edges))

    def place(self, special: Special) -> int:
        """Returns one of the last bins."""
        return self._ordinary + SPECIAL.index(special)

    def places(self, values: Floats) -> Places:
        """Returns the bin of each value, shape ``(rows,)``."""
        known = np.where(np.isfinite(values), values, 0.0)
        if self.categories:
            nearest = np.searchsorted(self.codes, known)
            places = np.where(np.append(self.codes, -1)[nearest] == known, nearest, len(self.categories))
        else:
            places = np.searchsorted(np.asarray(self.edges), known, side="left")
        places = np.where(np.isnan(values), self.place("missing"), places)
        return np.where(np.isinf(values), self.place("not finite"), places)

    @cached_property
    def scores(self) -> Floats:
        """The place of each bin among the rows of the evaluation part, from -1 to 1; 0 for the last bins.

        The ridit of a bin (Bross, "How to use ridit analysis", 1958): rows below it, and half of those in it.
        """
        counts = np.array(self.counts[: self._ordinary], np.float64)
        below = np.cumsum(counts) - counts / 2
        scores = 2 * below / max(counts.sum(), 1) - 1
        return np.concatenate([scores, np.zeros(len(SPECIAL))])

    def median(self, counts: Floats) -> float | None:
        """Returns the median of rows that are counted in these bins, by interpolation; ``None`` of categories."""
        numbers = counts[: self._ordinary]
        if self.categories or not self.edges or not numbers.sum() > 0:
            return None
        cumulated = np.concatenate([[0.0], np.cumsum(numbers)]) / numbers.sum()
        place = int(np.searchsorted(cumulated, 0.5, side="left")) - 1
        low, high = self.edges[max(place - 1, 0)], self.edges[min(place, len(self.edges) - 1)]
        if self._is_whole:
            return high
        part = float((0.5 - cumulated[place]) / (cumulated[place + 1] - cumulated[place]))
        if low * high > np.finfo(float).tiny:  # bins beyond all evaluation rows are as wide as they are far away
            return math.copysign(abs(low) ** (1 - part) * abs(high) ** part, low)
        return low * (1 - part) + high * part

    @cached_property
    def _is_whole(self) -> bool:
        """Whether the evaluation part has whole numbers only, as far as its bins tell."""
        return all(self.edges[place].is_integer() for place in np.flatnonzero(self.counts[: len(self.edges)]))

    @property
    def in_words(self) -> str:
        """What most rows of the evaluation part had."""
        counts = np.array(self.counts, np.float64)
        rows = max(counts.sum(), 1)
        if self.categories:
            order = np.argsort(-counts, kind="stable")[:NAMED]
            said = [f"{self.labels[place]} {counts[place] / rows:.0%}" for place in order if counts[place]]
            further = int(np.count_nonzero(counts[: self._ordinary])) - NAMED
            return ", ".join(said) + (f" and {further} more" if further > 0 else "")
        median = self.median(counts)
        if median is None:
            return "no number"
        held = np.flatnonzero(counts[: self._ordinary])
        ends = (max(held[0] - 1, 0), min(held[-1], len(self.edges) - 1))
        low, high = (_in_figures(self.edges[place]) for place in ends)
        unit = f" {self.unit}" if self.unit else ""
        missing = counts[self.place("missing")] / rows
        return f"{median:.4g}{unit} ({low} to {high})" + (f", {missing:.1%} missing" if missing else "")

    @cached_property
    def labels(self) -> list[str]:
        """What lies in each bin, in a few words."""
        if self.categories:
            return [*self.categories, "others", *SPECIAL]
        if not self.edges:
            return ["any number", *SPECIAL]
        ends = [*map(_in_figures, self.edges)]
        between = [f"{low} to {high}" for low, high in pairwise(ends)]
        return [f"up to {ends[0]}", *between, f"over {ends[-1]}", *SPECIAL]


class Baseline(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What the rows were like that a model was evaluated on.

    Attributes:
        rows: How many there were.
        features: The bins of each feature, by its name.
        left_out: Features that are not looked at since there are too many.
        joint: How features that are looked at together are summed up; ``None`` where there is only one, or too
            few rows.
    """

    rows: int
    features: dict[str, Bins]
    left_out: int = 0
    joint: Joint | None = None

    def __post_init__(self) -> None:
        if not self.features or not 1 <= self.rows <= MOST_ROWS or self.size > MOST_PLACES:
            raise ValueError(f"a baseline has features, rows, and at most {MOST_PLACES:,} places")
        together = sum(not bins.period_s for bins in self.features.values())
        if self.joint is not None and self.joint.features != min(together, MOST_TOGETHER):
            raise ValueError("a baseline looks at other features together than it has")

    @classmethod
    def of(cls, features: Features, right: Floats | None = None) -> Baseline:
        """Sums up the rows of the evaluation part.

        Args:
            features: Of these rows.
            right: How far each was answered right, from 0 to 1; ``None`` where nothing is right or wrong.
        """
        bins: dict[str, Bins] = {}
        room = MOST_PLACES - MOST_SUMS
        for name, feature in features.items():
            own = Bins.of(feature, right)
            room -= own.size
            if room < 0:
                break
            bins[name] = own
        rows = len(next(iter(features.values())).values)
        scores = _scores(bins, features)
        joint = Joint.of(scores) if min(scores.shape) > 1 else None
        return cls(rows=rows, features=bins, left_out=len(features) - len(bins), joint=joint)

    @property
    def size(self) -> int:
        """The length of a sketch."""
        return self._first_sum + (self.joint.size if self.joint else 0)

    @cached_property
    def _first_sum(self) -> int:
        return sum(bins.size for bins in self.features.values())

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where in a sketch the counts of each feature lie."""
        found, start = {}, 0
        for name, bins in self.features.items():
            found[name] = slice(start, start + bins.size)
            start += bins.size
        return found

    def sums(self, sketches: Floats) -> Floats:
        """Returns the part of sketches, shape ``(…, size)``, that belongs to ``joint``."""
        return sketches[..., self._first_sum :]

    def measure(self, features: Features) -> Floats:
        """Returns the sketch of some rows, ``float64`` of shape ``(size,)``.

        Args:
            features: Of these rows, those of the evaluation part among them.
        """
        sketch = np.zeros(self.size)
        for name, part in self.slices.items():
            bins = self.features[name]
            sketch[part] = np.bincount(bins.places(features[name].values), minlength=bins.size)
        if self.joint is not None:
            self.sums(sketch)[:] = self.joint.measure(_scores(self.features, features))
        return sketch

    def refused(self, rows: Mapping[str, int]) -> Floats:
        """Returns the sketch of rows that were refused for one of their inputs.

        Args:
            rows: How many, by the name of the field, or of a column as ``field.column``; others are ignored.
        """
        sketch = np.zeros(self.size)
        for field, count in rows.items():
            for name, bins in self._about(field):
                sketch[self.slices[name].start + bins.place("refused")] += count
        return sketch

    def _about(self, field: str) -> Iterator[tuple[str, Bins]]:
        if field in self.features:
            return iter([(field, self.features[field])])
        return ((name, bins) for name, bins in self.features.items() if name.startswith(f"{field}."))


def _in_figures(edge: float) -> str:
    """Returns an edge as a person reads it: the one just below 0 as 0."""
    return f"{edge:.4g}" if abs(edge) > np.finfo(float).tiny else "0"


def _none(bins: Sequence[object]) -> list[int]:
    return [0] * (1 + len(bins) + len(SPECIAL))


def _scores(bins: Mapping[str, Bins], features: Features) -> Floats:
    """Returns where rows lie in those features that do not repeat by themselves, shape ``(rows, features)``."""
    columns = [
        each.scores[each.places(features[name].values)] for name, each in bins.items() if not each.period_s
    ]
    rows = len(next(iter(features.values())).values)
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0))


def _edges(values: Floats) -> list[float]:
    """Returns the upper edges of bins with as many values each, and of those beyond all of them."""
    if not len(values):
        return []
    bins = min(BINS, max(2, len(values) // ROWS_A_BIN))
    inner = np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf")
    low, high = float(values.min()), float(values.max())
    width = (high - low) or abs(high) or 1.0
    below = [low - far * width for far in reversed(BEYOND)]
    above = [high + far * width for far in BEYOND]
    edges = np.unique([*below, np.nextafter(low, -np.inf), *inner, high, *above])
    return [float(edge) for edge in edges[np.isfinite(edges)]]


def _frequent(feature: Feature) -> list[int]:
    """Returns the codes of the categories that have a bin of their own: the most frequent ones."""
    codes = feature.values[np.isfinite(feature.values)].astype(np.intp)
    counts = np.bincount(codes, minlength=len(feature.categories))
    return sorted(np.argsort(-counts, kind="stable")[:CATEGORIES].tolist())
