"""Drift: have live rows become others than those that a model was evaluated on? In which figure, and since when?

The answer holds however often it is asked for. For each feature and each window from which it may have moved
there is an *e-value*: how much better the rows since then are told by a distribution of their own than by the one
that the evaluation part was drawn from. While nothing moved, the probability that one of them ever reaches
``1 / alpha`` is at most ``alpha`` (Ville 1939).

- Rows since a window, against the evaluation part: both are counts in the same bins. What the evaluation part
  leaves open about its distribution is a Dirichlet distribution with its counts, exactly so for numbers, whose
  bins end at order statistics (Wilks, "Determination of sample sizes for setting tolerance limits", 1941).
  Against it stands a mixture of Dirichlet distributions (Lindon & Malek, "Anytime-valid inference for multinomial
  count data", 2022). The fewer evaluation rows there are, the more it takes.
- Windows from which it may have moved: each has a share of ``alpha``, all of them together, however long it goes
  on, one (Shin, Ramdas & Rinaldo, "E-detectors", 2023, mix them likewise).
- Features: each has the same share, after Bonferroni, so that dependence between them does no harm.

With many rows, anything is significant: what is told is only what is further away than ``least``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import NormalDist
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.judge.baseline import SPECIAL, Baseline, Bins
from rollout.judge.joint import Joint
from rollout.judge.log_gamma import log_gamma

Floats = NDArray[np.float64]
State = Literal["quiet", "drifted", "too_few"]

ALPHA = 0.01
LEAST_DISTANCE = 0.1
TOGETHER = "together"
# Rows of the evaluation part that an alternative is made of, beside one of a single row over all bins: for what
# is near, and for what is far away. The mean of e-values is an e-value.
PRIORS = (30.0, 1000.0)
# Rows of the evaluation part that a bin without any stands for.
MISSED, NOTHING = 1.0, 0.01
# Variances of the mean of all features together under the alternatives, in units of the rows' own.
SHIFTS = (0.01, 0.1, 1.0)
# The sums of fewer rows are not normal.
LEAST_TOGETHER = 50
# Independent rows, before which only a change of nearly all of them is seen.
FEW = 100
# Seconds of the units in which windows are numbered: an earlier number is a larger share of ``alpha``.
UNITS = (60.0, 3_600.0, 86_400.0)
# Of evidence that nothing moved, in powers of ten: no number in JSON is infinite.
LEAST_POWER = -300.0
LN10 = math.log(10)


class Window(NamedTuple):
    """What was counted in a span of time.

    Attributes:
        start: Its start, in seconds since 1970.
        seconds: How long it is.
        vector: The sketch of its rows.
    """

    start: float
    seconds: float
    vector: Floats


class FeatureDrift(msgspec.Struct, frozen=True, kw_only=True):
    """How one feature of live rows compares with the evaluation part.

    Attributes:
        feature: Its name; ``together`` for all features together.
        moved: Whether it surely moved, and further than what counts.
        since: The start of the window from which it moved, ISO 8601 in UTC; ``None`` where it did not.
        rows: Live rows since then; all of them where it did not.
        distance: The total variation distance beyond what chance makes of so few rows, from 0 to 1: the share of
            rows that would have to be others. Of all features together, by how much a linear classifier on the
            random features of ``Joint`` is better than chance, from 0 to 1: which is less or the same.
        stability: The population stability index; 0 for all features together.
        e_value: The evidence that it moved, as a power of ten, after the correction for features and windows.
        limit: From where on it is sure, likewise.
        before: The median in the evaluation part, in ``unit``; ``None`` for what has none.
        now: The median of the live rows.
        unit: The unit of both.
        labels: What lies in each bin.
        expected: The share of the evaluation part in each bin.
        found: The share of the live rows.
        detail: All of it in a sentence.
    """

    feature: str
    moved: bool
    since: str | None
    rows: int
    distance: float
    stability: float = 0.0
    e_value: float
    limit: float
    before: float | None = None
    now: float | None = None
    unit: str = ""
    labels: list[str] = []
    expected: list[float] = []
    found: list[float] = []
    detail: str


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """How live rows compare with the evaluation part.

    Attributes:
        state: ``drifted`` where a feature moved; ``too_few`` where there are too few rows to notice anything less
            than a change of all of them.
        rows: Live rows that were counted, refused ones not.
        alpha: The probability that any feature is ever said to have moved when none has.
        least: The distance from which on it counts.
        features: Every feature, those that moved first.
        detail: All of it in a sentence.
    """

    state: State
    rows: int
    alpha: float
    least: float
    features: list[FeatureDrift]
    detail: str


class _Live(NamedTuple):
    """What the live rows are judged with.

    Attributes:
        windows: Those with rows, oldest first.
        weights: The logarithm of the share of ``alpha`` of each as the one from which something moved.
        log_parts: Of the number of features that share ``alpha``.
        alpha: The probability of an error.
        least: The distance that counts.
        worth: Independent rows that a row is worth.
    """

    windows: Sequence[Window]
    weights: Floats
    log_parts: float
    alpha: float
    least: float
    worth: float

    def pick(self, evidence: Floats, distances: Floats) -> tuple[int | None, float]:
        """Returns the window from which it moved, if it surely did, and the evidence, as a power of ten."""
        if not len(evidence):
            return None, 0.0
        corrected = evidence + self.weights - self.log_parts
        far = np.where(distances >= self.least, corrected, -np.inf)
        best = int(far.argmax())
        moved = bool(far[best] >= -math.log(self.alpha))
        return (best if moved else None), float(far[best] if moved else corrected.max()) / LN10

    @property
    def limit(self) -> float:
        return -math.log10(self.alpha)

    def since(self, window: int | None) -> str | None:
        return None if window is None else in_utc(self.windows[window].start)


def judge_drift(
    baseline: Baseline,
    windows: Sequence[Window],
    *,
    packed_at: float,
    alpha: float = ALPHA,
    least: float = LEAST_DISTANCE,
    worth: float = 1.0,
) -> DriftReport:
    """Compares live rows of one version with the rows that it was evaluated on.

    Rows have to be independent of one another. Where some come from the same client or request and are alike,
    they are worth less (Kish, "Survey Sampling", 1965, the design effect).

    Args:
        baseline: Of the rows of the evaluation part.
        windows: Of live rows, oldest first, which do not overlap; they may have different lengths.
        packed_at: When the version was packed, in seconds since 1970: windows are numbered from there.
        alpha: The probability of an error at any time in any feature.
        least: The distance from which on a feature that moved is told.
        worth: Independent rows that a row is worth, above 0 and up to 1.

    Raises:
        ValueError: If a window is shorter than a minute.
    """
    held = [window for window in windows if window.vector.any()]
    if any(window.seconds < min(UNITS) for window in held):
        raise ValueError(f"a window has to last {min(UNITS):g} s or longer")
    weights = np.array([_log_weight(window, packed_at) for window in held])
    parts = len(baseline.features) + (baseline.joint is not None)
    live = _Live(held, weights, math.log(parts), alpha, least, worth)
    # Rows since each window, to the last.
    vectors = [window.vector for window in reversed(held)] or [np.zeros(baseline.size)]
    since = np.cumsum(vectors, axis=0)[::-1]
    found = [
        _feature(name, bins, since[:, baseline.slices[name]], live) for name, bins in baseline.features.items()
    ]
    if baseline.joint is not None:
        found.append(_together(baseline.joint, baseline.rows, baseline.sums(since), live))
    # What moved by itself says more than that all together did.
    found.sort(key=lambda each: (not each.moved, each.moved and each.feature == TOGETHER, -each.e_value))
    return _report(_rows(baseline, since[0]), found, live)


def in_utc(seconds: float) -> str:
    """Returns a moment in ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _log_weight(window: Window, packed_at: float) -> float:
    """Returns the logarithm of the share of ``alpha`` that a window has.

    The ``j``-th minute, hour and day after packing have ``1 / (j * (1 + floor(log2(j)))²)``, which over all ``j``
    add up to π² / 6 at most: a third for each unit that begins with the window.
    """
    share = 0.0
    for unit in UNITS:
        if unit > min(UNITS) and (window.seconds < unit or window.start % unit):
            continue
        number = max(1, 2 + math.floor((window.start - packed_at) / unit))
        share += 1 / (number * number.bit_length() ** 2)
    return math.log(share * 6 / (math.pi**2 * len(UNITS)))


