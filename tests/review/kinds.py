"""A kind of answer that nothing outside of it knows: topics, of which several hold; and one of which nothing is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import msgspec

from rollout.heads import Head, Truth
from rollout.review.item import ReviewItem
from tests.review.items import make_item, written

TOPICS = ["food", "sport", "trade", "travel"]


class TopicsAnswer(NamedTuple):
    """The topics."""

    topics: list[str]


class Topics(msgspec.Struct, Head, frozen=True, kw_only=True, tag="topics-of-a-test", tag_field="kind"):
    """Topics; without any, an answer is neither right nor wrong."""

    measure: ClassVar[str] = "set of topics"
    form: ClassVar[str] = "labels"

    names: list[str]

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        return TopicsAnswer

    @property
    def policy(self) -> str:
        return "everything goes to review"

    @property
    def labels_used(self) -> Sequence[str]:
        return self.names

    def form_faults(self, truth: Truth) -> Iterator[tuple[str, str]]:
        for place, label in enumerate(truth.labels or []):
            if label not in self.names:
                yield f"/labels/{place}", "is no topic"

    def loss(self, answer: Mapping[str, Any], truth: Truth) -> float | None:
        return _apart(answer["topics"], truth.labels or []) if answer["topics"] else None

    def truth_distance(self, one: Truth, other: Truth) -> float:
        return _apart(one.labels or [], other.labels or [])

    def accepted(self, answer: Mapping[str, Any]) -> Truth | None:
        return Truth(labels=answer["topics"])

    def uncertainty(self, answer: Mapping[str, Any]) -> float:
        return 1 / (1 + len(answer["topics"]))

    def says(self, answer: Mapping[str, Any]) -> str:
        return " and ".join(answer["topics"])

    def labels_of(self, answer: Mapping[str, Any]) -> list[str]:
        return list(answer["topics"])

    def studio_result(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{"type": "choices", "value": {"choices": answer["topics"]}}]

    def studio_truth(self, results: Sequence[Mapping[str, Any]]) -> Truth:
        return Truth(labels=[label for each in results for label in each["choices"]])


class PlaceAnswer(NamedTuple):
    """A place."""

    place: Any


class Silent(msgspec.Struct, Head, frozen=True, kw_only=True, tag="silent-of-a-test", tag_field="kind"):
    """Answers that are never right or wrong."""

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        return PlaceAnswer

    def says(self, answer: Mapping[str, Any]) -> str:
        return f"place {answer['place']}"


def make_topics(number: int, *topics: str, **changes: Any) -> ReviewItem:
    """Returns an item of it."""
    fields = {"task": written(Topics(names=TOPICS)), "answer": {"topics": list(topics)}, "threshold": None}
    return make_item(number, **(fields | changes))


def _apart(ones: Sequence[str], others: Sequence[str]) -> float:
    return len(set(ones) ^ set(others)) / len(TOPICS)
