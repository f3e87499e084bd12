"""The rows of a request on their way through the engine. Everything about a caller travels with its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import accumulate
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import msgspec
import numpy as np

from rollout.bundle.parity import take
from rollout.bundle.schema import Arrays
from rollout.errors import FieldError, RolloutError, invalid
from rollout.heads import Head
from rollout.inference.decisions import Decisions
from rollout.review.log import Fate
from rollout.routing.assignment import Arm, Assignment
from rollout.routing.split import Split

ID_LIMIT = 128  # characters of a client ID or a key
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


def is_identifier(text: str) -> bool:
    """Whether a text may be a client ID or a key."""
    return 1 <= len(text) <= ID_LIMIT and text.isprintable()


def require_identifier(text: str, pointer: str) -> str:
    """Returns a text that may be a client ID or a key.

    Args:
        text: The text.
        pointer: JSON pointer to where it stands.

    Raises:
        InvalidRequestError: If it may not.
    """
    if is_identifier(text):
        return text
    raise invalid([FieldError(pointer, f"must be 1 to {ID_LIMIT} printable characters")])


def spans(sizes: Sequence[int]) -> list[range]:
    """Returns where the rows of each request lie among all, given how many each has.

    Example:
        >>> spans([2, 1])
        [range(0, 2), range(2, 3)]
    """
    return [range(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]


class PublicHead(NamedTuple):
    """The head of a version as callers know it.

    Attributes:
        head: What its numbers are read by, after their translation.
        encoded: Its own, with the callers' labels, as JSON.
    """

    head: Head
    encoded: msgspec.Raw


class Answers(NamedTuple):
    """What the engine makes of the rows of a request, in their order.

    Attributes:
        split: The split under which they were assigned.
        task: What the decisions are about.
        assignments: Arm and version of each row.
        variants: The variant that scores for each version.
        heads: What each version answers with.
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
    task: Head
    assignments: list[Assignment]
    variants: Mapping[str, str]
    heads: Mapping[str, PublicHead]
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


class Prediction(msgspec.Struct):
    """What goes out for one row. Each type of answer has a subclass, with its fields and ``review``."""

    model: str
    version: str
    variant: str
    arm: Arm
    fallback: Fallback | None
    revision: int
    client_id: str
    key: str | None


@cache
def prediction_type(answer_type: type[tuple[Any, ...]]) -> type[Prediction]:
    """Returns the prediction that an answer goes out in: its fields stand beside those that all have.

    Args:
        answer_type: Of a head, a ``NamedTuple`` such as ``ClassAnswer``; then it is a ``ClassPrediction``.
    """
    kind: type[Any] = msgspec.defstruct(
        f"{answer_type.__name__.removesuffix('Answer')}Prediction",
        [*get_type_hints(answer_type, include_extras=True).items(), ("review", Review)],
        bases=(Prediction,),
        module=__name__,
        namespace={"__doc__": answer_type.__doc__},
    )
    return kind


def make_predictions(
    model: str, rows: Rows, answers: Answers, places: Iterable[int] | None = None
) -> list[Prediction]:
    """Joins what is known of the rows with what was decided on them.

    Args:
        model: The model.
        rows: What was asked for.
        answers: What the engine made of it.
        places: Which rows; without, all of them.
    """
    head, revision, variants = answers.task, answers.split.revision, answers.variants
    kind: Callable[..., Prediction] = prediction_type(head.answer_type)
    answer, fallbacks, fates = head.answer, answers.fallbacks, answers.fates
    all_numbers: list[list[float]] = answers.decisions.numbers.tolist()
    return [
        kind(
            model,
            version := answers.version(index),
            variants[version],
            answers.assignments[index].arm,
            fallbacks.get(index),
            revision,
            rows.client_ids[index],
            rows.keys[index],
            *answer(all_numbers[index]),
            fates.get(index),
        )
        for index in (range(len(all_numbers)) if places is None else places)
    ]