def _feature(name: str, bins: Bins, since: Floats, live: _Live) -> FeatureDrift:
    expected = np.array(bins.counts, np.float64)
    is_whole = _whole_periods(live.windows, bins.period_s)
    evidence = np.where(is_whole, _evidence(since * live.worth, expected), -np.inf)
    distances = total_variation(since, expected, live.worth)
    best, e_value = live.pick(evidence[: len(live.windows)], distances)
    counts = since[best or 0]
    before, now = bins.median(expected), bins.median(counts)
    shares = [(each / max(each.sum(), 1)) for each in (expected, counts)]
    return FeatureDrift(
        feature=name,
        moved=best is not None,
        since=live.since(best),
        rows=int(counts.sum()),
        distance=float(distances[best or 0]),
        stability=stability(counts, expected),
        e_value=max(e_value, LEAST_POWER),
        limit=live.limit,
        before=before,
        now=now,
        unit=bins.unit,
        labels=bins.labels,
        expected=shares[0].round(6).tolist(),
        found=shares[1].round(6).tolist(),
        detail=_say(name, bins, counts, expected, (before, now), is_moved=best is not None),
    )


def _evidence(since: Floats, expected: Floats) -> Floats:
    """Returns the logarithm of the e-value of counts, shape ``(windows, bins)``, against those expected."""
    size = len(expected)
    shares = (expected + 0.5) / (expected.sum() + size / 2)
    # What bins without evaluation rows hold is left open: a row that was missed by chance where live rows lie,
    # next to nothing where none do. What suits the live rows best is what has to be refuted.
    known = np.where(expected, expected, np.where(since > 0, MISSED, NOTHING))
    others = [np.full(size, 1 / size), *(prior * shares for prior in PRIORS)]
    prior = np.stack([known, *(np.broadcast_to(other, since.shape) for other in others)])
    # Of Dirichlet-multinomial distributions, without the coefficient of the order.
    by_bin = (log_gamma(since + prior) - log_gamma(prior)).sum(-1)
    total = prior.sum(-1)
    likelihoods = by_bin + log_gamma(total) - log_gamma(since.sum(-1) + total)
    return np.asarray(np.logaddexp.reduce(likelihoods[1:], axis=0) - math.log(len(others)) - likelihoods[0])


