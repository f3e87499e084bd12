"""Stretches of a text with labels: names, places, the parts of an address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError
from rollout.heads import character_tags as characters
from rollout.heads import spans, token_calibration
from rollout.heads.confusion import Confusion, place_confusions
from rollout.heads.doubts import Suspects, wrong_tags
from rollout.heads.explained import Explained, of_surest, require_name
from rollout.heads.head import DIGITS, Declared, Flags, Head, Numbers, Row, Scores, Translation
from rollout.heads.measured import Evaluated, Measured
from rollout.heads.one_threshold import OneThreshold
from rollout.heads.parts import Part
from rollout.heads.review_evidence import ReviewEvidence, describe_threshold
from rollout.heads.steps import Step
from rollout.heads.truth import Span, Truth
from rollout.judge.features import Features, number

NAMED = 3  # spans that a sentence names


class FoundSpan(TypedDict):
    """A stretch of the text, its label, and how sure that is.

    ``start`` and ``end`` count characters (Unicode code points) of the text as it was sent, from 0; ``end`` is
    the first character after it. The confidence is that of the least sure of its characters and of the two next
    to it.
    """

    start: int
    end: int
    label: str
    confidence: float


class SpansAnswer(NamedTuple):
    """The spans that were found, in the order of the text."""

    spans: list[FoundSpan]


class TokenLabels(msgspec.Struct, OneThreshold, frozen=True, kw_only=True, tag="token-labels", tag_field="kind"):
    """Spans with labels over a text. No two have a character in common.

    The module returns two tensors, as a tuple or by name: ``logits`` of shape ``(rows, positions, tags)``, and
    ``text``, the bytes of the field as it got them, ``(rows, positions)``. From these follows where the text ends
    and which bytes are one character: what is said of bytes behind the text does not count, and the first byte of
    a character speaks for it.

    Tags are, in the scheme ``IO``, outside and each label; in ``BIO``, outside, and for each label that it begins
    and that it goes on; see ``tags``.

    Attributes:
        labels: What a span may be, in the order of the logits.
        positions: ``max_bytes`` of the field.
        field: The ``Text`` field that it is about.
        scheme: What tags say. In ``IO``, neighbours of one label are one span.
        risk: Largest share of wrong spans wanted in texts that nobody reviews; texts count alike.
        delta: Probability with which that guarantee may fail.
        temperature: What logits are divided by before the softmax; packing computes it.
        review_threshold: A text of which a span is less sure goes to review. Packing computes it from ``risk``
            unless you give your own; above 1 every text with a span goes there. It knows nothing of spans that
            were not found: audits do, see ``ReviewPolicy``.

    Example:
        >>> TokenLabels(labels=["person", "place"], positions=64, scheme="BIO").tags
        ['O', 'B-person', 'I-person', 'B-place', 'I-place']
    """

    activation: ClassVar[str] = "softmax"
    metric: ClassVar[str] = "span loss"
    measure: ClassVar[str] = "set of spans"
    form: ClassVar[str] = "spans"
    all_reviewed: ClassVar[str] = "every text in which a span is found goes to review"
    some_reviewed: ClassVar[str] = "texts with a span below {} go to review"
    panel: ClassVar[str] = "spans"

    labels: list[str]
    positions: int
    field: str = "text"
    scheme: spans.Scheme = "IO"
    risk: float = 0.05
    delta: float = 0.05
    temperature: float = 1.0
    review_threshold: float | None = None

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels) or not all(self.labels):
            raise ValueError("labels must be different texts, at least one, and none empty")
        if self.positions < 1:
            raise ValueError("positions must be the max_bytes of the field, at least 1")

    @property
    def tags(self) -> list[str]:
        """The tags, in the order of the logits."""
        return spans.tag_names(self.labels, self.scheme)

    @property
    def parts(self) -> Mapping[str, Part]:
        """Logits of each tag for each byte, and the bytes."""
        return {
            "logits": Part((self.positions, len(self.tags))),
            "text": Part((self.positions,), takes_integers=True),
        }

    @property
    def needs(self) -> str:
        """What a module has to return, in words."""
        return (
            f"{len(self.labels)} labels need logits of shape (rows, {self.positions}, {len(self.tags)}) and the "
            f"text as the module got it, (rows, {self.positions})"
        )

    @property
    def last_step(self) -> Sequence[Step]:
        """Softmax for each byte, after the division by the temperature; the text stays as it is."""
        classes = len(self.tags)
        softmax = Step(self._logits, scale=1 / self.temperature, then="softmax", classes=classes)
        return [softmax, Step(self.positions)]

    def check_inputs(self, fields: Mapping[str, Any]) -> None:
        """Refuses inputs without the text, or with one of another width.

        Raises:
            BundleError: If so.
        """
        field = fields.get(self.field)
        if getattr(field, "max_bytes", None) != self.positions:
            raise BundleError(
                f"spans of {self.field!r} with {self.positions} positions need an input {self.field!r} that is "
                f"Text(max_bytes={self.positions}), not {field}"
            )

    # Targets

    def check_targets(self, targets: NDArray[Any]) -> None:
        """Refuses targets that are not tags of characters, indexes of ``tags`` of shape ``(rows, positions)``."""
        is_index = targets.shape[1:] == (self.positions,) and np.issubdtype(targets.dtype, np.integer)
        if not is_index or not ((targets >= 0) & (targets < len(self.tags))).all():
            raise BundleError(
                f"targets must be whole numbers from 0 to {len(self.tags) - 1}, shape (rows, {self.positions}): "
                "the tag of each character, 0 for outside and behind the text"
            )

    def targets(self, truths: Sequence[Truth]) -> NDArray[Any]:
        """Returns the tag of each character, ``int64`` of shape ``(rows, positions)``.

        A module is trained towards tags of bytes: ``tags_of_bytes`` makes those.
        """
        index = {tag: number for number, tag in enumerate(self.tags)}
        targets = np.zeros((len(truths), self.positions), np.int64)
        for row, each in enumerate(truths):
            for span in each.spans or []:
                inside = index[span.label if self.scheme == "IO" else f"I-{span.label}"]
                targets[row, span.start : span.end] = inside
                if self.scheme == "BIO":
                    targets[row, span.start] = inside - 1
        return targets

    def tags_of_bytes(self, targets: NDArray[Any], text: NDArray[Any]) -> NDArray[np.int64]:
        """Returns the tags of the bytes of texts, which a module is trained towards.

        They are -100, which PyTorch's ``cross_entropy`` passes over, behind the text and at all bytes of a
        character but its first.

        Args:
            targets: Tags of characters, shape ``(rows, positions)``.
            text: The bytes, ``uint8`` of the same shape.
        """
        where = characters.places(text)
        found = np.full(targets.shape, -100, np.int64)
        found[where.rows, where.byte] = targets[where.rows, where.number]
        return found

    # Calibration

    def calibrated(
        self, outputs: NDArray[np.float32], targets: NDArray[Any]
    ) -> tuple[Self, ReviewEvidence | None]:
        """Fits the temperature on a third of the texts, and picks the threshold on the others.

        Spans of one text are not independent of each other, so one is drawn of each; a text is as sure as its
        least sure span, as in review. Then among the texts that go out without review, those without a span left
        aside, a span drawn from a text is wrong with a probability of at most ``risk``.

        Raises:
            BundleError: If the module does not return the text, targets lie behind it, the threshold is none, or
                next to no span is found.
        """
        temperature, threshold, evidence = token_calibration.calibrate(self, outputs, targets)
        return msgspec.structs.replace(self, temperature=temperature, review_threshold=threshold), evidence

    # Comparing

    def distances(self, expected: Scores, got: Scores) -> NDArray[np.float64]:
        """Returns the largest difference of probabilities that count; infinite where the text is another."""
        where = characters.places(expected[:, -self.positions :])
        counts = np.zeros((len(expected), self.positions), bool)
        counts[where.rows, where.byte] = True
        with np.errstate(invalid="ignore"):
            far = np.abs(self._chances(expected).astype(np.float64) - self._chances(got)).max(-1, initial=0.0)
        far = np.where(counts, np.nan_to_num(far, nan=np.inf), 0.0).max(-1, initial=0.0)
        is_same = (expected[:, -self.positions :] == got[:, -self.positions :]).all(-1)
        return np.asarray(np.where(is_same, far, np.inf))

    def flipped(self, expected: Scores, got: Scores) -> Flags:
        """Which rows get other spans."""
        return np.asarray((self._codes(expected) != self._codes(got)).any(-1))

    def needs_review(self, scores: Scores) -> Flags:
        """Which rows have a span that is less sure than the threshold."""
        return np.asarray(self.sureness(scores) < self.review_limit) & (self._codes(scores) > 0).any(-1)

    def sureness(self, scores: Scores) -> NDArray[np.float32]:
        """How sure each row is: its least sure span; 1 where there is none."""
        found, confidence = self.found(scores)
        least = np.ones(len(scores), np.float32)
        np.minimum.at(least, found.rows, confidence)
        return least

    def losses(self, scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
        """1 less the F1 of the spans; right are those of which start, end and label are."""
        return self._losses(self._codes(scores), self.codes_of(targets))

    def answer_losses(self, answers: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
        """The same of tags of characters."""
        return self._losses(self.codes_of(answers), self.codes_of(targets))

    def in_words(self, scores: Scores) -> str:
        """Says what one row of scores, shape ``(outputs,)``, answers."""
        return self.says(self.answer(self.numbers(scores[None])[0].tolist())._asdict())

    # Mistakes

    def target_in_words(self, target: Any) -> str:
        """Says the spans of one row."""
        return self.says({"spans": [span._asdict() for span in self._of_rows(np.asarray(target)[None])[0]]})

    def confusions(self, scores: Scores, targets: NDArray[Any]) -> list[Confusion]:
        """Returns which spans were missed, made up, or have another label or other ends."""
        pairs = zip(self._of_rows(targets), characters.spans_of(self._codes(scores), self.labels), strict=True)
        return place_confusions((spans.places(*pair) for pair in pairs), "no span", "other ends", same=1.0)

    def suspects(self, scores: Scores, targets: NDArray[Any]) -> Suspects:
        """Finds texts with spans that are probably wrong: other ones than the answer has."""
        where = characters.places(scores[:, -self.positions :])
        chances, tags = self._chances(scores)[where.rows, where.byte], targets[where.rows, where.number]
        found = wrong_tags(chances, tags, where.rows)
        differ = self.losses(scores[found.rows], targets[found.rows]) > 0
        return Suspects(found.rows[differ], found.quality[differ])

    # In words and figures, for the author

    @property
    def summary(self) -> str:
        """What it answers with, in a sentence."""
        return f"Answers with spans of {self.field}, labelled {', '.join(self.labels)}."

    @property
    def unit_of_scores(self) -> str:
        """What the largest difference of two scores is a difference of, in words."""
        return "a score"

    def measured(self, part: Evaluated) -> Measured:
        """Returns precision, recall and F1 of spans, the share of right tags, and how far off confidence is."""
        return token_calibration.measure(self, part)

    def report(self, figures: Mapping[str, float], review: ReviewEvidence | None) -> tuple[str, dict[str, str]]:
        """Says what the review threshold is worth, and where all goes to review, what it would take."""
        names = ("span_precision", "span_recall", "span_f1", "tag_accuracy", "calibration_error")
        facts = {"temperature": f"{self.temperature:.4f}"}
        facts |= {name.replace("_", " "): f"{figures[name]:.4f}" for name in names if name in figures}
        said = describe_threshold(self.review_limit, self.risk, self.delta, review)
        return f"{said} An answer is a span drawn from a text; its text is as sure as its least sure span.", facts

    # Labels

    @property
    def labels_used(self) -> Sequence[str]:
        """The labels of spans."""
        return self.labels

    @property
    def signature(self) -> tuple[object, ...]:
        """The labels, in any order, and the field."""
        return ("TokenLabels", self.field, self.positions, *sorted(self.labels))

    def translation(self, public: Head, meanings: Mapping[str, str]) -> Translation | None:
        """Returns what gives spans the labels of ``public``; where they begin and end stays."""
        known = list(public.labels_used)
        if known == self.labels:
            return None
        codes = np.zeros(2 * len(self.labels) + 1)
        for own, label in enumerate(self.labels):
            place = known.index(meanings.get(label, label))
            codes[2 * own + 1 : 2 * own + 3] = 2 * place + 1, 2 * place + 2

        def translate(numbers: Numbers) -> Numbers:
            own = np.nan_to_num(numbers[:, : self.positions]).astype(int)
            return np.concatenate([codes[own], numbers[:, self.positions :]], axis=1)

        return translate

    # Answering

    def numbers(self, scores: Scores) -> Numbers:
        """The code of each character, see ``character_tags``, and how sure the span is that begins there."""
        found, confidence = self.found(scores)
        numbers = np.zeros((len(scores), self.columns))
        numbers[:, : self.positions] = self._codes(scores)
        numbers[found.rows, self.positions + found.start] = confidence.round(DIGITS)
        return numbers

    @property
    def columns(self) -> int:
        """A code and a confidence for each character."""
        return 2 * self.positions

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        """Spans."""
        return SpansAnswer

    def answer(self, row: Row) -> Any:
        """Returns the spans, in the order of the text."""
        found = characters.bounds(np.array(row[: self.positions]).astype(np.int64)[None])
        return SpansAnswer(
            [
                {"start": start, "end": end, "label": self.labels[label - 1], "confidence": row[at]}
                for start, end, label, at in zip(
                    found.start.tolist(),
                    found.end.tolist(),
                    found.label.tolist(),
                    (self.positions + found.start).tolist(),
                    strict=True,
                )
            ]
        )

    def explained(self, row: Row, label: str = "", head: str = "") -> Explained:
        """How sure the surest span is, or the surest with ``label``."""
        require_name("head", head, [""])
        found = max(self.answer(row).spans, key=lambda span: span["confidence"], default=None)
        asked = require_name("label", label or (found["label"] if found else self.labels[0]), self.labels)
        return of_surest(
            f"the confidence of the surest span of {asked}",
            asked,
            lambda one: [(span["label"], span["confidence"]) for span in self.answer(one).spans],
        )

    def confidences(self, numbers: Numbers) -> NDArray[np.float64] | None:
        """Returns the confidence of the least sure span of each row; 1 where there is none."""
        begins = numbers[:, : self.positions] % 2 == 1
        return np.asarray(np.where(begins, numbers[:, self.positions : self.columns], 1.0).min(-1, initial=1.0))

    def features(self, numbers: Numbers) -> Features:
        """Returns how many spans there are, how many characters lie in them, and the confidence."""
        codes = numbers[:, : self.positions]
        is_known = ~np.isnan(codes).any(1)
        found = {"spans": (codes % 2 == 1).sum(1), "characters": (codes > 0).sum(1)}
        counted = {name: number(np.where(is_known, count, np.nan)) for name, count in found.items()}
        return counted | self.confidence_feature(numbers)

    def declared(self) -> dict[str, Declared]:
        """The spans of each row as JSON, since rows differ in how many they have."""
        return {"spans": Declared("BYTES")}

    def tensor(self, name: str, numbers: Numbers) -> NDArray[Any] | list[str]:
        """Returns the spans of each row, a list in JSON as in the prediction."""
        return [msgspec.json.encode(self.answer(row).spans).decode() for row in numbers.tolist()]

    def agree(self, ours: Row, theirs: Row) -> bool:
        """Whether they are the same spans."""
        return ours[: self.positions] == theirs[: self.positions]

    def distance(self, ours: Row, theirs: Row) -> float:
        """Returns 1 less the F1 of one row's spans as the answer to the other's."""
        return spans.loss(*(_spans(self.answer(row)._asdict()) for row in (ours, theirs)))

    # What people and callers say

    def form_faults(self, truth: Truth) -> Iterator[tuple[str, str]]:
        """Yields spans with another label, without a character, outside of any text, or one over the other.

        How long the text was is not known here: a span behind its end is in nothing.
        """
        for position, detail in spans.find_faults(_said(truth), self.positions, self.labels):
            yield f"/spans/{position}", detail.replace("the text, which has", "any text, which has at most")

    def loss(self, answer: Mapping[str, Any], truth: Truth) -> float | None:
        """1 less the F1 of the spans."""
        return spans.loss(_spans(answer), _said(truth))

    def accepted(self, answer: Mapping[str, Any]) -> Truth | None:
        """Returns the spans."""
        return Truth(spans=[Span(*span) for span in _spans(answer)])

    def truth_distance(self, one: Truth, other: Truth) -> float:
        """Returns 1 less the F1 of what one says as the answer to what the other says."""
        return spans.loss(_said(one), _said(other))

    def uncertainty(self, answer: Mapping[str, Any]) -> float:
        """Returns what the least sure span lacks of 1; nothing where there is none."""
        return 1 - min((span["confidence"] for span in answer["spans"]), default=1.0)

    def says(self, answer: Mapping[str, Any]) -> str:
        """Says the first spans and how many more there are."""
        found = [f"{span['label']} {span['start']}–{span['end']}" for span in answer["spans"]]
        more = [f"{len(found) - NAMED} more"] if len(found) > NAMED else []
        return ", ".join(found[:NAMED] + more) or "no span"

    def labels_of(self, answer: Mapping[str, Any]) -> list[str]:
        """Returns the labels of the spans, each once."""
        return list(dict.fromkeys(span["label"] for span in answer["spans"]))

    # Label Studio

    def studio_result(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns a region for each span; Label Studio counts code points, too."""
        return [
            {
                "type": "labels",
                "value": {"start": span["start"], "end": span["end"], "labels": [span["label"]]},
                "score": span["confidence"],
            }
            for span in answer["spans"]
        ]

    def studio_truth(self, results: Sequence[Mapping[str, Any]]) -> Truth:
        """Returns the regions with labels; an annotation without any says that there is no span."""
        found = []
        for each in results:
            labels, start, end = each.get("labels"), each.get("start"), each.get("end")
            if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
                raise ValueError("a region of a text has one label")
            if type(start) is not int or type(end) is not int:
                raise ValueError("a region of a text has a start and an end, whole numbers of characters")
            found.append(Span(start, end, labels[0]))
        return Truth(spans=found)

    # What the arrays hold

    @property
    def _logits(self) -> int:
        return self.positions * len(self.tags)

    def _chances(self, scores: Scores) -> Scores:
        return scores[:, : self._logits].reshape(len(scores), self.positions, len(self.tags))

    def codes_of(self, tags: NDArray[Any]) -> NDArray[np.int64]:
        """Makes codes of tags of characters; see ``character_tags``."""
        return characters.codes_of(tags, self.scheme)

    def _codes(self, scores: Scores) -> NDArray[np.int64]:
        where = characters.places(scores[:, -self.positions :])
        return self.codes_of(characters.by_character(self._chances(scores).argmax(-1), where, 0))

    def found(self, scores: Scores) -> tuple[characters.Bounds, NDArray[np.float64]]:
        """Returns the spans of all rows, and how sure each is."""
        where = characters.places(scores[:, -self.positions :])
        chances = self._chances(scores)
        sure = characters.by_character(chances.max(-1).astype(np.float64), where, 1.0)
        tags = characters.by_character(chances.argmax(-1), where, 0)
        found = characters.bounds(self.codes_of(tags))
        return found, characters.least_around(sure, found)

    def _of_rows(self, tags: NDArray[Any]) -> list[list[spans.Span]]:
        return characters.spans_of(self.codes_of(tags), self.labels)

    def _losses(self, codes: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.float64]:
        found = characters.bounds(codes), characters.bounds(wanted)
        return characters.losses(*found, len(codes), self.positions)


def _spans(answer: Mapping[str, Any]) -> list[spans.Span]:
    return [spans.Span(span["start"], span["end"], span["label"]) for span in answer["spans"]]


def _said(truth: Truth) -> list[spans.Span]:
    return [spans.Span(span.start, span.end, span.label) for span in truth.spans or []]
