"""What was found out about a version before it is served: gate, reference, and faults of the data."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Decision = Literal["better", "not worse", "worse", "cannot decide"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing in the data, or in the training, that a person should look at.

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
        most_seeds: Seeds that each would have been trained with at most.
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
    most_seeds: int | None = None
    margin: float
    metric: str
    candidate: Spread
    champion: Spread
    baselines: dict[str, float]
    p_values: dict[str, PValues]
    decision: Decision
    why: str
    at: str
    by: str


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over rows, and an interval that holds the true one with 95 %.

    Attributes:
        mean: The mean.
        low: The lower end.
        high: The upper end.
    """

    mean: float
    low: float
    high: float


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of two versions that are compared by what they cost and how good they are.

    Attributes:
        version: The version.
        variant: The variant that was measured: the fastest with one row of those that may serve.
        size: Bytes of its file.
        row_seconds: What it takes to answer one row alone.
        rows_per_second: What it answers with batches of the best size.
        loss: Its loss, in units of the metric.
    """

    version: str
    variant: str
    size: Annotated[int, msgspec.Meta(gt=0)]
    row_seconds: float
    rows_per_second: Annotated[float, msgspec.Meta(gt=0)]
    loss: Figure


class Parted(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that two versions answer with different labels.

    Attributes:
        teacher: What the teacher answers.
        student: What the student answers.
        rows: So many rows.
    """

    teacher: str
    student: str
    rows: int


class Distillation(msgspec.Struct, frozen=True, kw_only=True):
    """How a student compares with its teacher.

    Attributes:
        machine: The processor on which both were timed.
        rows: Evaluation rows.
        metric: What the losses are called; less is better.
        teacher: The teacher.
        student: The student.
        agreement: Share of rows that both answer alike.
        parted: The labels that most often part them, most frequent first.
    """

    machine: str
    rows: int
    metric: str
    teacher: Side
    student: Side
    agreement: Figure
    parted: list[Parted]


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
