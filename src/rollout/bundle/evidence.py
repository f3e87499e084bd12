"""What was found out about a version before it is served: gate, reference, and faults of the data."""

from __future__ import annotations

from typing import Literal

import msgspec

Decision = Literal["better", "not worse", "worse", "cannot decide"]
Metric = Literal["error rate", "mean absolute error"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing in the data that a person should look at before training.

    Attributes:
        check: The check that found it, such as ``duplicates``.
        where: The part, the field or the class that it is about.
        detail: What was found, in a sentence.
        rows: Row numbers within the part, at most 20, where single rows are at fault.
    """

    check: str
    where: str
    detail: str
    rows: list[int] = []


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A figure over several seeds.

    Attributes:
        mean: Its mean.
        deviation: Its standard deviation from seed to seed; 0 for one seed.
    """

    mean: float
    deviation: float


class ReviewEvidence(msgspec.Struct, frozen=True, kw_only=True):
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
    """

    is_given: bool
    rows: int
    errors: int
    answered: int
    answered_errors: int
    bound: float
    needed: int
    lowest_risk: float | None


class PValues(msgspec.Struct, frozen=True, kw_only=True):
    """How likely chance alone would be to speak as clearly: a claim needs both to be small.

    Attributes:
        seeds: With one difference for each seed.
        rows: With one difference for each evaluation row.
    """

    seeds: float
    rows: float


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a candidate beats the champion, both trained with several seeds.

    Attributes:
        against: The version of the champion.
        seeds: Seeds that each was trained with.
        margin: The largest loss, in units of the metric, that still counts as not worse.
        metric: What is compared; less is better.
        candidate: The candidate's metric.
        champion: The champion's metric.
        baselines: The metric of each baseline, by its name.
        p_values: For each of the claims ``better``, ``worse`` and ``not worse`` its p-values.
        decision: The claim that holds.
        why: The reason, in a sentence.
        at: When it was decided, ISO 8601 in UTC.
        by: Who had it decided.
    """

    against: str
    seeds: int
    margin: float
    metric: Metric
    candidate: Spread
    champion: Spread
    baselines: dict[str, float]
    p_values: dict[str, PValues]
    decision: Decision
    why: str
    at: str
    by: str


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """How far a bundle is from the author's own pipeline at one stage of the way from a raw input to an answer.

    Attributes:
        where: ``decoded``: the array of a field. ``layer``: what a layer of the module gives. ``outputs``: what
            the module gives. Layer and module get the author's arrays where the author gave them, so that they
            are compared by themselves; ``scores`` are those of the whole way.
        name: The field or the layer; empty for the others.
        rows: Rows compared.
        differ: Rows that differ by more than rounding does.
        largest: Largest absolute difference; ``None`` where it is not a number, such as between other shapes.
        mean: Mean absolute difference.
        note: What cannot be said in figures, such as another shape or dtype.
    """

    where: Literal["decoded", "layer", "outputs", "scores"]
    name: str = ""
    rows: int
    differ: int
    largest: float | None
    mean: float | None
    note: str = ""


class WorstRow(msgspec.Struct, frozen=True, kw_only=True):
    """A raw row on which the bundle and the author's own pipeline are apart.

    Attributes:
        row: Its number among the raw rows.
        text: What became what, in words.
        pictures: Files of the bundle, each the author's image, the bundle's and their difference side by side.
    """

    row: int
    text: str
    pictures: list[str] = []


class ReferenceResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison with the author's own pipeline found.

    Attributes:
        by: Qualified name of the author's function.
        rows: Raw rows.
        kept: Rows of these that travel with the bundle.
        refused: Rows that the service would refuse with a 422.
        flipped: Rows that are decided otherwise; those refused are among them.
        most_flipped: Largest share of rows that may be.
        largest_difference: Largest absolute difference of a score, in units of ``task.scale``.
        tolerance: The largest that may be.
        stages: The stages, in the order of the way.
        worst: The rows that are furthest apart.
    """

    by: str
    rows: int
    kept: int
    refused: int
    flipped: int
    most_flipped: float
    largest_difference: float
    tolerance: float
    stages: list[Stage]
    worst: list[WorstRow] = []
