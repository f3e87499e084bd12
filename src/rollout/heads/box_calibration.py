"""What the rows of the calibration and the evaluation part say about boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError
from rollout.heads import reliability
from rollout.heads.calibration import judge_threshold, review_threshold
from rollout.heads.detection import matched, mean_average_precision
from rollout.heads.measured import Evaluated, Measured
from rollout.heads.review_evidence import ReviewEvidence

if TYPE_CHECKING:
    from rollout.heads.boxes import Boxes

# Candidates from this score on tell the temperature.
TELLING = 0.05


def calibrate(head: Boxes, outputs: NDArray[np.float32], targets: NDArray[Any]) -> tuple[Boxes, ReviewEvidence]:
    """Fits the temperature on a third of the rows, and picks the review threshold on the others.

    Boxes of an image are not independent of each other, images are: of each, one box is drawn that is right or
    wrong, and its confidence is the lowest score of the image, by which this goes to review or not. The error of
    those at or above the threshold is then the mean share of wrong boxes in what nobody reviews.

    Raises:
        BundleError: If the threshold that was given is no score, or hardly any image gets a box.
    """
    given = head.review_threshold
    if given is not None and not given >= 0:  # NaN is none, either
        raise BundleError(
            f"a review_threshold of {given} is no score: give one from 0 to 1, or more to review everything"
        )
    first = np.arange(len(targets)) % 3 == 0
    head = msgspec.structs.replace(head, temperature=_fit_temperature(head, outputs[first], targets[first]))
    found = head.detect(head.scores(outputs))
    has_boxes = found.number > 0
    if not (has_boxes & first).any() or not (has_boxes & ~first).any():
        raise BundleError(
            f"hardly any image of the calibration part gets a box with a score of {head.least} or more, so "
            "nothing can be said of its boxes: a better model, a lower `least` or more rows change that"
        )
    drawn = (np.random.default_rng(0).random(len(targets)) * found.number).astype(int)
    right = matched(found, targets)[np.arange(len(targets)), drawn]
    others = has_boxes & ~first
    rows = found.lowest[others], right[others], found.lowest[has_boxes & first]
    threshold = review_threshold(*rows, risk=head.risk, delta=head.delta) if given is None else given
    evidence = judge_threshold(*rows, threshold, head.risk, head.delta, is_given=given is not None)
    return msgspec.structs.replace(head, review_threshold=float(threshold)), evidence


def _fit_temperature(head: Boxes, outputs: NDArray[np.float32], targets: NDArray[Any]) -> float:
    plain = msgspec.structs.replace(head, temperature=1.0)
    found = plain.detect(plain.scores(outputs), min(TELLING, head.least))
    there, (_, logits) = found.is_there, head.apart(outputs)
    own = np.take_along_axis(logits, found.places[..., None], 1)[there]
    columns = (found.labels[there] + head.first_label).tolist()
    return score_temperature(own, columns, matched(found, targets)[there], has_background=bool(head.background))


def measure(head: Boxes, part: Evaluated) -> Measured:
    """Returns average precision, precision and recall, all at 0.5, and how far off scores are."""
    found = head.detect(part.scores)
    right, there = matched(found, part.targets), found.is_there
    true = int((~np.isnan(part.targets[..., 0])).sum())
    figures = {"mean_loss": float(head.losses(part.scores, part.targets).mean())}
    if true:
        figures["average_precision"] = mean_average_precision(found, part.targets)
        figures["recall"] = float(right.sum() / true)
    if not there.any():
        return Measured(figures)
    figures["precision"] = float(right.sum() / there.sum())
    plain = msgspec.structs.replace(head, temperature=1.0)
    unscaled = plain.detect(plain.scores(part.outputs))
    before, after = (
        reliability.bin_by_confidence(each.scores[each.is_there], matched(each, part.targets)[each.is_there])
        for each in (unscaled if unscaled.number.any() else found, found)
    )
    figures["calibration_error_before"] = before.calibration_error
    figures["calibration_error"] = after.calibration_error
    return Measured(figures, reliability.draw_confidence(before, after))


def score_temperature(
    logits: NDArray[Any], columns: Sequence[int], right: NDArray[np.bool_], *, has_background: bool
) -> float:
    """Returns the divisor of logits at which scores say best how often boxes are right.

    As ``calibration.fit_temperature``, with a box right or wrong in the place of classes (Platt 1999; Guo et
    al. 2017).

    Args:
        logits: Of the candidate of each box, shape ``(n, columns)``.
        columns: The column of the label of each.
        right: Which are a true box, shape ``(n,)``.
        has_background: Whether scores are the softmax of all columns, and not the sigmoid of each.

    Returns:
        It; 1 without a box.
    """
    import scipy.optimize  # noqa: PLC0415  only packing has SciPy
    import scipy.special  # noqa: PLC0415

    if not len(right):
        return 1.0
    hits, every = int(right.sum()), np.arange(len(right))
    wanted = np.where(right, (hits + 1) / (hits + 2), 1 / (len(right) - hits + 2))

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / math.exp(log_temperature)
        scores = scipy.special.softmax(scaled, axis=-1) if has_background else scipy.special.expit(scaled)
        of_label = scores[every, columns].clip(1e-12, 1 - 1e-12)
        return -float((wanted * np.log(of_label) + (1 - wanted) * np.log1p(-of_label)).sum())

    found = scipy.optimize.minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded")
    return round(math.exp(float(found.x)), 6)
