"""What kinds have in common whose answers carry labels, and of which one threshold says what goes to review."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import msgspec

from rollout.heads.head import Head


class OneThreshold(Head):
    """Labels with a confidence, below which a row goes to review; a threshold above 1 is reached by none."""

    __slots__ = ()

    labels: list[str]
    review_threshold: float | None
    # What goes to review, in words: if all, and with a place for the threshold.
    all_reviewed: ClassVar[str]
    some_reviewed: ClassVar[str]

    @property
    def review_limit(self) -> float:
        """The confidence below which a row goes to review."""
        return 0.0 if self.review_threshold is None else self.review_threshold

    @property
    def reviews_everything(self) -> bool:
        """Whether no confidence reaches the threshold."""
        return self.review_limit > 1

    @property
    def policy(self) -> str:
        """What goes to review, in words."""
        if self.reviews_everything:
            return self.all_reviewed
        return self.some_reviewed.format(f"{self.review_limit:.4f}")

    def public(self, meanings: Mapping[str, str]) -> Self:
        """Returns it with the labels that callers see; several may mean the same."""
        labels = list(dict.fromkeys(meanings.get(label, label) for label in self.labels))
        return self if labels == self.labels else msgspec.structs.replace(self, labels=labels)  # type: ignore[type-var]  # its kinds are structs
