"""The reference: the author's own way from a raw input to what the module answers, which a bundle is held to."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from rollout.bundle.evidence import ReferenceResult
from rollout.bundle.golden import Golden
from rollout.bundle.module import first_line
from rollout.bundle.parity import decided_otherwise, run_in_batches
from rollout.bundle.raw_examples import RawExample, choose_rows, hash_array
from rollout.bundle.schema import Arrays, InputSchema, InvalidInputsError, RawInputs
from rollout.bundle.source import Source
from rollout.bundle.stages import Answer, Ways, compare_stages, worst_rows
from rollout.bundle.why_different import explain
from rollout.errors import BundleError

RawRow = Mapping[str, Any]

# So many rows are asked for twice: what is drawn at random in training has no place here.
ASKED_AGAIN = 3


class Answered(NamedTuple):
    """What the author's own pipeline makes of one raw row.

    Attributes:
        outputs: What the module gives for it: logits, or the value, or the value and its spread.
        stages: Arrays on the way there, by the name of a field, for what the module was given, or of a layer of
            the module, such as ``features.0``, for what that gave.
        label: The answer of a classification in words, as the author's own code has it: it says whether the
            labels of the task are in the order of the logits.
    """

    outputs: Any
    stages: Mapping[str, Any] = {}
    label: str | None = None


class Reference(NamedTuple):
    """Raw inputs, and the author's own way from there to an answer: the very pipeline of training.

    Attributes:
        rows: Raw inputs, by the name of a field what a caller has in hand: the bytes of a file, a string, a
            number, a time, nested lists or an array, ``None`` where nothing is known.
        answer: Takes one of them and returns what the module gives for it, or ``Answered`` with the arrays on the
            way; arrays and tensors of any kind do.
        most_flipped: Largest share of rows that the bundle may decide otherwise.
        tolerance: Largest difference of a score, in standard deviations of the targets for a regression.

    Example:
        >>> def answer(raw):
        ...     return Answered(outputs=[0.5, 2.0], stages={"speed": raw["speed"]})
        >>> Reference(rows=[{"speed": 3.5}], answer=answer).most_flipped
        0.0
    """

    rows: Sequence[RawRow]
    answer: Callable[[RawRow], Any]
    most_flipped: float = 0.0
    tolerance: float = 1e-3


class Compared(NamedTuple):
    """A bundle compared with a reference.

    Attributes:
        result: What was found.
        probe: The rows that the service takes, decoded from their wire form, and the reference's scores of them.
        examples: Those of them that travel with the bundle.
        pictures: Of the worst rows, by file name: PNG.
    """

    result: ReferenceResult
    probe: Golden
    examples: list[RawExample]
    pictures: dict[str, bytes]


class NotAsInTrainingError(BundleError):
    """A bundle does not decide as the author's own pipeline does.

    Attributes:
        compared: What was found.
    """

    def __init__(self, detail: str, compared: Compared) -> None:
        super().__init__(detail)
        self.compared = compared


def compare_reference(reference: Reference, schema: InputSchema, source: Source, tag: str) -> Compared:
    """Sends raw rows through wire form, codec and module, and compares what comes out with the author's answers.

    Args:
        reference: The raw rows, and the author's own way.
        schema: The fields.
        source: The module with its last step, its task calibrated.
        tag: What the bundle is called.

    Raises:
        NotAsInTrainingError: If more rows are decided otherwise than may be, or a score is too far off.
        BundleError: If the reference itself fails, or is no reference for this module.
    """
    by, task = _name(reference.answer), source.task
    if not reference.rows:
        raise BundleError(
            "the reference has no rows; give some raw inputs, those that are hard to read among them"
        )
    answers = [_ask(reference, by, number) for number in range(len(reference.rows))]
    sent = [_send(row, number) for number, row in enumerate(reference.rows)]
    decoded: dict[int, Arrays] = {}
    refused: dict[int, str] = {}
    for number, raw in enumerate(sent):
        try:
            decoded[number] = schema.decode(raw)
        except InvalidInputsError as error:
            refused[number] = str(error)
    ways = _follow(
        schema, source, by, decoded, [sent[each] for each in decoded], [answers[each] for each in decoded]
    )
    _require_labels(ways, by)
    flipped = decided_otherwise(task, ways.expected, ways.scores)
    largest = float(task.distances(ways.expected, ways.scores).max(initial=0.0))
    stages = compare_stages(ways) if decoded else []
    worst, pictures = worst_rows(ways, refused)
    kept = choose_rows(task, schema, ways.sent, ways.expected, flipped) if decoded else []
    result = ReferenceResult(
        by=by,
        rows=len(sent),
        kept=len(kept),
        refused=len(refused),
        flipped=int(flipped.sum()) + len(refused),
        most_flipped=reference.most_flipped,
        largest_difference=largest,
        tolerance=reference.tolerance,
        stages=stages,
        worst=worst,
    )
    examples = [
        RawExample(
            row=ways.numbers[row],
            inputs=ways.sent[row],
            scores=ways.expected[row].tolist(),
            decoded={name: hash_array(array[row]) for name, array in ways.ours.items()},
        )
        for row in kept
    ]
    compared = Compared(result, Golden(ways.ours, ways.expected), examples, pictures)
    if why := _fault(result):
        raise NotAsInTrainingError(f"{tag} is refused: {why}: {explain(ways, refused, stages)}", compared)
    return compared


def _fault(result: ReferenceResult) -> str:
    if result.refused == result.rows:
        return "the service would refuse every raw row of the reference"
    if result.flipped > result.most_flipped * result.rows:
        return (
            f"{result.flipped} of {result.rows} raw rows are decided otherwise than by the author's own pipeline "
            f"({result.by}), and {result.most_flipped:.2%} may be"
        )
    if not result.largest_difference <= result.tolerance:
        return (
            f"a score is {result.largest_difference:.2g} from that of the author's own pipeline ({result.by}), "
            f"and {result.tolerance:g} may be"
        )
    return ""


def _name(answer: Callable[..., Any]) -> str:
    name = getattr(answer, "__qualname__", type(answer).__qualname__)
    return f"{getattr(answer, '__module__', None) or type(answer).__module__}.{name}"


def _ask(reference: Reference, by: str, number: int) -> Answer:
    """Returns what the author's own pipeline makes of a row, in arrays."""
    row = reference.rows[number]
    if not isinstance(row, Mapping):
        raise BundleError(f"raw row {number} of the reference is a {type(row).__name__}, not a dict by field")
    answers = []
    for _ in range(2 if number < ASKED_AGAIN else 1):
        try:
            with torch.no_grad():
                answered = reference.answer(row)
            if not isinstance(answered, Answered):
                answered = Answered(answered)
            stages = {name: to_array(array) for name, array in answered.stages.items()}
            answers.append(Answer(to_array(answered.outputs).astype(np.float32), stages, answered.label))
        except Exception as error:
            why = f"{type(error).__name__}: {first_line(error)}"
            raise BundleError(f"the reference {by} fails on raw row {number}: {why}") from error
    outputs = answers[0].outputs
    if not np.isfinite(outputs).all():
        raise BundleError(f"the reference {by} gives outputs that are not finite numbers for raw row {number}")
    if not all(_same(outputs, again.outputs) for again in answers):
        raise BundleError(
            f"the reference {by} answers raw row {number} differently when it is asked twice: leave out what is "
            "drawn at random in training, and call eval() on its module"
        )
    return answers[0]


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-3, atol=1e-4)


