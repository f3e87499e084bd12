"""Named tensors that no other kind fits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError, step_to
from rollout.heads.head import DIGITS, Declared, Flags, Head, Numbers, Row, Scores
from rollout.heads.parts import Part, Parts
from rollout.heads.truth import LARGEST, Truth
from rollout.judge.features import Features, named, of_rows
from rollout.words import plural

Dtype = Literal["float32", "int64", "bool"]
DATATYPES: dict[Dtype, str] = {"float32": "FP32", "int64": "INT64", "bool": "BOOL"}
CONFIDENCE = "confidence"
SHOWN = 3  # numbers of a tensor, in a sentence


class Output(msgspec.Struct, frozen=True):
    """A tensor of the answer.

    Attributes:
        shape: Of one row; empty for a number a row.
        dtype: In which it goes out. Whole numbers are exact up to 2^24: on their way they are ``float32``.
    """

    shape: tuple[int, ...] = ()
    dtype: Dtype = "float32"

    def takes(self, said: object) -> bool:
        """Whether nested lists are such a tensor: numbers that ``float32`` holds, or truth values."""
        try:
            array = np.asarray(said, object)
        except ValueError:  # lists of different lengths
            return False
        if array.shape != self.shape:
            return False
        if self.dtype == "bool":
            return all(type(one) in (bool, int) and one in (0, 1) for one in array.flat)
        return all(type(one) in (int, float) and abs(one) <= LARGEST for one in array.flat)


class TensorsAnswer(NamedTuple):
    """Nested lists of numbers, by the name of the tensor."""

    tensors: dict[str, Any]


class Tensors(msgspec.Struct, Head, frozen=True, kw_only=True, tag="tensors", tag_field="kind"):
    """Named tensors, typed and shaped, for answers that no other kind fits.

    The module returns them by name, or as a tuple in their order. An output called ``confidence``, one number a
    row, sends rows to review.

    Attributes:
        outputs_by_name: The tensors, by their names, which are identifiers.
        threshold: A ``confidence`` below it goes to review.
        tolerance: Numbers that differ by more count as another answer, in units of ``scale``.
        scale: Standard deviation of all numbers of the calibration targets; packing computes it.

    Example:
        >>> Tensors(outputs_by_name={"mask": Output((28, 28)), "confidence": Output()}, threshold=0.8).outputs
        785
    """

    metric: ClassVar[str] = "mean absolute error"
    is_rate: ClassVar[bool] = False
    measure: ClassVar[str] = "tensors"
    form: ClassVar[str] = "tensors"
    needs_targets: ClassVar[bool] = False

    outputs_by_name: dict[str, Output]
    threshold: float | None = None
    tolerance: float = 1e-3
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.outputs_by_name or not all(map(str.isidentifier, self.outputs_by_name)):
            raise ValueError("outputs_by_name needs at least one output, each named by an identifier")
        if self.threshold is not None:
            confidence = self.outputs_by_name.get(CONFIDENCE)
            if confidence is None or math.prod(confidence.shape) != 1:
                raise ValueError("a threshold is one for the output `confidence`, which has one number a row")

    @property
    def parts(self) -> Parts:
        """The tensors by name."""
        return {name: Part(own.shape, takes_integers=True) for name, own in self.outputs_by_name.items()}

    @property
    def needs(self) -> str:
        """What a module has to return, in words."""
        shapes = (f"{name} of shape {('rows', *own.shape)}" for name, own in self.outputs_by_name.items())
        return f"named tensors, {', '.join(shapes)}".replace("'rows'", "rows")

    def _own(self, table: NDArray[Any]) -> Iterator[tuple[str, Output, NDArray[Any]]]:
        """Yields each tensor with its columns."""
        start = 0
        for name, own in self.outputs_by_name.items():
            stop = start + math.prod(own.shape)
            yield name, own, table[..., start:stop]
            start = stop

    def _confidence(self, table: NDArray[Any]) -> NDArray[Any] | None:
        return next((columns[..., 0] for name, _, columns in self._own(table) if name == CONFIDENCE), None)

    @property
    def _judged(self) -> NDArray[np.bool_]:
        """Which columns people say something about: all but the confidence."""
        widths = [(name != CONFIDENCE, math.prod(own.shape)) for name, own in self.outputs_by_name.items()]
        return np.concatenate([np.full(width, judged) for judged, width in widths])

    def check_targets(self, targets: NDArray[Any]) -> None:
        """Refuses targets that are not all numbers side by side, shape ``(rows, outputs)``."""
        wanted = (self.width,)
        if targets.shape[1:] != wanted or targets.dtype.kind not in "biuf" or not np.isfinite(targets).all():
            raise BundleError(
                f"targets must be all tensors side by side, finite numbers of shape (rows, {self.width})"
            )

    def targets(self, truths: Sequence[Truth]) -> NDArray[Any]:
        """Returns all numbers side by side, ``float32`` of shape ``(rows, outputs)``; no confidence is 1."""
        return np.stack([self._flat(truth.tensors or {}) for truth in truths])

    def _flat(self, tensors: Mapping[str, Any]) -> NDArray[np.float32]:
        parts = [
            np.ravel(np.asarray(tensors.get(name, np.ones(own.shape)), np.float32))
            for name, own in self.outputs_by_name.items()
        ]
        return np.concatenate(parts)

    def calibrated(self, outputs: NDArray[np.float32], targets: NDArray[Any]) -> tuple[Tensors, None]:
        """Takes the unit of differences from the targets."""
        scale = float(np.std(targets[:, self._judged])) if self._judged.any() else 1.0
        return msgspec.structs.replace(self, scale=scale or 1.0), None

    def distances(self, expected: Scores, got: Scores) -> NDArray[np.float64]:
        """Returns the largest difference in units of ``scale``, or of the number itself where that is larger."""
        with np.errstate(invalid="ignore"):
            far = np.abs(expected.astype(np.float64) - got) / np.maximum(np.abs(expected), self.scale)
        return np.asarray(np.nan_to_num(far, nan=np.inf).max(axis=-1, initial=0.0)).reshape(len(expected))

    def flipped(self, expected: Scores, got: Scores) -> Flags:
        """Which rows have a number that differs by more than the tolerance."""
        return np.asarray(self.distances(expected, got) > self.tolerance)

    def needs_review(self, scores: Scores) -> Flags:
        """Which rows have a confidence below the threshold."""
        confidence = self._confidence(scores)
        if self.threshold is None or confidence is None:
            return np.zeros(len(scores), bool)
        return np.asarray(confidence < self.threshold)

    def sureness(self, scores: Scores) -> NDArray[np.float32]:
        """Returns the confidence, if there is one."""
        confidence = self._confidence(scores)
        return np.zeros(len(scores), np.float32) if confidence is None else confidence

    def losses(self, scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
        """The mean absolute error over all numbers but the confidence."""
        return self.answer_losses(scores, targets)

    def answer_losses(self, answers: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
        """The mean absolute error over all numbers but the confidence."""
        apart = np.abs(answers[:, self._judged].astype(np.float64) - targets[:, self._judged])
        return np.asarray(apart.mean(1) if apart.size else np.zeros(len(apart)))

    def right(self, scores: Scores, targets: NDArray[Any]) -> Flags:
        """Which rows have all numbers within the tolerance."""
        apart = np.abs(scores[:, self._judged].astype(np.float64) - targets[:, self._judged])
        return np.asarray((apart <= self.tolerance * self.scale).all(1))

    def in_words(self, scores: Scores) -> str:
        """Says the first numbers of each tensor, and the shape of those that have one."""
        return "; ".join(f"{name} {_first_of(own, columns)}" for name, own, columns in self._own(scores))

    @property
    def review_limit(self) -> float:
        """The confidence below which a row goes to review."""
        return math.inf if self.threshold is None else self.threshold

    @property
    def policy(self) -> str:
        """What goes to review, in words."""
        if self.threshold is None:
            return "no prediction goes to review: there is no threshold for a confidence"
        return f"predictions whose output `confidence` is below {self.threshold:.4f} go to review"

    @property
    def summary(self) -> str:
        """What it answers with, in a sentence."""
        return f"Answers with {plural(len(self.outputs_by_name), 'tensor')}: {', '.join(self.outputs_by_name)}."

    @property
    def unit_of_scores(self) -> str:
        """What the largest difference of two scores is a difference of, in words."""
        return "a number, in standard deviations of the targets"

    @property
    def signature(self) -> tuple[object, ...]:
        """Names, shapes and dtypes."""
        return ("Tensors", *((name, own.shape, own.dtype) for name, own in self.outputs_by_name.items()))

    def numbers(self, scores: Scores) -> Numbers:
        """The numbers: fractions to six decimals, others as they are."""
        return np.asarray(scores.astype(np.float64).round(DIGITS))

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        """An object by the names of the tensors."""
        return TensorsAnswer

    def answer(self, row: Row) -> Any:
        """Returns nested lists by name."""
        return TensorsAnswer({name: array[0].tolist() for name, array in self._arrays(np.array([row]))})

    def _arrays(self, numbers: Numbers) -> Iterator[tuple[str, NDArray[Any]]]:
        for name, own, columns in self._own(numbers):
            array = columns.reshape(len(numbers), *own.shape)
            whole = array if own.dtype == "float32" else array.round()
            yield name, whole if own.dtype == "float32" else whole.astype(own.dtype)

    def confidences(self, numbers: Numbers) -> NDArray[np.float64] | None:
        """Returns the output `confidence`, if there is one."""
        return self._confidence(numbers)

    def features(self, numbers: Numbers) -> Features:
        """Returns those of each tensor; the confidence is one of them."""
        return {
            full: feature
            for name, _, columns in self._own(numbers)
            for full, feature in named(name, of_rows(columns)).items()
        }

    def declared(self) -> dict[str, Declared]:
        """The tensors by name."""
        return {name: Declared(DATATYPES[own.dtype], own.shape) for name, own in self.outputs_by_name.items()}

    def tensor(self, name: str, numbers: Numbers) -> NDArray[Any] | list[str]:
        """Returns a tensor."""
        return dict(self._arrays(numbers))[name]

    def agree(self, ours: Row, theirs: Row) -> bool:
        """Whether all numbers but the confidence are within the tolerance."""
        return self.distance(ours, theirs) <= self.tolerance

    def distance(self, ours: Row, theirs: Row) -> float:
        """Returns the largest difference of a number but the confidence, in units of ``scale``."""
        apart = np.abs(np.subtract(ours, theirs))[self._judged]
        return float(apart.max(initial=0.0)) / self.scale

    def form_faults(self, truth: Truth) -> Iterator[tuple[str, str]]:
        """Yields what is missing, unknown or of another shape."""
        said = truth.tensors or {}
        asked = {name: own for name, own in self.outputs_by_name.items() if name != CONFIDENCE}
        for name in said:
            if name not in asked:
                yield f"/tensors{step_to(name)}", f"is none of {', '.join(asked)}"
        for name, own in asked.items():
            if name not in said:
                yield f"/tensors{step_to(name)}", "is required"
            elif not own.takes(said[name]):
                what = "truth value" if own.dtype == "bool" else "number"
                wanted = f"{what}s of shape {own.shape}" if own.shape else f"one {what}"
                yield f"/tensors{step_to(name)}", f"must be {wanted}"

    def loss(self, answer: Mapping[str, Any], truth: Truth) -> float | None:
        """Returns the share of numbers that differ by more than the tolerance."""
        return self._share(answer["tensors"], truth.tensors or {})

    def truth_distance(self, one: Truth, other: Truth) -> float:
        """Returns the share of numbers that differ by more than the tolerance."""
        return self._share(one.tensors or {}, other.tensors or {})

    def _share(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
        apart = np.abs(self._flat(one).astype(np.float64) - self._flat(other))[self._judged]
        return float((apart > self.tolerance * self.scale).mean()) if apart.size else 0.0

    def uncertainty(self, answer: Mapping[str, Any]) -> float:
        """Returns what the confidence lacks of 1."""
        confidence = answer["tensors"].get(CONFIDENCE)
        return 0.0 if confidence is None else float(np.clip(1 - np.ravel(confidence)[0], 0, 1))

    def says(self, answer: Mapping[str, Any]) -> str:
        """Says the first numbers of each tensor."""
        return self.in_words(self._flat(answer["tensors"]))

    def accepted(self, answer: Mapping[str, Any]) -> Truth | None:
        """Returns all tensors but the confidence."""
        return Truth(tensors={name: own for name, own in answer["tensors"].items() if name != CONFIDENCE})


def _first_of(own: Output, numbers: NDArray[Any]) -> str:
    """Says a number, or the first of several and their shape: "0, 1, 1, … (2 × 2)"."""
    if not own.shape:
        return f"{numbers[0]:.4g}"
    shown = [f"{number:.4g}" for number in numbers[:SHOWN]] + ["…"] * (len(numbers) > SHOWN)
    return f"{', '.join(shown)} ({' × '.join(map(str, own.shape))})"
