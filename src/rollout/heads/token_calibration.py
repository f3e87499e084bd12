"""How sure spans are, and what is measured of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError
from rollout.heads import character_tags as characters
from rollout.heads import reliability
from rollout.heads.calibration import fit_temperature, judge_threshold, review_threshold
from rollout.heads.head import Flags, Scores
from rollout.heads.measured import Evaluated, Measured
from rollout.heads.review_evidence import ReviewEvidence

if TYPE_CHECKING:
    from rollout.heads.token_labels import TokenLabels

MOST_CHARACTERS = 100_000  # that a temperature is fitted on


def calibrate(
    head: TokenLabels, outputs: NDArray[np.float32], targets: NDArray[Any]
) -> tuple[float, float, ReviewEvidence]:
    """Returns the temperature, the review threshold and what speaks for it; see ``TokenLabels.calibrated``."""
    given = head.review_threshold
    if given is not None and not given >= 0:  # NaN is none, either
        raise BundleError(
            f"a review_threshold of {given} is no confidence: give one from 0 to 1, or more to review everything"
        )
    text = outputs[:, -head.positions :]
    _require_text(text)
    where = characters.places(text)
    _require_inside(targets, where)
    first = np.arange(len(targets)) % 3 == 0
    logits = outputs[:, : -head.positions].reshape(len(outputs), head.positions, len(head.tags))
    own = np.flatnonzero(first[where.rows])
    own = own[:: max(1, -(-len(own) // MOST_CHARACTERS))]
    rows, at, number = (each[own] for each in where)
    temperature = fit_temperature(logits[rows, at], targets[rows, number])
    scores = msgspec.structs.replace(head, temperature=temperature).scores(outputs)
    confidence, correct, which = _drawn(head, scores, targets)
    decides = ~first[which]
    if decides.all() or not decides.any():
        raise BundleError(
            "the module finds next to no span in the calibration part: nothing can be said of how sure it is"
        )
    evidence = confidence[decides], correct[decides], confidence[~decides]
    threshold = review_threshold(*evidence, risk=head.risk, delta=head.delta) if given is None else given
    judged = judge_threshold(*evidence, threshold, head.risk, head.delta, is_given=given is not None)
    return temperature, float(threshold), judged


def measure(head: TokenLabels, part: Evaluated) -> Measured:
    """Returns the figures of the evaluation part, and accuracy against confidence of its spans.

    Precision, recall and F1 count spans over all texts (micro), as CoNLL-2003 does; the tag accuracy counts
    characters.
    """
    found, confidence = head.found(part.scores)
    wanted = characters.bounds(head.codes_of(part.targets))
    right = characters.shared(found, wanted, head.positions)
    figures = {
        "span_loss": float(head.losses(part.scores, part.targets).mean()),
        "span_precision": _share(right.sum(), len(right)),
        "span_recall": _share(right.sum(), len(wanted.rows)),
        "span_f1": _share(2 * right.sum(), len(right) + len(wanted.rows)),
        "tag_accuracy": _tag_accuracy(head, part.scores, part.targets),
    }
    answered = ~head.needs_review(part.scores)[found.rows]
    if answered.any():
        figures["span_precision_without_review"] = float(right[answered].mean())
    if not len(right):
        return Measured(figures)
    unscaled, before = head.found(msgspec.structs.replace(head, temperature=1.0).scores(part.outputs))
    right_before = characters.shared(unscaled, wanted, head.positions)
    bins = (
        reliability.bin_by_confidence(before, right_before),
        reliability.bin_by_confidence(confidence, right),
    )
    figures["calibration_error_before"], figures["calibration_error"] = (each.calibration_error for each in bins)
    return Measured(figures, reliability.draw_confidence(*bins))


def _drawn(
    head: TokenLabels, scores: Scores, targets: NDArray[Any]
) -> tuple[NDArray[np.float64], Flags, NDArray[np.int64]]:
    """Returns of each text with a span how sure it is, whether a span drawn from it is right, and its row."""
    found, confidence = head.found(scores)
    right = characters.shared(found, characters.bounds(head.codes_of(targets)), head.positions)
    which, begins, counts = np.unique(found.rows, return_index=True, return_counts=True)
    if not len(which):
        return confidence, right, which
    drawn = begins + np.floor(np.random.default_rng(0).random(len(which)) * counts).astype(np.int64)
    return np.minimum.reduceat(confidence, begins), right[drawn], which


def _tag_accuracy(head: TokenLabels, scores: Scores, targets: NDArray[Any]) -> float:
    where = characters.places(scores[:, -head.positions :])
    chances = scores[:, : -head.positions].reshape(len(scores), head.positions, len(head.tags))
    right = chances.argmax(-1)[where.rows, where.byte] == targets[where.rows, where.number]
    return _share(right.sum(), len(right))


def _share(part: float, whole: int) -> float:
    return float(part / whole) if whole else 1.0


def _require_text(text: NDArray[np.float32]) -> None:
    is_byte = (text == np.rint(text)) & (text >= 0) & (text < 256)
    goes_on = (text[:, :-1] == 0) & (text[:, 1:] != 0)
    try:
        if not is_byte.all() or goes_on.any():
            raise ValueError
        for row in text.astype(np.uint8):
            row.tobytes().decode()
    except ValueError:
        raise BundleError(
            "what the module returns as text are not the bytes of one: return the tensor of the field as forward "
            "got it, with its zeros at the end"
        ) from None


def _require_inside(targets: NDArray[Any], where: characters.Places) -> None:
    counts = np.bincount(where.rows, minlength=len(targets))
    behind = (targets != 0) & (np.arange(targets.shape[1]) >= counts[:, None])
    if behind.any():
        row = int(np.flatnonzero(behind.any(-1))[0])
        raise BundleError(
            f"targets of calibration row {row} label characters behind its end, and it has {counts[row]}: they "
            "are tags of characters, not of bytes"
        )
