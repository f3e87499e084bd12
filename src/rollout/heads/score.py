"""A number by which rows are put in order, without an interval."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError
from rollout.heads.explained import Explained, of_column, require_neither
from rollout.heads.head import Declared, Flags, Head, Row, Scores
from rollout.heads.measured import Evaluated, Measured
from rollout.heads.one_number import number_in
from rollout.heads.parts import Part
from rollout.heads.review_evidence import ReviewEvidence
from rollout.heads.truth import NO_NUMBER, Truth, is_number

# Versions that score a row so many standard deviations apart do not agree on it; rows that lie nearer have no
# order.
NOISE = 0.1
# A row is compared with so many others.
COMPARED = 2000


class ScoreAnswer(NamedTuple):
    """The score: rows with a higher one come first."""

    score: float


class Score(msgspec.Struct, Head, frozen=True, kw_only=True, tag="score", tag_field="kind"):
    """A number by which rows are put in order: a ranking, a risk, a relevance.

    The module returns it, shape ``(rows,)`` or ``(rows, 1)``. It has no interval and says nothing of how sure it
    is, so that no prediction goes to review by itself; and since it has no unit, it is neither right nor wrong:
    what people and callers report is compared by the order of rows alone.

    Attributes:
        scale: Standard deviation of the scores of the calibration part, the unit of differences; packing computes
            it.

    Example:
        >>> Score().outputs
        1
    """

    metric: ClassVar[str] = "share of pairs in the wrong order"
    form: ClassVar[str] = "value"
    has_loss: ClassVar[bool] = False
    soft_loss: ClassVar[str] = "values"
    panel: ClassVar[str] = "value"

    scale: float = 1.0

    @property
    def parts(self) -> Part:
        """The score."""
        return Part((1,), (None,))

    @property
    def needs(self) -> str:
        """What a module has to return, in words."""
        return "a score needs values of shape (rows,) or (rows, 1)"

    def check_targets(self, targets: NDArray[Any]) -> None:
        """Refuses targets that are not finite numbers, the higher the more they are wanted; shape ``(rows,)``."""
        if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.number) or not np.isfinite(targets).all():
            raise BundleError("targets must be finite numbers")

    def targets(self, truths: Sequence[Truth]) -> NDArray[Any]:
        """Returns the values, ``float64`` of shape ``(rows,)``."""
        return np.array([truth.value for truth in truths], np.float64)

    def soft_targets(self, scores: Scores) -> NDArray[np.float32]:
        """Returns the score."""
        return scores

    def calibrated(
        self, outputs: NDArray[np.float32], targets: NDArray[Any]
    ) -> tuple[Self, ReviewEvidence | None]:
        """Measures how far scores lie apart."""
        return msgspec.structs.replace(self, scale=float(np.std(outputs.astype(np.float64))) or 1.0), None

    @property
    def units(self) -> float | NDArray[np.float64]:
        """The standard deviation of the scores."""
        return self.scale

    def flipped(self, expected: Scores, got: Scores) -> Flags:
        """Which rows have another place: they move by more than noise, or pass others that are farther away."""
        before, now = expected[:, 0].astype(np.float64), got[:, 0].astype(np.float64)
        order = np.argsort(before, kind="stable")
        ranked, noise = before[order], NOISE * self.scale
        highest_below = np.concatenate([[-np.inf], np.maximum.accumulate(now[order])])
        lowest_above = np.concatenate([np.minimum.accumulate(now[order][::-1])[::-1], [np.inf]])
        below = highest_below[np.searchsorted(ranked, before - noise, side="left")]
        above = lowest_above[np.searchsorted(ranked, before + noise, side="right")]
        return np.asarray(~((np.abs(before - now) <= noise) & (below <= now) & (now <= above)))

    def right(self, scores: Scores, targets: NDArray[Any]) -> Flags:
        """Which rows are in order with more of the others than not."""
        return self.losses(scores, targets) < 0.5

    def losses(self, scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
        """The share of other rows that each row is in the wrong order with."""
        return self.answer_losses(scores[:, 0].astype(np.float64), targets)

    def answer_losses(self, answers: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
        """The share of other rows that each row is in the wrong order with.

        Rows with the same target have no order; the same score for two that have one is half of an error. With
        many rows, each is compared with 2,000 of them, evenly spaced.
        """
        places = np.unique(np.linspace(0, max(len(targets) - 1, 0), COMPARED).astype(int))[: len(targets)]
        others, wanted = answers[places], targets[places]
        losses = np.zeros(len(targets))
        for row, (answer, target) in enumerate(zip(answers, targets, strict=True)):
            should = np.sign(target - wanted)
            pairs = np.count_nonzero(should)
            if pairs:
                losses[row] = (np.abs(should - np.sign(answer - others)) / 2)[should != 0].sum() / pairs
        return losses

    def mean_loss(self, figures: Mapping[str, float]) -> float:
        """Returns the share of pairs in the wrong order."""
        return figures["wrong_order"]

    def in_words(self, scores: Scores) -> str:
        """Says what one row of scores, shape ``(1,)``, answers."""
        return f"{scores[0]:.4g}"

    @property
    def policy(self) -> str:
        """What goes to review, in words."""
        return "no prediction goes to review by itself: a score says nothing of how sure it is"

    @property
    def summary(self) -> str:
        """What it answers with, in a sentence."""
        return "Answers with a score: rows with a higher one come first."

    @property
    def unit_of_scores(self) -> str:
        """What the largest difference of two scores is a difference of, in words."""
        return "a score, in standard deviations of the scores"

    def measured(self, part: Evaluated) -> Measured:
        """Returns how far the order of the scores is that of the targets."""
        return Measured(
            {
                "rank_correlation": rank_correlation(part.scores[:, 0], part.targets),
                "wrong_order": float(self.losses(part.scores, part.targets).mean()),
            }
        )

    def report(self, figures: Mapping[str, float], review: ReviewEvidence | None) -> tuple[str, dict[str, str]]:
        """Says how far the order of the scores is that of the targets."""
        facts = {"standard deviation of the scores": f"{self.scale:.4g}"}
        if "rank_correlation" in figures:
            facts["rank correlation with the targets (Spearman)"] = f"{figures['rank_correlation']:.4f}"
            facts["pairs in the wrong order"] = f"{figures['wrong_order']:.1%}"
        return "Scores put rows in order, and promise nothing of a single one.", facts

    @property
    def signature(self) -> tuple[object, ...]:
        """A score like any other."""
        return ("Score",)

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        """The score."""
        return ScoreAnswer

    def answer(self, row: Row) -> Any:
        """Returns the score."""
        return ScoreAnswer(row[0])

    def explained(self, row: Row, label: str = "", head: str = "") -> Explained:
        """The score."""
        require_neither(label, head)
        return of_column("the score", 0)

    def declared(self) -> dict[str, Declared]:
        """The score."""
        return {"score": Declared("FP32")}

    def tensor(self, name: str, numbers: NDArray[np.float64]) -> NDArray[Any] | list[str]:
        """Returns the scores."""
        return numbers[:, 0]

    def agree(self, ours: Row, theirs: Row) -> bool:
        """Whether the scores are the same but for noise."""
        return abs(ours[0] - theirs[0]) <= NOISE * self.scale

    def distance(self, ours: Row, theirs: Row) -> float:
        """Returns how far the scores are apart, in standard deviations."""
        return abs(ours[0] - theirs[0]) / self.scale

    def form_faults(self, truth: Truth) -> Iterator[tuple[str, str]]:
        """Yields that the value is no number."""
        if not is_number(truth.value):
            yield "/value", NO_NUMBER

    def says(self, answer: Mapping[str, Any]) -> str:
        """Says the score."""
        return f"{answer['score']:.6g}"

    def studio_result(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns a number."""
        return [{"type": "number", "value": {"number": answer["score"]}}]

    def studio_truth(self, results: Sequence[Mapping[str, Any]]) -> Truth:
        """Returns the one number."""
        return number_in(results)


def rank_correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Returns Spearman's rank correlation of two columns, rows of the same value with their mean rank.

    Spearman, "The Proof and Measurement of Association between Two Things", 1904; 0 where a column has one value
    alone, which is no order.
    """
    ranks = [_ranks(column) for column in (one, other)]
    first, second = (each - each.mean() for each in ranks)
    size = math.sqrt(float((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / size) if size else 0.0


def _ranks(column: NDArray[Any]) -> NDArray[np.float64]:
    _, places, counts = np.unique(column, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]