def _whole_periods(windows: Sequence[Window], period_s: float) -> NDArray[np.bool_]:
    """Says since which windows whole periods have passed, so that each part of one counts as often as another."""
    if not period_s or not windows:
        return np.ones(max(len(windows), 1), bool)
    end = windows[-1].start + windows[-1].seconds
    passed = [(end - window.start) / period_s for window in windows]
    lengths = [window.seconds / period_s for window in windows]
    return np.array([by >= 1 and by % 1 < max(length, 1e-9) for by, length in zip(passed, lengths, strict=True)])


def total_variation(counts: Floats, expected: Floats, worth: float = 1.0) -> Floats:
    """Returns how far counts are from those expected, beyond chance, shape ``(windows,)``.

    Chance adds, for bins of independent counts, about ``sum(sqrt(2 / π * variance)) / 2``.

    Args:
        counts: Shape ``(windows, bins)``.
        expected: Shape ``(bins,)``.
        worth: Independent rows that a row is worth.

    Example:
        >>> total_variation(np.array([[500, 500.0]]), np.array([1000, 0.0])).round(2).tolist()
        [0.5]
    """
    rows, reference = np.maximum(counts.sum(1, keepdims=True), 1), max(expected.sum(), 1)
    pooled = (counts + expected) / (rows + reference)
    variance = pooled * (1 - pooled) * (1 / (rows * worth) + 1 / reference)
    chance = np.sqrt(2 / math.pi * variance).sum(1) / 2
    apart = np.abs(counts / rows - expected / reference).sum(1) / 2
    return np.asarray(np.sqrt(np.maximum(apart**2 - chance**2, 0.0)) * counts.any(1))


def stability(counts: Floats, expected: Floats) -> float:
    """Returns the population stability index, with half a row more in each bin.

    ``sum((p - q) * log(p / q))``, the symmetrised Kullback-Leibler divergence (Siddiqi, "Credit Risk Scorecards",
    2006: from 0.1 on it is called small, from 0.25 on large).
    """
    if not counts.any():
        return 0.0
    p, q = ((each + 0.5) / (each.sum() + len(each) / 2) for each in (counts, expected))
    return float(((p - q) * np.log(p / q)).sum())


