"""Boxes in an image: what is where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypedDict, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError
from rollout.heads.box_calibration import calibrate, measure
from rollout.heads.box_truth import (
    box_targets,
    boxes_said,
    check_box_targets,
    find_faults,
    read_rectangle,
    rectangle,
)
from rollout.heads.confusion import Confusion, Places, place_confusions
from rollout.heads.detection import Detected, detect, true_boxes
from rollout.heads.doubts import PlacesOfRow, Suspects, wrong_places
from rollout.heads.explained import Explained, of_surest, require_name
from rollout.heads.head import DIGITS, Declared, Flags, Head, Numbers, Row, Scores, Translation
from rollout.heads.matching import SAME, iou, loss, match
from rollout.heads.measured import Evaluated, Measured
from rollout.heads.one_threshold import OneThreshold
from rollout.heads.parts import Part, Parts
from rollout.heads.review_evidence import ReviewEvidence, describe_threshold
from rollout.heads.steps import Step
from rollout.heads.truth import Box, Truth
from rollout.judge.features import Feature, Features, number

# Numbers of a box: index of its label, score, four edges. Before them stands how many boxes there are.
EACH = 6
# Scores no further apart than single precision may be are a tie: whatever turns on that is the same answer.
TIE = 1e-5
NAMED = 3  # boxes that a sentence names


class FoundBox(TypedDict):
    """A box in an answer: its label, its score, and its edges as parts of the image."""

    label: str
    score: float
    box: list[float]


class BoxesAnswer(NamedTuple):
    """The boxes, best first; each with left, top, right and bottom edge in parts of width and height."""

    boxes: list[FoundBox]


class Boxes(msgspec.Struct, OneThreshold, frozen=True, kw_only=True, tag="boxes", tag_field="kind"):
    """Boxes with a label each. The module gives a fixed number of candidates, of which the best are answered.

    It returns ``boxes`` of shape ``(rows, candidates, 4)``, left, top, right and bottom edge in parts of the
    width and height of the image that it got, from 0 to 1, and ``logits`` of shape ``(rows, candidates,
    labels)``, of which the sigmoid is the score of each label; with a ``background``, there is one more column
    for "nothing here", and the softmax over all of them makes the scores. In the image as it was sent, edges are
    the same parts: packing refuses an input of which the module sees another part.

    Attributes:
        labels: What boxes hold, in the order of the logits.
        candidates: How many boxes the module gives for each image.
        background: Where the column for "nothing here" stands, ``first`` or ``last``; ``None`` where there is
            none.
        least: A box with a lower score is not answered.
        overlap: Of two boxes of a label that overlap by more than this intersection over union, the one with the
            lower score is left out; ``None`` leaves none out, where the module did that.
        most: An answer has at most so many boxes, and so has a target.
        risk: Largest share of wrong boxes wanted among answers that nobody reviews: those that are no object of
            their label at an intersection over union of 0.5. Each image counts as much as any other. Of objects
            that were missed nothing is promised.
        delta: Probability with which that guarantee may fail.
        temperature: What logits are divided by; packing computes it.
        review_threshold: A box with a score below it sends its image to review. Packing computes it from ``risk``
            unless you give your own; above 1 every image with a box goes to review.

    Raises:
        ValueError: If these contradict each other.

    Example:
        >>> Boxes(labels=["circle", "square"], candidates=100).width
        600
    """

    measure: ClassVar[str] = "set of boxes"
    form: ClassVar[str] = "boxes"
    all_reviewed: ClassVar[str] = "every image with a box goes to review"
    some_reviewed: ClassVar[str] = "images with a box below {} go to review"
    panel: ClassVar[str] = "boxes"

    labels: list[str]
    candidates: int
    background: Literal["first", "last"] | None = None
    least: float = 0.3
    overlap: float | None = 0.5
    most: int = 100
    risk: float = 0.02
    delta: float = 0.05
    temperature: float = 1.0
    review_threshold: float | None = None

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ValueError("boxes need labels, each of them once")
        if min(self.candidates, self.most) < 1:
            raise ValueError("there must be one candidate and one box at least")
        if not 0 < self.least <= 1:
            raise ValueError(f"least={self.least} is no score: it must be above 0 and not above 1")
        if self.overlap is not None and not 0 <= self.overlap <= 1:
            raise ValueError(f"overlap={self.overlap} is no intersection over union, which is from 0 to 1")

    # What a module gives, and what becomes of it

    @property
    def parts(self) -> Parts:
        """Boxes and logits of all candidates."""
        return {"boxes": Part((self.candidates, 4)), "logits": Part((self.candidates, self._classes))}

    @property
    def needs(self) -> str:
        """What a module has to return, in words."""
        more = "" if self.background is None else f", the {self.background} column for the background"
        return (
            f"{self.candidates} candidates need boxes of shape (rows, {self.candidates}, 4), edges from 0 to 1, "
            f"and logits of shape (rows, {self.candidates}, {self._classes}){more}"
        )

    @property
    def last_step(self) -> Sequence[Step]:
        """Sigmoid or softmax of the logits, after the division by the temperature."""
        return [
            Step(self.candidates * 4),
            Step(
                self.candidates * self._classes,
                scale=1 / self.temperature,
                then=self._then,
                classes=1 if self.background is None else self._classes,
            ),
        ]

    @property
    def _classes(self) -> int:
        return len(self.labels) + (self.background is not None)

    @property
    def _then(self) -> Literal["sigmoid", "softmax"]:
        return "sigmoid" if self.background is None else "softmax"

    @property
    def first_label(self) -> int:
        """The column of the first label."""
        return int(self.background == "first")

    def apart(self, columns: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Takes outputs or scores apart: edges, and logits or scores of the labels and the background."""
        boxes, others = np.split(columns, [self.candidates * 4], axis=1)
        rows = len(columns)
        return boxes.reshape(rows, -1, 4), others.reshape(rows, -1, self._classes)

    def _of_labels(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return scores[..., self.first_label : self.first_label + len(self.labels)]

    def detect(self, scores: Scores, least: float | None = None) -> Detected:
        """Makes boxes of scores.

        Args:
            scores: Shape ``(rows, outputs)``.
            least: The lowest score that is taken; the head's own unless it is given.
        """
        boxes, of_classes = self.apart(scores)
        lowest = self.least if least is None else least
        return detect(boxes, self._of_labels(of_classes), lowest, self.overlap, self.most)

    def check_inputs(self, fields: Mapping[str, Any]) -> None:
        """Refuses several images, and one that the module sees another part of."""
        images = [name for name, field in fields.items() if field.is_image]
        if len(images) > 1:
            raise BundleError(
                f"boxes lie in one image, and there are {', '.join(images)}: put them side by side in one, or "
                "pack a model for each"
            )
        for name in images:
            if fields[name].moves:
                raise BundleError(
                    f"boxes are said in parts of the image as it was sent, and those of {name} would not be: "
                    f"{fields[name].moves}"
                )

    # Targets

    def check_targets(self, targets: NDArray[Any]) -> None:
        """Refuses targets that are not what ``box_targets`` makes, shape ``(rows, most, 5)``."""
        check_box_targets(targets, self.labels, self.most)

    def targets(self, truths: Sequence[Truth]) -> NDArray[Any]:
        """Returns the boxes, ``float64`` of shape ``(rows, most, 5)``."""
        return box_targets([[(box.label, box.box) for box in truth.boxes or []] for truth in truths], self)

    # Calibration

    def calibrated(
        self, outputs: NDArray[np.float32], targets: NDArray[Any]
    ) -> tuple[Self, ReviewEvidence | None]:
        """Fits the temperature on a third of the rows, and picks the threshold on the others."""
        head, evidence = calibrate(self, outputs, targets)
        return cast("Self", head), evidence

    # Comparing

    def distances(self, expected: Scores, got: Scores) -> NDArray[np.float64]:
        """Returns the largest difference of a score, or of an edge of a box whose score reaches the least."""
        (boxes, ours), (other_boxes, theirs) = self.apart(expected), self.apart(got)
        with np.errstate(invalid="ignore"):
            by_score = np.abs(ours.astype(np.float64) - theirs).max((1, 2))
            edges = np.abs(boxes.astype(np.float64).clip(0, 1) - other_boxes.clip(0, 1))
        best = np.maximum(self._of_labels(ours).max(-1), self._of_labels(theirs).max(-1))
        by_edge = np.where((best >= self.least)[..., None], edges, 0).max((1, 2))
        is_number = np.isfinite(expected).all(1) & np.isfinite(got).all(1)
        return np.asarray(np.where(is_number, np.maximum(by_score, by_edge), np.inf))

    def flipped(self, expected: Scores, got: Scores) -> Flags:
        """Which rows get another set of boxes: more or less, another label, or an overlap below 0.5.

        A set that turns on less than single precision vouches for is no other one.
        """
        ours, theirs = self.detect(expected), self.detect(got)
        other = [loss(*ours.row(row), *theirs.row(row)) > 0 for row in range(len(expected))]
        return np.asarray(np.array(other, bool) & (self.distances(expected, got) > TIE))

    def needs_review(self, scores: Scores) -> Flags:
        """Which rows have a box below the threshold."""
        found = self.detect(scores)
        return np.asarray((found.number > 0) & (found.lowest < self.review_limit))

    def sureness(self, scores: Scores) -> NDArray[np.float32]:
        """How far the candidate that is the nearest to being answered, or to not being answered, is from that."""
        best = self._of_labels(self.apart(scores)[1]).max(-1)
        return np.asarray(np.abs(best - self.least).min(1), np.float32)

    def losses(self, scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
        """1 less the F1 of the boxes found and the true ones, at an intersection over union of 0.5."""
        found = self.detect(scores)
        return np.array(
            [loss(*found.row(row), *true_boxes(target)) for row, target in enumerate(targets)], np.float64
        )

    def answer_losses(self, answers: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
        """1 less the F1."""
        pairs = zip(answers, targets, strict=True)
        return np.array([loss(*true_boxes(answer), *true_boxes(target)) for answer, target in pairs], np.float64)

    def in_words(self, scores: Scores) -> str:
        """Says what one row of scores, shape ``(outputs,)``, answers."""
        return self.says(self.answer(self.numbers(scores[None])[0].tolist())._asdict())

    # Mistakes

    def target_in_words(self, target: Any) -> str:
        """Says how many boxes of which labels one row has."""
        counts = Counter(self.labels[label] for label in true_boxes(target)[1])
        return ", ".join(f"{count} {label}" for label, count in counts.items()) or "no box"

    def confusions(self, scores: Scores, targets: NDArray[Any]) -> list[Confusion]:
        """Returns which boxes were missed, made up, or have another label or other edges."""
        found = self.detect(scores)
        rows = []
        for row, target in enumerate(targets):
            (true, labels), (edges, answers) = true_boxes(target), found.row(row)
            truths, said = ([self.labels[label] for label in each] for each in (labels, answers))
            rows.append(Places(truths, said, iou(true, edges)))
        return place_confusions(rows, "no box", "other edges", same=SAME)

    def suspects(self, scores: Scores, targets: NDArray[Any]) -> Suspects:
        """Finds images with boxes that are probably wrong, missing, or have another label."""
        found = self.detect(scores)
        edges, of_classes = self.apart(scores)
        of_labels = self._of_labels(of_classes)
        rows = []
        for row, target in enumerate(targets):
            true, labels = true_boxes(target)
            near = iou(true, edges[row]) >= SAME
            seen = [float(of_labels[row, near[at], label].max(initial=0.0)) for at, label in enumerate(labels)]
            right = {one for one, _ in match(*found.row(row), true, labels)}
            own = enumerate(found.scores[row, : int(found.number[row])].tolist())
            rows.append(
                PlacesOfRow(
                    list(zip(labels, seen, strict=True)), [score for one, score in own if one not in right]
                )
            )
        return wrong_places(rows)

    # In words and figures, for the author

    @property
    def summary(self) -> str:
        """What it answers with, in a sentence."""
        return f"Answers with at most {self.most} boxes of {len(self.labels)} labels: {', '.join(self.labels)}."

    @property
    def unit_of_scores(self) -> str:
        """What the largest difference of two scores is a difference of, in words."""
        return "a score, or of an edge in parts of the image"

    def measured(self, part: Evaluated) -> Measured:
        """Returns average precision, precision and recall, all at 0.5, and how far off scores are."""
        return measure(self, part)

    def report(self, figures: Mapping[str, float], review: ReviewEvidence | None) -> tuple[str, dict[str, str]]:
        """Says what the review threshold is worth, what an answer is here, and what is not promised."""
        facts = {"temperature": f"{self.temperature:.4f}"}
        if "calibration_error_before" in figures:
            facts["calibration error before scaling"] = f"{figures['calibration_error_before']:.4f}"
            facts["calibration error after scaling"] = f"{figures['calibration_error']:.4f}"
        worth = describe_threshold(self.review_limit, self.risk, self.delta, review)
        return (
            f"{worth} An answer is here one box of an image, any of them alike, and its confidence the lowest "
            "score in the image. Of objects that were missed, nothing is promised."
        ), facts

    # Labels

    @property
    def labels_used(self) -> Sequence[str]:
        """The labels of boxes."""
        return self.labels

    @property
    def signature(self) -> tuple[object, ...]:
        """The labels, in any order, and how many boxes an answer has at most."""
        return ("Boxes", self.most, *sorted(self.labels))

    def translation(self, public: Head, meanings: Mapping[str, str]) -> Translation | None:
        """Returns what puts the callers' labels in the place of the own ones."""
        known = list(public.labels_used)
        if known == self.labels:
            return None
        places = np.array([known.index(meanings.get(label, label)) for label in self.labels], np.float64)

        def translate(numbers: Numbers) -> Numbers:
            translated = numbers.copy()
            translated[:, 1::EACH] = places[numbers[:, 1::EACH].astype(int)]
            return translated

        return translate

    # Answering

    def numbers(self, scores: Scores) -> Numbers:
        """How many boxes there are; then for each the index of its label, its score and its edges."""
        found = self.detect(scores)
        each = np.concatenate([found.labels[..., None], found.scores[..., None], found.boxes], axis=-1)
        return np.asarray(np.column_stack([found.number, each.reshape(len(scores), -1)]).round(DIGITS))

    @property
    def columns(self) -> int:
        """The number of boxes, and six numbers for each."""
        return 1 + EACH * self.most

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        """Boxes."""
        return BoxesAnswer

    def answer(self, row: Row) -> Any:
        """Returns the boxes, best first."""
        ends = range(1 + EACH, 2 + EACH * int(row[0]), EACH)
        parts = (row[end - EACH : end] for end in ends)
        return BoxesAnswer(
            [FoundBox(label=self.labels[int(at)], score=score, box=list(edges)) for at, score, *edges in parts]
        )

    def explained(self, row: Row, label: str = "", head: str = "") -> Explained:
        """How sure the surest box is, or the surest with ``label``."""
        require_name("head", head, [""])
        found = self.answer(row).boxes
        asked = require_name("label", label or (found[0]["label"] if found else self.labels[0]), self.labels)
        return of_surest(
            f"the confidence of the surest box of {asked}",
            asked,
            lambda one: [(box["label"], box["score"]) for box in self.answer(one).boxes],
        )

    def confidences(self, numbers: Numbers) -> NDArray[np.float64] | None:
        """Returns the lowest score of each row; 1 without a box."""
        return np.asarray(np.where(self._is_there(numbers), numbers[:, 2::EACH], 1.0).min(1))

    def _is_there(self, numbers: Numbers) -> NDArray[np.bool_]:
        return np.asarray(np.arange(self.most) < numbers[:, :1])

    def features(self, numbers: Numbers) -> Features:
        """Returns how many boxes there are, the label and the size of the best one, and the lowest score."""
        is_there = numbers[:, 0] > 0
        label, (left, top, right, bottom) = numbers[:, 1], numbers[:, 3 : 1 + EACH].T
        return {
            "boxes": number(numbers[:, 0]),
            "label": Feature(np.where(is_there, label, np.nan), tuple(self.labels)),
            "area": number(np.where(is_there, (right - left) * (bottom - top), np.nan)),
            **self.confidence_feature(numbers),
        }

    def declared(self) -> dict[str, Declared]:
        """How many boxes there are, and labels, scores and edges; behind the last box, none and zeros."""
        return {
            "count": Declared("INT32"),
            "label": Declared("BYTES", (self.most,)),
            "score": Declared("FP32", (self.most,)),
            "box": Declared("FP32", (self.most, 4)),
        }

    def tensor(self, name: str, numbers: Numbers) -> NDArray[Any] | list[str]:
        """Returns counts, labels, scores or boxes."""
        if name == "count":
            return numbers[:, 0]
        if name == "score":
            return numbers[:, 2::EACH]
        each = numbers[:, 1:].reshape(len(numbers), self.most, EACH)
        if name == "box":
            return each[..., 2:]
        labels = np.array([*self.labels, ""], object)
        return np.asarray(labels[np.where(self._is_there(numbers), each[..., 0], -1).astype(int)])

    def agree(self, ours: Row, theirs: Row) -> bool:
        """Whether it is the same set of boxes, each overlapping by 0.5 or more."""
        return self.distance(ours, theirs) == 0

    def distance(self, ours: Row, theirs: Row) -> float:
        """Returns 1 less the F1 of one set of boxes as the answer to the other, from 0 to 1."""
        return loss(*boxes_of_row(ours), *boxes_of_row(theirs))

    # What people and callers say

    def form_faults(self, truth: Truth) -> Iterator[tuple[str, str]]:
        """Yields labels that are none, edges that are not in order or outside the image, and too many boxes."""
        yield from find_faults(truth, self.labels, self.most)

    def loss(self, answer: Mapping[str, Any], truth: Truth) -> float | None:
        """1 less the F1 of the boxes of the answer and the true ones."""
        found = answer["boxes"]
        return loss([each["box"] for each in found], [each["label"] for each in found], *boxes_said(truth))

    def accepted(self, answer: Mapping[str, Any]) -> Truth | None:
        """Returns the boxes without their scores."""
        return Truth(boxes=[Box(each["label"], tuple(each["box"])) for each in answer["boxes"]])

    def truth_distance(self, one: Truth, other: Truth) -> float:
        """1 less the F1 of both sets."""
        return loss(*boxes_said(one), *boxes_said(other))

    def uncertainty(self, answer: Mapping[str, Any]) -> float:
        """Returns what the lowest score lacks of 1; 0 without a box."""
        return float(max((1 - each["score"] for each in answer["boxes"]), default=0.0))

    def says(self, answer: Mapping[str, Any]) -> str:
        """Says how many boxes there are, and the first."""
        found = answer["boxes"]
        if not found:
            return "no box"
        named = [f"{each['label']} at {each['score']:.3g}" for each in found[:NAMED]]
        more = ", …" if len(found) > NAMED else ""
        return f"{len(found)} box{'es' if len(found) > 1 else ''}: {', '.join(named)}{more}"

    def labels_of(self, answer: Mapping[str, Any]) -> list[str]:
        """Returns the labels of its boxes, each once."""
        return list(dict.fromkeys(each["label"] for each in answer["boxes"]))

    # Label Studio

    def studio_result(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns a rectangle for each box, in percent of the image."""
        return [rectangle(each["label"], each["score"], each["box"]) for each in answer["boxes"]]

    def studio_truth(self, results: Sequence[Mapping[str, Any]]) -> Truth:
        """Returns the rectangles; an annotation without one says that there is nothing."""
        found = [read_rectangle(each) for each in results if "rectanglelabels" in each]
        if results and not found:
            raise ValueError("an annotation has something else than rectangles")
        return Truth(boxes=found)


def boxes_of_row(row: Row) -> tuple[NDArray[np.float64], list[int]]:
    """Returns the boxes in a row of numbers, shape ``(n, 4)``, and their labels."""
    each = np.asarray(row[1 : 1 + EACH * int(row[0])], np.float64).reshape(-1, EACH)
    return each[:, 2:], each[:, 0].astype(int).tolist()