def to_array(value: Any) -> NDArray[Any]:
    """Returns a tensor of any library, an array or nested lists as an array.

    Raises:
        TypeError: If it is none of numbers.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"expected numbers, got {type(value).__name__} of {array.dtype}")
    return array


def _send(row: RawRow, number: int) -> RawInputs:
    """Returns a raw row as the service gets it: JSON, files in base64, ``null`` where nothing is known."""
    try:
        body = msgspec.json.encode(dict(row), enc_hook=_plain)
        return msgspec.json.decode(body, type=RawInputs)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise BundleError(f"raw row {number} of the reference cannot be sent as JSON: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, datetime.datetime):  # such as a Timestamp of pandas
        return value.isoformat()
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


def _follow(
    schema: InputSchema,
    source: Source,
    by: str,
    decoded: dict[int, Arrays],
    sent: list[RawInputs],
    theirs: list[Answer],
) -> Ways:
    """Runs the module on what was decoded, and applies the same last step to what it and the author give."""
    if not decoded:
        nothing = np.empty((0, source.task.outputs), np.float32)
        return Ways(schema, source, [], [], {}, [], nothing, nothing, nothing)
    ours = {name: np.stack([row[name] for row in decoded.values()]) for name in schema.fields}
    shape = source.output_shape
    for number, answer in zip(decoded, theirs, strict=True):
        if answer.outputs.size != math.prod(shape):
            raise BundleError(
                f"the reference {by} gives outputs of shape {answer.outputs.shape} for raw row {number}; the "
                f"module gives {shape} a row"
            )
    outputs = source.to_outputs(np.stack([answer.outputs.reshape(shape) for answer in theirs]))
    expected = source.task.scores(outputs)
    return Ways(
        schema, source, list(decoded), sent, ours, theirs, outputs, expected, run_in_batches(source.run, ours)
    )


def _require_labels(ways: Ways, by: str) -> None:
    task = ways.source.task
    for number, answer, scores in zip(ways.numbers, ways.theirs, ways.expected, strict=True):
        if answer.label is None:
            continue
        if not task.classes:
            raise BundleError(f"the reference {by} gives a label, and the model answers with none")
        if answer.label != (ours := task.classes[int(scores.argmax())]):
            raise BundleError(
                f"the reference {by} calls raw row {number} {answer.label!r}, and the label of its largest "
                f"output is {ours!r} here: give the labels in the order of the logits"
            )
