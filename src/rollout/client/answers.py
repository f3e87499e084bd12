"""What the service answers, typed. Of a newer service, what is not known here is kept in ``more``."""

from __future__ import annotations

import base64
import struct
from html import escape
from typing import Any, TypeVar

import msgspec

from rollout.client.problems import UnexpectedAnswerError, beginning

NO_ANSWER = (msgspec.DecodeError, KeyError, ValueError, TypeError, AttributeError, RecursionError)
ELEMENTS = {"float32": "f", "float16": "e"}  # of struct, by the dtype of a vector in base64


class Known(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, repr_omit_defaults=True):
    """What answers have in common.

    Attributes:
        more: Fields that this client does not know, as they came.
    """

    more: dict[str, Any] = {}


class Span(msgspec.Struct, frozen=True):
    """A stretch of a text.

    Attributes:
        start: Its first character, from 0.
        end: The character after its last.
        label: What it is.
        confidence: How sure that is.
    """

    start: int
    end: int
    label: str
    confidence: float | None = None


class Box(msgspec.Struct, frozen=True):
    """A rectangle in an image.

    Attributes:
        label: What is in it.
        box: Left, top, right and bottom edge, in parts of the width and height, from 0 to 1.
        score: How sure that is.
    """

    label: str
    box: tuple[float, float, float, float]
    score: float | None = None


class Answer(Known, frozen=True, kw_only=True):
    """What a head answers: the fields of its kind are set, all others are ``None``. See ``docs/heads.md``.

    Attributes:
        label: The likeliest class.
        confidence: Its score.
        labels: The labels that hold; of a classification, the set that has the true one.
        scores: By label.
        thresholds: From which score each label holds.
        value: The number, or the median.
        interval: What the number lies in.
        values: The number of each target.
        intervals: What each lies in.
        quantiles: The value of each level.
        score: A number by which rows are put in order.
        vector: An embedding; one in base64 is decoded.
        dtype: In which precision it came, where it was in base64.
        spans: Stretches of the text.
        boxes: Rectangles in the image, best first.
        tensors: Nested lists of numbers, by name.
        heads: The answer of each head, by name.
    """

    label: str | None = None
    confidence: float | None = None
    labels: list[str] | None = None
    scores: dict[str, float] | None = None
    thresholds: dict[str, float] | None = None
    value: float | None = None
    interval: tuple[float, float] | None = None
    values: dict[str, float] | None = None
    intervals: dict[str, tuple[float, float]] | None = None
    quantiles: dict[str, float] | None = None
    score: float | None = None
    vector: list[float] | None = None
    dtype: str | None = None
    spans: list[Span] | None = None
    boxes: list[Box] | None = None
    tensors: dict[str, Any] | None = None
    heads: dict[str, Answer] | None = None


class Prediction(Answer, frozen=True, kw_only=True):
    """The answer to one row, and who gave it.

    Attributes:
        model: The model.
        version: The version that answered.
        variant: The form of it that was run.
        arm: The client's arm: ``champion``, ``control`` or ``challenger``.
        revision: The revision of the split under which the client was assigned.
        client_id: Your own ID of the client.
        key: Your own ID of the prediction.
        fallback: Why the champion answered in the challenger's place, if it did.
        review: What became of its review item; ``None`` where nobody is asked.
    """

    model: str
    version: str
    variant: str
    arm: str
    revision: int
    client_id: str
    key: str | None = None
    fallback: str | None = None
    review: str | None = None


class Outcome(Answer, frozen=True, kw_only=True):
    """An outcome that was taken: what was true, in the form of an answer, and of which prediction.

    Attributes:
        model: The model.
        client_id: Your own ID of the client.
        key: Your own ID of the prediction.
        at: When it was first reported, ISO 8601 in UTC.
        repeated: Whether it had been reported before.
        joined: Whether its prediction is known; otherwise the outcome waits for it.
        arm: The client's arm when it was predicted.
        version: The version that answered.
        revision: Revision of the split then.
        numbers: Your own numbers.
    """

    model: str
    client_id: str
    key: str
    at: str
    repeated: bool
    joined: bool
    arm: str | None = None
    version: str | None = None
    revision: int | None = None
    numbers: dict[str, float] = {}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a question of a trial's policy: an interval, on one side of its limit or not."""

    question: str
    state: str
    limit: float
    detail: str = ""
    estimate: float | None = None
    low: float | None = None
    high: float | None = None


