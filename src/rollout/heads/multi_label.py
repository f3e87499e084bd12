"""Labels of which several hold, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError
from rollout.heads import reliability
from rollout.heads.calibration import error_bound, fit_temperature, judge_threshold, rows_needed
from rollout.heads.confusion import Confusion, most_frequent
from rollout.heads.doubts import Suspects, wrong_label_sets
from rollout.heads.explained import Explained, of_column, require_name
from rollout.heads.head import DIGITS, LEAST_SCORE, Declared, Flags, Head, Numbers, Row, Scores, Translation
from rollout.heads.label_sets import NAMED, jaccard_distance, jaccard_distances, label_faults
from rollout.heads.measured import Evaluated, Measured
from rollout.heads.parts import Part
from rollout.heads.review_evidence import ReviewEvidence
from rollout.heads.steps import Step
from rollout.heads.tag_thresholds import HALF, decide, distances, tag_thresholds, unsure
from rollout.heads.truth import Truth
from rollout.judge.features import Feature, Features, number

METRIC = "Jaccard distance"


class LabelsAnswer(NamedTuple):
    """The labels that hold, and the score and the threshold of each label: those hold that reach theirs."""

    labels: list[str]
    scores: dict[str, float]
    thresholds: dict[str, float]


class MultiLabel(msgspec.Struct, Head, frozen=True, kw_only=True, tag="multi-label", tag_field="kind"):
    """Labels of which several hold, or none.

    The module returns a logit for each, as ``BCEWithLogitsLoss`` trains them; a variant gives probabilities.

    Attributes:
        labels: The labels, in the order of the logits.
        risk: Largest error wanted among decisions on each label that nobody reviews.
        delta: Probability with which that may fail for any of the labels.
        thresholds: The probability at which a label holds, by label; 0.5 where you give none.
        temperature: What logits are divided by before the sigmoid; packing computes it.
        margins: A probability nearer to its threshold than this goes to review, by label. Packing computes them
            from ``risk`` unless you give your own; above 1 everything goes to review, as where no margin would
            keep ``risk``.

    Example:
        >>> MultiLabel(labels=["food", "sport", "travel"], thresholds={"sport": 0.3}).outputs
        3
    """

    metric: ClassVar[str] = METRIC
    measure: ClassVar[str] = "labels"
    form: ClassVar[str] = "labels"
    panel: ClassVar[str] = "labels"
    activation: ClassVar[str] = "sigmoid"
    usual_loss: ClassVar[str] = "labels"
    soft_loss: ClassVar[str] = "sigmoid"

    labels: list[str]
    risk: float = 0.02
    delta: float = 0.05
    thresholds: dict[str, float] = {}
    temperature: float = 1.0
    margins: dict[str, float] = {}

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ValueError("there must be labels, each of them once")

    @property
    def parts(self) -> Part:
        """Logits of all labels."""
        return Part((len(self.labels),))

    @property
    def needs(self) -> str:
        """What a module has to return, in words."""
        return f"{len(self.labels)} labels of which several hold need logits of shape (rows, {len(self.labels)})"

    @property
    def last_step(self) -> Sequence[Step]:
        """Sigmoid, after the division by the temperature."""
        return [Step(self.width, scale=1 / self.temperature, then="sigmoid")]

    def check_targets(self, targets: NDArray[Any]) -> None:
        """Refuses targets that do not say of each label whether it holds, shape ``(rows, labels)``."""
        if targets.shape[1:] != (len(self.labels),) or not np.isin(targets, (0, 1)).all():
            raise BundleError(
                f"targets must be true or false for each of {len(self.labels)} labels, of shape (rows, "
                f"{len(self.labels)})"
            )

    def targets(self, truths: Sequence[Truth]) -> NDArray[Any]:
        """Returns whether each label holds, ``bool`` of shape ``(rows, labels)``."""
        return np.array([[label in (truth.labels or ()) for label in self.labels] for truth in truths], bool)

    def soft_targets(self, scores: Scores) -> NDArray[np.float32]:
        """Returns logits."""
        inside = np.clip(scores.astype(np.float64), LEAST_SCORE, 1 - LEAST_SCORE)
        return np.asarray(np.log(inside / (1 - inside)) * self.temperature, np.float32)

    def calibrated(
        self, outputs: NDArray[np.float32], targets: NDArray[Any]
    ) -> tuple[Self, ReviewEvidence | None]:
        """Fits the temperature on a third of the rows, and picks the margins on the others.

        The evidence is that of the label of which least is known: the one with the largest bound.
        """
        if unknown := [label for label in (*self.thresholds, *self.margins) if label not in self.labels]:
            raise BundleError(f"{unknown[0]} has a threshold or a margin, and is none of the labels")
        if negative := [label for label, margin in self.margins.items() if not margin >= 0]:
            raise BundleError(f"the margin of {negative[0]} is no distance: give one from 0 to 1, or more")
        holds, first = targets.astype(bool), np.arange(len(targets)) % 3 == 0
        # The sigmoid of x is the second of the softmax of (0, x): each label of a row is a row of two classes.
        logits = outputs[first].reshape(-1, 1)
        temperature = fit_temperature(
            np.hstack([np.zeros_like(logits), logits]), holds[first].ravel().astype(int)
        )
        head = msgspec.structs.replace(self, temperature=temperature)
        scores, wanted = head.scores(outputs), [self.thresholds.get(label, HALF) for label in self.labels]
        rows = scores[~first], holds[~first]
        found = tag_thresholds(*rows, scores[first], wanted, risk=self.risk, delta=self.delta)
        margins = [
            self.margins.get(label, margin)
            for label, margin in zip(self.labels, found.margins.tolist(), strict=True)
        ]
        head = msgspec.structs.replace(
            head,
            thresholds=dict(zip(self.labels, found.thresholds.tolist(), strict=True)),
            margins=dict(zip(self.labels, margins, strict=True)),
        )
        far, correct = distances(rows[0], wanted), decide(rows[0], wanted) == rows[1]
        level, answered = self.delta / len(self.labels), far >= np.array(margins)
        bounds = [
            error_bound(int(wrong), int(count), level)
            for wrong, count in zip((answered & ~correct).sum(0), answered.sum(0), strict=True)
        ]
        least = int(np.argmax(bounds))
        others = distances(scores[first], wanted)[:, least]
        evidence = (far[:, least], correct[:, least], others, margins[least], self.risk, level)
        return head, judge_threshold(*evidence, is_given=self.labels[least] in self.margins)

    def flipped(self, expected: Scores, got: Scores) -> Flags:
        """Which rows get another decision on any label."""
        return np.asarray((self._holds(expected) != self._holds(got)).any(1))

    def needs_review(self, scores: Scores) -> Flags:
        """Which rows have a label that is nearer to its threshold than its margin."""
        return np.asarray(unsure(scores, self._thresholds, self._margins).any(1))

    def sureness(self, scores: Scores) -> NDArray[np.float32]:
        """How sure each row is: how far beyond its margin the label is that is least so."""
        return np.asarray((distances(scores, self._thresholds) - self._margins).min(1), np.float32)

    def losses(self, scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
        """The Jaccard distance of the labels that hold from those that should."""
        return jaccard_distances(self._holds(scores), targets.astype(bool))

    def answer_losses(self, answers: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
        """The Jaccard distance."""
        return jaccard_distances(answers.astype(bool), targets.astype(bool))

    def mean_loss(self, figures: Mapping[str, float]) -> float:
        """Returns the mean Jaccard distance."""
        return figures["jaccard_distance"]

    def in_words(self, scores: Scores) -> str:
        """Says what one row of scores, shape ``(outputs,)``, answers."""
        holding = self._holds(scores[None])[0]
        said = [
            f"{label} at {score:.4f}"
            for label, score, holds in zip(self.labels, scores, holding, strict=True)
            if holds
        ]
        return " and ".join(said) or f"no label, the highest at {scores.max():.4f}"

    def target_in_words(self, target: Any) -> str:
        """Says the labels that hold of one row."""
        held = [label for label, holds in zip(self.labels, target, strict=True) if holds]
        return _named(held) or "no label"

    def confusions(self, scores: Scores, targets: NDArray[Any]) -> list[Confusion]:
        """Returns for each label how often it was missed, and how often it was answered and did not hold."""
        said, true = self._holds(scores), targets.astype(bool)
        found = []
        for column, label in enumerate(self.labels):
            own, answered = true[:, column], said[:, column]
            found.append(Confusion(label, f"not {label}", np.flatnonzero(own & ~answered), int(own.sum())))
            found.append(Confusion(f"not {label}", label, np.flatnonzero(answered & ~own), int((~own).sum())))
        return most_frequent([each for each in found if len(each.rows)])

    def suspects(self, scores: Scores, targets: NDArray[Any]) -> Suspects:
        """Finds sets of labels that are probably wrong."""
        return wrong_label_sets(scores, targets)

    @property
    def review_limit(self) -> float:
        """The largest margin."""
        return float(max(self._margins, default=0.0))

    @property
    def reviews_everything(self) -> bool:
        """Whether the margin of a label is larger than any distance."""
        return self.review_limit > 1

    @property
    def policy(self) -> str:
        """What goes to review, in words."""
        if self.reviews_everything:
            without = [label for label in self.labels if self.margins.get(label, 0.0) > 1]
            return f"every prediction goes to review: no margin keeps the risk of {_named(without)}"
        return (
            "predictions with a label nearer to its threshold than its margin, at most "
            f"{self.review_limit:.4f}, go to review"
        )

    @property
    def summary(self) -> str:
        """What it answers with, in a sentence."""
        return f"Answers with those of {len(self.labels)} labels that hold: {', '.join(self.labels)}."

    @property
    def unit_of_scores(self) -> str:
        """What the largest difference of two scores is a difference of, in words."""
        return "a probability"

    def measured(self, part: Evaluated) -> Measured:
        """Returns how often decisions on labels are right, and how far off their confidence is."""
        wanted, holds = part.targets.astype(bool), self._holds(part.scores)
        right = holds == wanted
        both, said = int((holds & wanted).sum()), int(holds.sum() + wanted.sum())
        figures = {
            "label_accuracy": float(right.mean()),
            "micro_f1": 2 * both / said if said else 1.0,
            "exact_match": float(right.all(1).mean()),
            "jaccard_distance": float(self.losses(part.scores, part.targets).mean()),
        }
        answered = ~self.needs_review(part.scores)
        if answered.any():
            figures["label_accuracy_without_review"] = float(right[answered].mean())
            figures["exact_match_without_review"] = float(right[answered].all(1).mean())
        unscaled = msgspec.structs.replace(self, temperature=1.0).scores(part.outputs)
        before, after = (
            reliability.bin_by_confidence(np.where(each_holds, each, 1 - each).ravel(), each_right.ravel())
            for each, each_holds, each_right in (
                (unscaled, self._holds(unscaled), self._holds(unscaled) == wanted),
                (part.scores, holds, right),
            )
        )
        figures["calibration_error_before"] = before.calibration_error
        figures["calibration_error"] = after.calibration_error
        return Measured(figures, reliability.draw_confidence(before, after))

    def report(self, figures: Mapping[str, float], review: ReviewEvidence | None) -> tuple[str, dict[str, str]]:
        """Says what the margins are worth, and where all goes to review, what it would take."""
        facts = {"temperature": f"{self.temperature:.4f}"}
        for label, threshold, margin in zip(self.labels[:NAMED], self._thresholds, self._margins, strict=False):
            facts[f"{label} holds from"] = f"{threshold:.4f}, unsure " + (
                "everywhere" if margin > 1 else f"within {margin:.4f}"
            )
        if "calibration_error_before" in figures:
            facts["calibration error before scaling"] = f"{figures['calibration_error_before']:.4f}"
            facts["calibration error after scaling"] = f"{figures['calibration_error']:.4f}"
        probability = f"{1 - self.delta:.0%}"
        if review is None or not (review.is_given or self.reviews_everything):
            return (
                f"With probability {probability}, for every label at once, at most {self.risk:.1%} of the "
                "decisions on it that are at least its margin away from its threshold are wrong."
            ), facts
        seen = f"{review.errors:,} of {review.rows:,} calibration rows are decided wrongly"
        if review.is_given:
            return (
                f"Margins are the author's own. On the label of which least is known, {seen}, and "
                f"{review.answered_errors:,} of the {review.answered:,} that are its margin away: with "
                f"probability {probability}, at most {review.bound:.1%} of the decisions on a label that go out "
                "without review are wrong."
            ), facts
        needed = rows_needed(self.risk, self.delta / len(self.labels))
        without = [label for label in self.labels if self.margins.get(label, 0.0) > 1]
        return (
            f"Every answer goes to review: no margin keeps the error of {_named(without)} at {self.risk:.1%} "
            f"with probability {probability} for all labels at once. It takes {needed:,} rows that are right and "
            f"far from the threshold, of {review.rows:,} that decide (two thirds of the calibration part). More "
            "rows, a better model, a larger `risk` or `margins` of your own change that."
        ), facts

    @property
    def labels_used(self) -> Sequence[str]:
        """The labels, in the order of the logits."""
        return self.labels

    @property
    def signature(self) -> tuple[object, ...]:
        """The labels, in any order."""
        return ("MultiLabel", *sorted(self.labels))

    def public(self, meanings: Mapping[str, str]) -> Self:
        """Returns it with the labels that callers see; of several that mean the same, the first counts."""
        if not any(label in meanings for label in self.labels):
            return self
        given = [self.thresholds, self.margins]
        renamed: list[dict[str, float]] = [
            {meanings.get(label, label): numbers[label] for label in reversed(self.labels) if label in numbers}
            for numbers in given
        ]
        labels = list(dict.fromkeys(meanings.get(label, label) for label in self.labels))
        return msgspec.structs.replace(self, labels=labels, thresholds=renamed[0], margins=renamed[1])

    def translation(self, public: Head, meanings: Mapping[str, str]) -> Translation | None:
        """Returns what puts labels in their places; of several that mean the same, the one that holds most."""
        theirs, ours = list(public.labels_used), [meanings.get(label, label) for label in self.labels]
        if theirs == ours:
            return None
        places = [[at for at, label in enumerate(ours) if label == wanted] for wanted in theirs]

        def translate(numbers: Numbers) -> Numbers:
            holds, scores, thresholds = self._split(numbers)
            rows, found = np.arange(len(numbers)), []
            for own in places:
                most = np.array(own)[(scores[:, own] - thresholds[:, own]).argmax(1)]
                found.append([each[rows, most] for each in (holds, scores, thresholds)])
            return np.stack([column for kind in zip(*found, strict=True) for column in kind], axis=1)

        return translate

    def numbers(self, scores: Scores) -> Numbers:
        """Which labels hold, all scores, and all thresholds: those of another version are others."""
        thresholds = np.broadcast_to(self._thresholds, scores.shape)
        return np.concatenate([self._holds(scores), scores, thresholds], axis=1, dtype=np.float64).round(DIGITS)

    @property
    def columns(self) -> int:
        """Three for each label."""
        return 3 * len(self.labels)

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        """Labels, scores and thresholds."""
        return LabelsAnswer

    def answer(self, row: Row) -> Any:
        """Returns the labels that hold, and score and threshold of each."""
        count = len(self.labels)
        return LabelsAnswer(
            [label for label, holds in zip(self.labels, row, strict=False) if holds],
            dict(zip(self.labels, row[count : 2 * count], strict=True)),
            dict(zip(self.labels, row[2 * count :], strict=True)),
        )

    def explained(self, row: Row, label: str = "", head: str = "") -> Explained:
        """The score of the most likely label, or of ``label``."""
        require_name("head", head, [""])
        count = len(self.labels)
        asked = require_name("label", label or self.labels[int(np.argmax(row[count : 2 * count]))], self.labels)
        return of_column(f"the score of {asked}", count + self.labels.index(asked), asked)

    def confidences(self, numbers: Numbers) -> NDArray[np.float64] | None:
        """Returns the probability with which the least certain decision of each row is right."""
        holds, scores, _ = self._split(numbers)
        return np.asarray(np.where(holds > 0, scores, 1 - scores).min(1))

    def features(self, numbers: Numbers) -> Features:
        """Returns how many labels hold, the one that is most likely, and the confidence."""
        holds, scores, _ = self._split(numbers)
        is_known = ~np.isnan(scores).any(1)
        return {
            "labels": number(holds.sum(1)),
            "first": Feature(np.where(is_known, scores.argmax(1), np.nan), tuple(self.labels)),
            **self.confidence_feature(numbers),
        }

    def declared(self) -> dict[str, Declared]:
        """Which labels hold, and score and threshold of each, in the order of the labels."""
        shape = (len(self.labels),)
        return {
            "holds": Declared("BOOL", shape),
            "scores": Declared("FP32", shape),
            "thresholds": Declared("FP32", shape),
        }

    def tensor(self, name: str, numbers: Numbers) -> NDArray[Any] | list[str]:
        """Returns what holds, scores or thresholds."""
        holds, scores, thresholds = self._split(numbers)
        return {"holds": holds > 0, "scores": scores, "thresholds": thresholds}[name]

    def keys_of(self, column: str) -> Sequence[str] | None:
        """Scores and thresholds have a name for each label."""
        return self.labels if column in {"scores", "thresholds"} else None

    def agree(self, ours: Row, theirs: Row) -> bool:
        """Whether the same labels hold."""
        count = len(self.labels)
        return list(ours[:count]) == list(theirs[:count])

    def distance(self, ours: Row, theirs: Row) -> float:
        """Returns the largest difference of the probabilities of a label, from 0 to 1."""
        own = slice(len(self.labels), 2 * len(self.labels))
        return float(np.abs(np.subtract(ours[own], theirs[own])).max(initial=0.0))

    def form_faults(self, truth: Truth) -> Iterator[tuple[str, str]]:
        """Yields labels that there are not, and those that are there twice."""
        return label_faults(truth.labels or (), self.labels)

    def loss(self, answer: Mapping[str, Any], truth: Truth) -> float | None:
        """The Jaccard distance of the two sets."""
        return jaccard_distance(answer["labels"], truth.labels or ())

    def brief(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The labels that hold, with their scores: there may be very many others."""
        labels = answer["labels"]
        return {"labels": labels, "scores": {label: answer["scores"][label] for label in labels}}

    def accepted(self, answer: Mapping[str, Any]) -> Truth | None:
        """Returns the labels."""
        return Truth(labels=answer["labels"])

    def truth_distance(self, one: Truth, other: Truth) -> float:
        """The Jaccard distance of the two sets."""
        return jaccard_distance(one.labels or (), other.labels or ())

    def uncertainty(self, answer: Mapping[str, Any]) -> float:
        """Returns how near the nearest label is to its threshold: 1 on it, 0 where each is as far as can be."""
        thresholds = answer["thresholds"]
        shares = [
            abs(score - thresholds[label]) / max(thresholds[label], 1 - thresholds[label])
            for label, score in answer["scores"].items()
        ]
        return float(1 - min(shares, default=1.0))

    def says(self, answer: Mapping[str, Any]) -> str:
        """Says the labels, each with its probability."""
        return ", ".join(f"{label} at {answer['scores'][label]:.3g}" for label in answer["labels"]) or "no label"

    def labels_of(self, answer: Mapping[str, Any]) -> list[str]:
        """Returns the labels that hold."""
        return list(answer["labels"])

    def studio_result(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns choices, of which there may be several."""
        return [{"type": "choices", "value": {"choices": answer["labels"]}}]

    def studio_truth(self, results: Sequence[Mapping[str, Any]]) -> Truth:
        """Returns the choices; an annotation without any says that no label holds."""
        choices = [each["choices"] for each in results if isinstance(each.get("choices"), list)]
        if results and not choices:
            raise ValueError("an annotation has something else than choices")
        return Truth(labels=[str(label) for each in choices for label in each])

    def _holds(self, scores: NDArray[Any]) -> Flags:
        return decide(scores, self._thresholds)

    @property
    def _thresholds(self) -> NDArray[np.float64]:
        return np.array([self.thresholds.get(label, HALF) for label in self.labels])

    @property
    def _margins(self) -> NDArray[np.float64]:
        return np.array([self.margins.get(label, 0.0) for label in self.labels])

    def _split(self, numbers: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        holds, scores, thresholds = np.split(numbers, 3, axis=1)
        return holds, scores, thresholds


def _named(labels: Sequence[str]) -> str:
    return f"{', '.join(labels[:NAMED])}{', …' if len(labels) > NAMED else ''}"
