"""One of several classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError
from rollout.heads import reliability
from rollout.heads.calibration import fit_temperature, judge_threshold, review_threshold
from rollout.heads.conformal import label_set_threshold, label_sets
from rollout.heads.confusion import Confusion, class_confusions
from rollout.heads.doubts import Suspects, wrong_classes
from rollout.heads.explained import Explained, of_column, require_name
from rollout.heads.head import DIGITS, LEAST_SCORE, Declared, Flags, Head, Numbers, Row, Scores, Translation
from rollout.heads.label_sets import must_be_one_of
from rollout.heads.measured import Evaluated, Measured
from rollout.heads.one_threshold import OneThreshold
from rollout.heads.parts import Part
from rollout.heads.review_evidence import ReviewEvidence, describe_threshold
from rollout.heads.steps import Step, softmax
from rollout.heads.truth import Truth
from rollout.judge.features import Feature, Features, number


class ClassAnswer(NamedTuple):
    """The most likely class, its score, and the scores by class: all of them, or the best."""

    label: str
    confidence: float
    scores: dict[str, float]


class ClassSetAnswer(NamedTuple):
    """The same, and the classes of which one is the true one as often as the model promises, likeliest first."""

    label: str
    confidence: float
    labels: list[str]
    scores: dict[str, float]


class Classification(
    msgspec.Struct, OneThreshold, frozen=True, kw_only=True, tag="classification", tag_field="kind"
):
    """One of several classes. The module returns logits; a variant gives scores that sum to 1.

    Of two labels, the module may return a single logit, shape ``(rows,)`` or ``(rows, 1)``, as
    ``BCEWithLogitsLoss`` trains it: it speaks for the second label.

    Attributes:
        labels: The classes, in the order of the logits.
        risk: Largest error wanted among predictions that nobody reviews.
        delta: Probability with which that guarantee may fail.
        temperature: What logits are divided by before the softmax; packing computes it.
        review_threshold: A confidence below it goes to review. Packing computes it from ``risk`` unless you give
            your own; above 1 everything goes to review, as where no threshold would keep ``risk``.
        best: So many scores are answered with, the highest; without, all.
        alpha: Answers have a set of labels as well, which misses the true one with at most this probability.
        set_threshold: A label with this score is in the set; packing computes it.

    Example:
        >>> Classification(labels=["no", "yes"], risk=0.05).outputs
        2
    """

    activation: ClassVar[str] = "softmax"
    metric: ClassVar[str] = "error rate"
    measure: ClassVar[str] = "label"
    form: ClassVar[str] = "label"
    usual_loss: ClassVar[str] = "classes"
    all_reviewed: ClassVar[str] = "every prediction goes to review"
    some_reviewed: ClassVar[str] = "predictions below {} go to review"
    soft_loss: ClassVar[str] = "softmax"
    panel: ClassVar[str] = "label"

    labels: list[str]
    risk: float = 0.02
    delta: float = 0.05
    temperature: float = 1.0
    review_threshold: float | None = None
    best: int | None = None
    alpha: float | None = None
    set_threshold: float = 0.0

    @property
    def parts(self) -> Part:
        """Logits of all labels."""
        # The sigmoid of x is the second of the softmax of (0, x).
        return Part((len(self.labels),), (0.0, None) if len(self.labels) == 2 else ())

    @property
    def needs(self) -> str:
        """What a module has to return, in words."""
        one = ", or of the second label alone, (rows,) or (rows, 1)" if self.outputs == 2 else ""
        return f"{self.outputs} labels need logits of shape (rows, {self.outputs}){one}"

    @property
    def last_step(self) -> Sequence[Step]:
        """Softmax, after the division by the temperature."""
        return [Step(self.width, scale=1 / self.temperature, then="softmax", classes=self.width)]

    def check_targets(self, targets: NDArray[Any]) -> None:
        """Refuses targets that are not indexes of labels, shape ``(rows,)``, and labels that are there twice."""
        if len(set(self.labels)) != len(self.labels):
            raise BundleError("labels must be different texts, each of them once")
        is_index = targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer)
        if not is_index or not ((targets >= 0) & (targets < self.outputs)).all():
            raise BundleError(f"targets must be whole numbers from 0 to {self.outputs - 1}, an index of a label")

    def targets(self, truths: Sequence[Truth]) -> NDArray[Any]:
        """Returns the index of each label, ``int64`` of shape ``(rows,)``."""
        return np.array([self.labels.index(truth.label or "") for truth in truths], np.int64)

    def soft_targets(self, scores: Scores) -> NDArray[np.float32]:
        """Returns logits, but for a constant of each row."""
        return np.asarray(np.log(np.maximum(scores, LEAST_SCORE)) * self.temperature, np.float32)

    def calibrated(
        self, outputs: NDArray[np.float32], targets: NDArray[Any]
    ) -> tuple[Self, ReviewEvidence | None]:
        """Fits the temperature on a third of the rows, and picks the threshold on the others.

        Only then does the guarantee of the threshold hold: the others do not depend on the candidates.
        """
        given = self.review_threshold
        if given is not None and not given >= 0:  # NaN is none, either
            raise BundleError(
                f"a review_threshold of {given} is no confidence: give one from 0 to 1, or more to review "
                "everything"
            )
        if self.best is not None and not 1 <= self.best <= len(self.labels):
            raise BundleError(f"the best {self.best} of {len(self.labels)} labels cannot be answered with")
        first = np.arange(len(targets)) % 3 == 0
        temperature = fit_temperature(outputs[first], targets[first])
        scores = softmax(outputs.astype(np.float64) / temperature)
        confidence, correct = scores.max(-1), scores.argmax(-1) == targets
        rows = confidence[~first], correct[~first], confidence[first]
        threshold = review_threshold(*rows, risk=self.risk, delta=self.delta) if given is None else given
        evidence = judge_threshold(*rows, threshold, self.risk, self.delta, is_given=given is not None)
        head = msgspec.structs.replace(self, temperature=temperature, review_threshold=float(threshold))
        if self.alpha is not None:
            # To six decimals, as they go out: sets are made of those, which may be the sums of several.
            own = head.scores(outputs[~first]).astype(np.float64).round(DIGITS)
            found = label_set_threshold(own, targets[~first], self.alpha)
            head = msgspec.structs.replace(head, set_threshold=found)
        return head, evidence

    def flipped(self, expected: Scores, got: Scores) -> Flags:
        """Which rows get another label."""
        return np.asarray(expected.argmax(-1) != got.argmax(-1))

    def needs_review(self, scores: Scores) -> Flags:
        """Which rows have a confidence below the threshold."""
        return np.asarray(scores.max(-1) < self.review_limit)

    def sureness(self, scores: Scores) -> NDArray[np.float32]:
        """How sure each row is: its highest score."""
        return np.asarray(scores.max(-1))

    def losses(self, scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
        """1 for a wrong class."""
        return np.asarray(scores.argmax(-1) != targets).astype(np.float64)

    def mean_loss(self, figures: Mapping[str, float]) -> float:
        """Returns the share of wrong labels."""
        return 1 - figures["accuracy"]

    def in_words(self, scores: Scores) -> str:
        """Says what one row of scores, shape ``(outputs,)``, answers."""
        return f"{self.labels[int(scores.argmax())]} at {scores.max():.4f}"

    def target_in_words(self, target: Any) -> str:
        """Says the class of one row."""
        return self.labels[int(target)]

    def confusions(self, scores: Scores, targets: NDArray[Any]) -> list[Confusion]:
        """Returns the classes that were taken for others."""
        return class_confusions(self.labels, scores.argmax(-1), targets)

    def suspects(self, scores: Scores, targets: NDArray[Any]) -> Suspects:
        """Finds classes that are probably wrong."""
        return wrong_classes(scores, targets)

    @property
    def summary(self) -> str:
        """What it answers with, in a sentence."""
        return f"Answers with one of {len(self.labels)} labels: {', '.join(self.labels)}."

    @property
    def unit_of_scores(self) -> str:
        """What the largest difference of two scores is a difference of, in words."""
        return "a score"

    def measured(self, part: Evaluated) -> Measured:
        """Returns accuracy, with and without review, and how far off confidence is."""
        right, answered = self.right(part.scores, part.targets), ~self.needs_review(part.scores)
        figures = {"accuracy": float(right.mean())}
        if answered.any():
            figures["accuracy_without_review"] = float(right[answered].mean())
        unscaled = softmax(part.outputs.astype(np.float64))
        before, after = (reliability.bin_by_confidence(each.max(-1), right) for each in (unscaled, part.scores))
        if self.alpha is not None:
            sets = label_sets(part.scores.astype(np.float64).round(DIGITS), self.set_threshold)
            figures["set_coverage"] = float(sets[np.arange(len(sets)), part.targets].mean())
            figures["mean_set_size"] = float(sets.sum(1).mean())
        figures["calibration_error_before"] = before.calibration_error
        figures["calibration_error"] = after.calibration_error
        return Measured(figures, reliability.draw_confidence(before, after))

    def report(self, figures: Mapping[str, float], review: ReviewEvidence | None) -> tuple[str, dict[str, str]]:
        """Says what the review threshold is worth, and where all goes to review, what it would take."""
        facts = {"temperature": f"{self.temperature:.4f}"}
        if "calibration_error_before" in figures:
            facts["calibration error before scaling"] = f"{figures['calibration_error_before']:.4f}"
            facts["calibration error after scaling"] = f"{figures['calibration_error']:.4f}"
        if self.alpha is not None:
            facts["sets of labels hold the truth"] = f"{1 - self.alpha:.1%} of the time"
        if "set_coverage" in figures:
            facts["sets of labels held it"] = f"{figures['set_coverage']:.1%} of the time"
            facts["labels in a set"] = f"{figures['mean_set_size']:.2f} on average"
        return describe_threshold(self.review_limit, self.risk, self.delta, review), facts

    @property
    def classes(self) -> Sequence[str]:
        """The classes, in the order of the logits."""
        return self.labels

    @property
    def signature(self) -> tuple[object, ...]:
        """The labels, in any order, and what is answered beside them."""
        options = () if self.best is None and self.alpha is None else (self.best, self.alpha is not None)
        return ("Classification", *sorted(self.labels), *options)

    def translation(self, public: Head, meanings: Mapping[str, str]) -> Translation | None:
        """Returns what adds up the scores that mean the same."""
        if list(public.classes) == self.labels:
            return None
        found = [list(public.classes).index(meanings.get(label, label)) for label in self.labels]
        count = len(public.classes)

        def translate(numbers: Numbers) -> Numbers:
            scores = np.zeros((len(numbers), count))
            for column, place in enumerate(found):
                scores[:, place] += numbers[:, self._first + column]
            # What callers do not tell apart is in the set where one of it is.
            scores = scores.round(DIGITS)
            return self._laid_out(scores.argmax(-1), scores, numbers[:, 1])

        return translate

    def numbers(self, scores: Scores) -> Numbers:
        """The index of the most likely class, the lowest scores that go out if not all do, and all scores."""
        return self._laid_out(scores.argmax(-1), scores, self.set_threshold)

    def _laid_out(
        self, best: NDArray[np.intp], scores: NDArray[Any], set_threshold: float | NDArray[np.float64]
    ) -> Numbers:
        """Puts scores of shape ``(rows, classes)``, rounded, behind what follows from them."""
        first = self._first
        numbers = np.empty((len(scores), first + scores.shape[1]))
        numbers[:, 0], rounded = best, numbers[:, first:]
        # In double precision: single misses the nearest sixth decimal. The order is that of single, however.
        rounded[:] = scores
        rounded.round(DIGITS, out=rounded)
        if first > 1:
            count = min(self.best or scores.shape[1], scores.shape[1])
            numbers[:, 1] = np.minimum(set_threshold, rounded.max(-1))
            numbers[:, 2] = np.partition(rounded, -count, axis=-1)[:, -count]
        return numbers

    @property
    def _first(self) -> int:
        """The column of the first score."""
        return 1 if self.best is None and self.alpha is None else 3

    @property
    def columns(self) -> int:
        """The index, and a score for each label; with options, the lowest in the set and of the best."""
        return self._first + len(self.labels)

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        """Label, confidence and scores; the set of labels, where there is one."""
        return ClassAnswer if self.alpha is None else ClassSetAnswer

    def answer(self, row: Row) -> Any:
        """Returns the most likely class, its score, and scores by class, highest first where not all go out."""
        best, first, labels = int(row[0]), self._first, self.labels
        label, scores = labels[best], row[first:]
        confidence = scores[best]
        if self.best is None:
            by_label = dict(zip(labels, scores, strict=True))
        else:
            by_label = {self.labels[place]: scores[place] for place in _from(scores, row[2], best)[: self.best]}
        if self.alpha is None:
            return ClassAnswer(label, confidence, by_label)
        together = [labels[place] for place in _from(scores, row[1], best)]
        return ClassSetAnswer(label, confidence, together, by_label)

    def explained(self, row: Row, label: str = "", head: str = "") -> Explained:
        """The score of the most likely class, or of ``label``."""
        require_name("head", head, [""])
        asked = require_name("label", label or self.labels[int(row[0])], self.labels)
        return of_column(f"the score of {asked}", self._first + self.labels.index(asked), asked)

    def confidences(self, numbers: Numbers) -> NDArray[np.float64] | None:
        """Returns the score of the most likely class of each row."""
        return np.asarray(numbers[:, self._first :].max(-1))

    def features(self, numbers: Numbers) -> Features:
        """Returns label and confidence; the number of labels in the set, where there is one."""
        found = {"label": Feature(numbers[:, 0], tuple(self.labels)), **self.confidence_feature(numbers)}
        if self.alpha is None:
            return found
        in_set = (numbers[:, self._first :] >= numbers[:, 1:2]).sum(1)
        return found | {"set_size": number(np.where(np.isnan(numbers[:, 1]), np.nan, in_set))}

    def declared(self) -> dict[str, Declared]:
        """Label, confidence and scores; ``best`` names these, and ``set`` says which labels are in the set."""
        count = len(self.labels)
        best = {} if self.best is None else {"best": Declared("BYTES", (min(self.best, count),))}
        return {
            "label": Declared("BYTES"),
            "confidence": Declared("FP32"),
            **best,
            "scores": Declared("FP32", (min(self.best or count, count),)),
            **({} if self.alpha is None else {"set": Declared("BOOL", (count,))}),
        }

    def tensor(self, name: str, numbers: Numbers) -> NDArray[Any] | list[str]:
        """Returns one of them."""
        scores = numbers[:, self._first :]
        if name == "label":
            return [self.labels[best] for best in numbers[:, 0].astype(int).tolist()]
        if name == "confidence":
            return np.asarray(scores.max(-1))
        if name == "set":
            return np.asarray(scores >= numbers[:, 1:2])
        if self.best is None:
            return scores
        is_best = np.arange(scores.shape[1]) != numbers[:, :1]  # of equal scores, what is answered comes first
        order = np.lexsort((is_best, -scores), axis=-1)[:, : self.best]
        if name == "best":
            return [self.labels[place] for place in order.ravel().tolist()]
        return np.take_along_axis(scores, order, axis=-1)

    def keys_of(self, column: str) -> Sequence[str] | None:
        """Scores have a name for each label, where all go out."""
        return self.labels if column == "scores" and self.best is None else None

    def agree(self, ours: Row, theirs: Row) -> bool:
        """Whether it is the same class."""
        return ours[0] == theirs[0]

    def distance(self, ours: Row, theirs: Row) -> float:
        """Returns the total variation distance, ``sum(|p - q|) / 2``, from 0 to 1.

        Levin, Peres and Wilmer, "Markov Chains and Mixing Times", 4.2.
        """
        return float(np.abs(np.subtract(ours[self._first :], theirs[self._first :])).sum() / 2)

    def form_faults(self, truth: Truth) -> Iterator[tuple[str, str]]:
        """Yields that the label is none of the classes."""
        if truth.label not in self.labels:
            yield "/label", must_be_one_of(self.labels)

    def loss(self, answer: Mapping[str, Any], truth: Truth) -> float | None:
        """1 for a wrong label."""
        return float(answer["label"] != truth.label)

    def brief(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """All but the scores, of which there may be very many."""
        return {name: value for name, value in answer.items() if name != "scores"}

    def accepted(self, answer: Mapping[str, Any]) -> Truth | None:
        """Returns the label."""
        return Truth(label=answer["label"])

    def uncertainty(self, answer: Mapping[str, Any]) -> float:
        """Returns what the margin between the two likeliest classes lacks of 1.

        Settles, "Active Learning Literature Survey", 2009, 3.1.
        """
        *_, second, first = [0.0, *sorted(answer["scores"].values())]
        return float(1 - (first - second))

    def says(self, answer: Mapping[str, Any]) -> str:
        """Says the label and its confidence."""
        return f"{answer['label']} at {answer['confidence']:.3g}"

    def labels_of(self, answer: Mapping[str, Any]) -> list[str]:
        """Returns the label."""
        return [answer["label"]]

    def studio_result(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns a choice."""
        return [{"type": "choices", "value": {"choices": [answer["label"]]}}]

    def studio_truth(self, results: Sequence[Mapping[str, Any]]) -> Truth:
        """Returns the one choice."""
        choices = next((each["choices"] for each in results if isinstance(each.get("choices"), list)), None)
        if choices is None:
            raise ValueError("an annotation has no choices")
        if len(choices) != 1 or not isinstance(choices[0], str):
            raise ValueError(f"an item has one label, not {len(choices)}")
        return Truth(label=choices[0])


def _from(scores: Row, least: float, best: int) -> list[int]:
    """Returns the places of scores from one on, highest first, of equal ones ``best`` first."""
    found = [place for place, score in enumerate(scores) if score >= least]
    return sorted(found, key=lambda place: (-scores[place], place != best))
