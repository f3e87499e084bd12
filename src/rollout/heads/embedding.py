"""A vector that stands for the input."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError
from rollout.heads.head import Declared, Flags, Head, Numbers, Row, Scores
from rollout.heads.measured import Evaluated, Measured
from rollout.heads.parts import Part
from rollout.heads.truth import LARGEST, Truth

# An embedding counts as another one at a larger cosine distance than this.
MOVED = 1e-3


class VectorAnswer(NamedTuple):
    """A vector as a list of numbers."""

    vector: list[float]


class EncodedVectorAnswer(NamedTuple):
    """A vector in base64: its numbers one after the other, little-endian."""

    vector: str
    dtype: str


class Embedding(msgspec.Struct, Head, frozen=True, kw_only=True, tag="embedding", tag_field="kind"):
    """A vector that stands for the input, for search and comparison. Nothing is unsure by itself.

    The module returns shape ``(rows, size)``. Vectors are compared by their cosine distance, ``1 - cos``.

    Attributes:
        size: Numbers of the vector.
        dtype: Precision in which it goes out. ``float16`` halves it, at three digits.
        encoding: ``list`` of numbers, or ``base64`` of their little-endian bytes, a third of the size in JSON.

    Example:
        >>> Embedding(size=384, dtype="float16", encoding="base64").outputs
        384
    """

    metric: ClassVar[str] = "mean cosine distance"
    is_rate: ClassVar[bool] = False
    measure: ClassVar[str] = "vector"
    form: ClassVar[str] = "vector"
    needs_targets: ClassVar[bool] = False

    size: int
    dtype: Literal["float32", "float16"] = "float32"
    encoding: Literal["list", "base64"] = "list"

    @property
    def parts(self) -> Part:
        """The vector."""
        return Part((self.size,))

    @property
    def needs(self) -> str:
        """What a module has to return, in words."""
        return f"an embedding needs vectors of shape (rows, {self.size})"

    def check_targets(self, targets: NDArray[Any]) -> None:
        """Refuses targets that are no vectors, shape ``(rows, size)``."""
        if targets.shape[1:] != (self.size,) or targets.dtype.kind not in "iuf" or not np.isfinite(targets).all():
            raise BundleError(f"targets must be vectors of finite numbers, shape (rows, {self.size})")

    def targets(self, truths: Sequence[Truth]) -> NDArray[Any]:
        """Returns the vectors, ``float32`` of shape ``(rows, size)``."""
        return np.array([truth.vector for truth in truths], np.float32)

    def distances(self, expected: Scores, got: Scores) -> NDArray[np.float64]:
        """Returns the cosine distance of each row."""
        return np.asarray(np.nan_to_num(cosine_distance(expected, got), nan=np.inf))

    def flipped(self, expected: Scores, got: Scores) -> Flags:
        """Which rows get a vector in another direction."""
        return np.asarray(~(cosine_distance(expected, got) <= MOVED))

    def losses(self, scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
        """The cosine distance to the vector that was wanted, from 0 to 2."""
        return cosine_distance(scores, targets)

    def answer_losses(self, answers: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
        """The cosine distance."""
        return cosine_distance(answers, targets)

    def in_words(self, scores: Scores) -> str:
        """Says the first numbers of one row."""
        return f"[{', '.join(f'{number:.3g}' for number in scores[:4])}{', …' if self.size > 4 else ''}]"

    @property
    def summary(self) -> str:
        """What it answers with, in a sentence."""
        return f"Answers with a vector of {self.size} numbers."

    @property
    def policy(self) -> str:
        """What goes to review, in words."""
        return "no prediction goes to review by itself: a vector is not sure of anything"

    @property
    def unit_of_scores(self) -> str:
        """What the largest difference is."""
        return "two vectors, as cosine distance"

    def measured(self, part: Evaluated) -> Measured:
        """Returns the mean distance to the vectors that were wanted, and the mean length."""
        lengths = np.linalg.norm(part.scores.astype(np.float64), axis=1)
        return Measured(
            {
                "mean_cosine_distance": float(self.losses(part.scores, part.targets).mean()),
                "mean_length": float(lengths.mean()),
            }
        )

    @property
    def signature(self) -> tuple[object, ...]:
        """Size and form."""
        return ("Embedding", self.size, self.dtype, self.encoding)

    def can_go_out(self, scores: Scores) -> NDArray[np.bool_]:
        """Which are finite numbers of ``dtype``."""
        with np.errstate(over="ignore"):
            return np.asarray(np.isfinite(scores.astype(self.dtype)))

    def numbers(self, scores: Scores) -> Numbers:
        """The numbers in the precision in which they go out, not rounded otherwise."""
        with np.errstate(over="ignore"):  # see ``can_go_out``
            return np.asarray(scores.astype(self.dtype).astype(np.float64))

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        """A list, or text in base64 with its dtype."""
        return VectorAnswer if self.encoding == "list" else EncodedVectorAnswer

    def answer(self, row: Row) -> Any:
        """Returns the vector."""
        if self.encoding == "list":
            return VectorAnswer(list(row))
        raw = np.array(row, np.dtype(self.dtype).newbyteorder("<")).tobytes()
        return EncodedVectorAnswer(base64.b64encode(raw).decode(), self.dtype)

    def declared(self) -> dict[str, Declared]:
        """The vector."""
        return {"vector": Declared("FP16" if self.dtype == "float16" else "FP32", (self.size,))}

    def tensor(self, name: str, numbers: Numbers) -> NDArray[Any] | list[str]:
        """Returns the vectors."""
        return numbers.astype(self.dtype)

    def agree(self, ours: Row, theirs: Row) -> bool:
        """Whether both point into the same direction."""
        return self.distance(ours, theirs) <= MOVED

    def distance(self, ours: Row, theirs: Row) -> float:
        """Returns the cosine distance."""
        return float(cosine_distance(np.array([ours]), np.array([theirs]))[0])

    def form_faults(self, truth: Truth) -> Iterator[tuple[str, str]]:
        """Yields that it is of another size, or nothing."""
        vector = np.array(truth.vector or [], np.float64)
        held = len(vector) == self.size and (np.abs(vector) <= LARGEST).all()
        if not held or not np.any(vector.astype(np.float32)):
            yield "/vector", f"must be a list of {self.size} numbers that float32 holds, not all of them 0"

    def vector(self, answer: Mapping[str, Any]) -> NDArray[np.float64]:
        """Returns the vector of an answer as it went out, shape ``(size,)``."""
        if isinstance(answer["vector"], str):
            raw = base64.b64decode(answer["vector"])
            return np.frombuffer(raw, np.dtype(self.dtype).newbyteorder("<")).astype(np.float64)
        return np.array(answer["vector"], np.float64)

    def loss(self, answer: Mapping[str, Any], truth: Truth) -> float | None:
        """Returns half the cosine distance, from 0 to 1."""
        return self._apart(self.vector(answer), truth.vector)

    def truth_distance(self, one: Truth, other: Truth) -> float:
        """Returns half the cosine distance, from 0 to 1."""
        return self._apart(np.array(one.vector or [], np.float64), other.vector)

    def _apart(self, one: NDArray[np.float64], other: list[float] | None) -> float:
        distance = cosine_distance(one[None], np.array([other or []], np.float64))[0]
        return float(np.clip(distance / 2, 0, 1))

    def says(self, answer: Mapping[str, Any]) -> str:
        """Says the first numbers."""
        return self.in_words(self.vector(answer).astype(np.float32))

    def accepted(self, answer: Mapping[str, Any]) -> Truth | None:
        """Returns the vector itself."""
        return Truth(vector=self.vector(answer).tolist())


def cosine_distance(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Returns ``1 - cos`` of the angle between vectors, row by row; 1 where only one has no length, 0 where both.

    Args:
        one: Shape ``(rows, size)``.
        other: Likewise.
    """
    left, right = (np.asarray(each, np.float64) for each in (one, other))
    lengths = np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1)
    product = lengths[0] * lengths[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (left * right).sum(1) / product
    both = (lengths[0] == 0) & (lengths[1] == 0)
    return np.asarray(np.where(both, 0.0, np.where(product == 0, 1.0, 1 - cosine)))
