"""What the calibration part says about answers that go out without review."""

from __future__ import annotations

import msgspec


class ReviewEvidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the calibration part says about answers that go out without review.

    Attributes:
        is_given: Whether the author gave the threshold; otherwise packing computed it.
        rows: Calibration rows that decide: those that the temperature was not fitted on.
        errors: Wrong answers among them.
        answered: Rows at the threshold or above.
        answered_errors: Wrong answers among these.
        bound: The largest error rate that these are compatible with, at the task's ``delta``; 1 without any.
        needed: So many rows without an error would do for the task's ``risk``.
        lowest_risk: The smallest risk, in whole percent, that a threshold would have kept; ``None`` if none.
        heads: The same of each head, where there are several; then the figures are those of the judging one.
    """

    is_given: bool
    rows: int
    errors: int
    answered: int
    answered_errors: int
    bound: float
    needed: int
    lowest_risk: float | None
    heads: dict[str, ReviewEvidence] = {}


def describe_threshold(limit: float, risk: float, delta: float, review: ReviewEvidence | None) -> str:
    """Says what a review threshold is worth, and where all goes to review, what it would take."""
    probability = f"{1 - delta:.0%}"
    if review is None or not (review.is_given or limit > 1):
        return (
            f"With probability {probability}, at most {risk:.1%} of the answers that go out without "
            f"review are wrong: those with a confidence of {limit:.4f} or more."
        )
    seen = f"{review.errors:,} of {review.rows:,} calibration rows are answered wrongly"
    if review.is_given and not review.answered:
        return (
            f"The review threshold of {limit:.4f} is the author's own. No calibration row reaches "
            f"it, so nothing is known of the answers that go out without review; over all, {seen}."
        )
    if review.is_given:
        return (
            f"The review threshold of {limit:.4f} is the author's own. Of the {review.answered:,} "
            f"calibration rows that reach it, {review.answered_errors:,} are answered wrongly: with probability "
            f"{probability}, at most {review.bound:.1%} of the answers that go out without review are wrong."
        )
    if review.needed > review.rows:
        takes = (
            f"that takes {review.needed:,} rows that are sure and right, {review.needed - review.rows:,} more "
            "than decide on it now (two thirds of the calibration part)"
        )
    else:
        takes = f"that takes {review.needed:,} rows without an error among the surest, or more with few: {seen}"
    could = (
        "no risk below 100 % could be kept"
        if review.lowest_risk is None
        else f"a risk of {review.lowest_risk:.0%} could be kept"
    )
    return (
        f"Every answer goes to review: no threshold keeps the error at {risk:.1%} with probability "
        f"{probability}. On this calibration part, {could}; for {risk:.1%}, {takes}. More rows, a better "
        "model, a larger `risk` or a `review_threshold` of your own change that."
    )