def _together(joint: Joint, rows: int, sums: Floats, live: _Live) -> FeatureDrift:
    """Compares the means along the axes of ``Joint`` with 0, which they are in the evaluation part.

    As if they were normal, which sums of bounded figures soon are: the mixture of all shifts as likely in every
    direction looks at the maximum mean discrepancy. How far they are apart is told as the advantage of Fisher's
    discriminant, ``2 * Phi(d / 2) - 1`` with Mahalanobis' ``d`` (Harchaoui, Bach & Moulines, "Testing for
    homogeneity with kernel Fisher discriminant analysis", 2008).
    """
    counts, means = sums[:, :1], sums[:, 1:] / np.maximum(sums[:, :1], 1)
    variances = np.array(joint.variances)
    noise = variances * (1 / np.maximum(counts * live.worth, 1) + 1 / rows)
    apart = np.maximum(((means**2 - noise) / variances).sum(1), 0.0)
    distances = np.array([2 * NormalDist().cdf(each / 2) - 1 for each in np.sqrt(apart)])
    likelihoods = [
        0.5 * (means**2 / noise * (shift / (noise + shift)) - np.log1p(shift / noise)).sum(1)
        for shift in np.array(SHIFTS)[:, None] * variances.mean()
    ]
    evidence = np.logaddexp.reduce(np.stack(likelihoods), axis=0) - math.log(len(SHIFTS))
    evidence = np.where(counts[:, 0] * live.worth >= LEAST_TOGETHER, evidence, -np.inf)
    best, e_value = live.pick(evidence[: len(live.windows)], distances)
    far = float(distances[best or 0])
    what = "go together otherwise" if best is not None else "may well go together as before"
    return FeatureDrift(
        feature=TOGETHER,
        moved=best is not None,
        since=live.since(best),
        rows=int(counts[best or 0, 0]),
        distance=far,
        e_value=max(e_value, LEAST_POWER),
        limit=live.limit,
        detail=f"All features {what}: who guesses whether a row is of the evaluation part is right "
        f"{(1 + far) / 2:.0%} of the time.",
    )


def _say(
    name: str,
    bins: Bins,
    counts: Floats,
    expected: Floats,
    medians: tuple[float | None, float | None],
    *,
    is_moved: bool,
) -> str:
    """Says how far a feature moved."""
    if not counts.any():
        return f"{name}: no rows yet."
    shares, were = counts / counts.sum(), expected / max(expected.sum(), 1)
    said = []
    before, now = medians
    if before is not None and now is not None:
        unit = f" {bins.unit}" if bins.unit else ""
        said.append(f"the median is {now:.4g}{unit}, was {before:.4g}{unit}")
    most = int((shares - were).argmax())
    is_special = most >= bins.size - len(SPECIAL)
    if bins.categories or is_special:
        what = f"are {bins.labels[most]}" if is_special else f"are {bins.labels[most]!r}"
        had = "of which the evaluation part had none" if not expected[most] else f"were {were[most]:.1%}"
        said.append(f"{shares[most]:.1%} of rows {what}, {had}")
    elif (outside := float(shares[: -len(SPECIAL)][expected[: -len(SPECIAL)] == 0].sum())) >= 0.01:
        said.append(f"{outside:.1%} of rows lie outside of all that the evaluation part had")
    verb = "moved" if is_moved else "may well be as before"
    return f"{name} {verb}: {'; '.join(said)}." if said else f"{name} {verb}."


def _rows(baseline: Baseline, sketch: Floats) -> int:
    name, bins = next(iter(baseline.features.items()))
    own = sketch[baseline.slices[name]]
    return int(own.sum() - own[bins.place("refused")])


def _report(rows: int, found: list[FeatureDrift], live: _Live) -> DriftReport:
    moved = [each for each in found if each.moved]
    state: State = "drifted" if moved else "too_few" if rows * live.worth < FEW else "quiet"
    if moved:
        first = min(each.since for each in moved if each.since)
        detail = f"Moved since {first}: {', '.join(each.feature for each in moved)}. {moved[0].detail}"
    elif state == "too_few":
        detail = f"{rows:,} rows are too few to say anything."
    else:
        detail = f"None of {len(found)} features moved in {rows:,} rows."
    return DriftReport(state=state, rows=rows, alpha=live.alpha, least=live.least, features=found, detail=detail)