class Verdict(Known, frozen=True, kw_only=True):
    """What the evidence says about the challenger.

    Attributes:
        model: The model.
        revision: The revision of the split that it is about.
        verdict: ``promote``, ``hold`` or ``rollback``.
        reason: Why, as a word.
        detail: Why, in a sentence.
        waits_for: What a ``hold`` waits for.
        findings: What is known about each question of the policy.
        next_share: The share of the next stage, where nothing speaks against it.
        labels_wanted: Labels of disagreements that are still to be expected.
        evidence: Counts of each arm.
    """

    model: str
    revision: int
    verdict: str
    reason: str
    detail: str
    waits_for: str = ""
    findings: list[Finding] = []
    next_share: float | None = None
    labels_wanted: int | None = None
    evidence: dict[str, dict[str, int]] = {}

    def _repr_html_(self) -> str:
        rows = ((one.question, one.state, one.detail) for one in self.findings)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        head = "<tr><th>question</th><th>state</th><th>in words</th></tr>"
        table = f"<table>{head}{body}</table>" if body else ""
        return f"<p><b>{escape(self.model)}: {escape(self.verdict)}</b></p><p>{escape(self.detail)}</p>{table}"


class Model(Known, frozen=True, kw_only=True):
    """A model that is served.

    Attributes:
        model: Its name.
        inputs: The field of each input.
        task: What it answers with.
        versions: Those in memory.
        split: Who gets which: revision, champion, challenger, share.
    """

    model: str
    inputs: dict[str, Any]
    task: dict[str, Any]
    versions: list[dict[str, Any]]
    split: dict[str, Any]


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """What one part of an input does to the number that is explained.

    Attributes:
        field: The input.
        attribution: In the unit of the number.
        part: Where it is, in words.
        value: What is there, in words.
        box: Left, top, right and bottom, in pixels of the image that the model takes.
        span: Start and end in a text, in characters.
        seconds: Start and end of a slice of sound.
        steps: Start and end of numbers in nested lists.
    """

    field: str
    attribution: float
    part: str = ""
    value: str = ""
    box: tuple[int, int, int, int] | None = None
    span: tuple[int, int] | None = None
    seconds: tuple[float, float] | None = None
    steps: tuple[int, int] | None = None


class Explanation(Known, frozen=True, kw_only=True):
    """Why one prediction came out.

    Attributes:
        model: The model.
        version: The version that answers the client.
        variant: The form of it that was asked.
        client_id: Your own ID of the client.
        arm: The client's arm.
        explained: The number that is explained, in words.
        value: The number.
        attributions: One for each part of the inputs.
        label: The label that the number is of.
        head: The head that it is of.
        meaning: What this means, and what it does not.
    """

    model: str
    version: str
    variant: str
    client_id: str
    arm: str
    explained: str
    value: float
    attributions: list[Attribution]
    label: str = ""
    head: str = ""
    meaning: str = ""


KnownType = TypeVar("KnownType", bound=Known)


def read_answer(body: bytes, kind: type[KnownType]) -> KnownType:
    """Returns an answer that stands alone.

    Raises:
        UnexpectedAnswerError: If it is none of this kind.
    """
    try:
        return _read(msgspec.json.decode(body), kind)
    except NO_ANSWER:
        raise unexpected(body) from None


def read_answers(body: bytes, name: str, kind: type[KnownType]) -> list[KnownType]:
    """Returns the answers under a name, in their order.

    Raises:
        UnexpectedAnswerError: If they are not of this kind.
    """
    try:
        return [_read(one, kind) for one in msgspec.json.decode(body)[name]]
    except NO_ANSWER:
        raise unexpected(body) from None


def unexpected(body: bytes) -> UnexpectedAnswerError:
    """Returns the error of an answer that is not what it should be."""
    return UnexpectedAnswerError(200, beginning(body))


def _read(found: Any, kind: type[KnownType]) -> KnownType:
    if not isinstance(found, dict):
        raise TypeError("an answer is an object")
    names = kind.__struct_fields__
    known = {name: value for name, value in found.items() if name in names and name != "more"}
    more = {name: value for name, value in found.items() if name not in known}
    if isinstance(known.get("vector"), str):
        known["vector"] = _numbers(known["vector"], known["dtype"])
    heads = known.pop("heads", None)
    answer = msgspec.convert(known | {"more": more}, kind)
    if heads is None:
        return answer
    return msgspec.structs.replace(answer, heads={name: _read(one, Answer) for name, one in heads.items()})


def _numbers(encoded: str, dtype: str) -> list[float]:
    if dtype not in ELEMENTS:
        raise ValueError(f"a vector of {dtype}")
    data = base64.b64decode(encoded, validate=True)
    element = ELEMENTS[dtype]
    try:
        return list(struct.unpack(f"<{len(data) // struct.calcsize(element)}{element}", data))
    except struct.error as error:
        raise ValueError(str(error)) from None
