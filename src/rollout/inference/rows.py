"""The rows of a request on their way through the engine. Everything about a caller travels with its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np

from rollout.bundle.parity import take
from rollout.bundle.schema import Arrays
from rollout.bundle.task import Classification, Task
from rollout.errors import RolloutError
from rollout.inference.decisions import Decision, Decisions
from rollout.review.log import Fate
from rollout.routing.assignment import Arm, Assignment
from rollout.routing.split import Split

Fallback = Literal["error", "timeout", "breaker", "missing"]
Preview = Literal["champion", "challenger"]
Review = Annotated[
    Fate | None,
    msgspec.Meta(
        description="What became of its review item: queued in Redis, deferred to the disk, or dropped because "
        "nothing could keep it. Null if it does not go to review."
    ),
]


class Rows(msgspec.Struct):
    """What one request asks for.

    Attributes:
        client_ids: For each row the caller's own ID of the client.
        keys: For each row the caller's own ID of the prediction, if any.
        arrays: For each field an array of shape ``(rows, *field.shape)``.
        sent: For each row the value of each input, as the caller sent it: its JSON where it came as JSON.
        deadline: ``time.monotonic()`` after which nobody waits for the answer.
        segment: What the caller says the clients belong to, for the rules of the split.
        preview: The arm that an admin wants to see; what is answered then is neither counted nor reviewed.
        traceparents: For each row the trace that it belongs to; empty where there is none.
        sizes: Of several requests that are answered together, the rows of each; empty for one.
        assigned: What is assigned to each row under the split that is served, where that is known already; of
            several requests all rows have one arm.
    """

    client_ids: Sequence[str]
    keys: Sequence[str | None]
    arrays: Arrays
    sent: Sequence[Mapping[str, Any]]
    deadline: float
    segment: str = ""
    preview: Preview | None = None
    traceparents: Sequence[str | None] = ()
    sizes: Sequence[int] = ()
    assigned: list[Assignment] | None = None

    @property
    def requests(self) -> Sequence[int]:
        """The rows of each request."""
        return self.sizes or (len(self.client_ids),)

    def traceparent(self, index: int) -> str | None:
        """Returns the trace that a row belongs to, if any."""
        return self.traceparents[index] if self.traceparents else None

    def keep(self, places: Sequence[int], sizes: Sequence[int]) -> None:
        """Takes out all rows but some: those of requests that are refused."""
        self.client_ids = [self.client_ids[place] for place in places]
        self.keys = [self.keys[place] for place in places]
        self.sent = [self.sent[place] for place in places]
        self.arrays = take(self.arrays, np.array(places, np.intp))
        self.traceparents = [self.traceparents[place] for place in places] if self.traceparents else ()
        self.sizes, self.assigned = sizes, None


def spans(sizes: Sequence[int]) -> list[range]:
    """Returns where the rows of each request lie among all, given how many each has.

    Example:
        >>> spans([2, 1])
        [range(0, 2), range(2, 3)]
    """
    return [range(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]


class Answers(NamedTuple):
    """What the engine makes of the rows of a request, in their order.

    Attributes:
        split: The split under which they were assigned.
        task: What the decisions are about.
        assignments: Arm and version of each row.
        variants: The variant that scores for each version.
        decisions: What was decided on the rows.
        fallbacks: The rows that the champion answered in the challenger's place, by index, and why.
        fates: What became of the rows that go to review, by index.
        waited: Seconds that the rows waited for their batch, at most.
        ran: Seconds that their batches took.
        at: When they were answered, seconds since 1970.
        refused: Of several requests that are answered together those that are not, by number, and why; their rows
            are not among these, nor among those that were asked for any more.
    """

    split: Split
    task: Task
    assignments: list[Assignment]
    variants: Mapping[str, str]
    decisions: Decisions
    fallbacks: dict[int, Fallback]
    fates: dict[int, Fate | None]
    waited: float
    ran: float
    at: float
    refused: Mapping[int, RolloutError] = MappingProxyType({})

    def version(self, index: int) -> str:
        """Returns the version that answered a row."""
        return self.split.champion if index in self.fallbacks else self.assignments[index].version


class ClassAnswer(NamedTuple):
    """The most likely class, its score, and all scores by class."""

    label: str
    confidence: float
    scores: dict[str, float]


class ValueAnswer(NamedTuple):
    """A value, and the two ends of the interval around it."""

    value: float
    interval: tuple[float, float]


class _Header(msgspec.Struct):
    model: str
    version: str
    variant: str
    arm: Arm
    fallback: Fallback | None
    revision: int
    client_id: str
    key: str | None


class ClassPrediction(_Header):
    """The answer of a classification to one row, as it goes out."""

    label: str
    confidence: float
    scores: dict[str, float]
    review: Review


class ValuePrediction(_Header):
    """The answer of a regression to one row, as it goes out."""

    value: float
    interval: tuple[float, float]
    review: Review


Prediction = ClassPrediction | ValuePrediction


def to_answer(task: Task, decision: Decision) -> ClassAnswer | ValueAnswer:
    """Puts a decision in the terms of its task."""
    return _in_terms_of(task, decision.best, decision.numbers)


def _in_terms_of(task: Task, best: int, numbers: list[float]) -> ClassAnswer | ValueAnswer:
    if isinstance(task, Classification):
        return ClassAnswer(task.labels[best], numbers[best], dict(zip(task.labels, numbers, strict=True)))
    value, low, high = numbers
    return ValueAnswer(value, (low, high))


def make_predictions(model: str, rows: Rows, answers: Answers) -> list[Prediction]:
    """Joins what is known of the rows with what was decided on them.

    Args:
        model: The model.
        rows: What was asked for.
        answers: What the engine made of it.
    """
    kind: type[Any] = ClassPrediction if isinstance(answers.task, Classification) else ValuePrediction
    task, revision = answers.task, answers.split.revision
    all_best: list[int] = answers.decisions.best.tolist()
    all_numbers: list[list[float]] = answers.decisions.numbers.tolist()
    columns = zip(answers.assignments, all_best, all_numbers, rows.client_ids, rows.keys, strict=True)
    return [
        kind(
            model,
            version := answers.version(index),
            answers.variants[version],
            assignment.arm,
            answers.fallbacks.get(index),
            revision,
            client_id,
            key,
            *_in_terms_of(task, best, numbers),
            answers.fates.get(index),
        )
        for index, (assignment, best, numbers, client_id, key) in enumerate(columns)
    ]
