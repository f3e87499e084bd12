"""What every head has in common: a kind of answer is one class, and nothing outside asks which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self, get_type_hints

import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError, ConfigError
from rollout.heads.confusion import Confusion
from rollout.heads.doubts import Suspects
from rollout.heads.explained import Explained, refuse
from rollout.heads.measured import Evaluated, Measured
from rollout.heads.parts import Parts, width
from rollout.heads.review_evidence import ReviewEvidence
from rollout.heads.steps import Step, apply
from rollout.heads.truth import Truth
from rollout.judge.features import Features, number, of_rows

Scores = NDArray[np.float32]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.float64]
Row = Sequence[float]
Translation = Callable[[Numbers], Numbers]

LEAST_SCORE = 1e-7  # single precision tells no probability from 1 that is nearer
DIGITS = 6  # after the point of what goes out, which is what single precision can vouch for


class Declared(NamedTuple):
    """A tensor of the answers, in the terms of the Open Inference Protocol.

    Attributes:
        datatype: Such as ``FP32``; texts are ``BYTES``.
        shape: Of one row; -1 where it differs from row to row.
    """

    datatype: str
    shape: tuple[int, ...] = ()


class Head:
    """One kind of answer: how it is decoded, compared, calibrated, reviewed, shown, exported and judged.

    A kind is a frozen ``msgspec.Struct`` beside this class, with a ``tag``, and that is all it takes. Rows go
    through it in columns. *Outputs* are what the module returns, all tensors side by side as one table of shape
    ``(rows, width)``; *scores* are what a variant gives, of shape ``(rows, outputs)``, the outputs after the last
    step; *numbers* are what is decided on them and goes out, of shape ``(rows, columns)`` in a layout of the
    kind's own.

    Attributes:
        activation: What an artefact may have done already to outputs, and is taken off again.
        metric: What its losses are called in the mean; less is better.
        is_rate: Whether each loss is from 0 to 1, so that the mean of them is a rate.
        measure: What is right, in words: the model's ``label`` is the people's, or its ``interval`` has theirs.
        form: The form of ``Truth`` that it takes; empty where it is never right or wrong.
        has_loss: Whether one answer can be right or wrong, so that a trial can be judged by it.
        needs_targets: Whether it cannot do without targets, where it is one of several heads.
        usual_loss: What a module is trained with that names no loss: ``classes`` and ``labels`` by cross-entropy,
            ``values`` by the absolute error or a likelihood.
        soft_loss: What a student is trained with towards ``soft_targets``: ``softmax`` or ``sigmoid`` by how far
            the softened probabilities are, ``values`` by the absolute error; empty where there is none.
        panel: The panel of the console on which people decide; without one they write JSON.
    """

    __slots__ = ()

    activation: ClassVar[str] = ""
    metric: ClassVar[str] = "mean loss"
    is_rate: ClassVar[bool] = True
    measure: ClassVar[str] = "answer"
    form: ClassVar[str] = ""
    has_loss: ClassVar[bool] = True
    needs_targets: ClassVar[bool] = True
    usual_loss: ClassVar[str] = ""
    soft_loss: ClassVar[str] = ""
    panel: ClassVar[str] = "json"

    # What a module gives, and what becomes of it

    @property
    def parts(self) -> Parts:
        """The tensors that a module returns."""
        raise NotImplementedError

    @property
    def needs(self) -> str:
        """What a module has to return, in words."""
        raise NotImplementedError

    def needs_at(self, path: Sequence[str]) -> str:
        """Says what a module has to return under some names, of which a later one is inside of the former."""
        return ": ".join((*path, self.needs))

    @property
    def last_step(self) -> Sequence[Step]:
        """How outputs become scores, in the graph of every variant."""
        return [Step(self.width)]

    @property
    def width(self) -> int:
        """Columns of the outputs."""
        return width(self.parts)

    @property
    def outputs(self) -> int:
        """Columns of the scores."""
        return self.width

    def scores(self, outputs: NDArray[np.float32]) -> Scores:
        """Makes scores of outputs by the last step, in NumPy."""
        return apply(self.last_step, outputs)

    def check_inputs(self, fields: Mapping[str, Any]) -> None:
        """Refuses inputs that answers of this kind cannot be about.

        Args:
            fields: The fields of the input schema, by name.

        Raises:
            BundleError: If they are such.
        """

    @property
    def each_head(self) -> Mapping[str, Head]:
        """The heads of which it consists, by name; empty for a single one."""
        return {}

    # Targets

    def check_targets(self, targets: NDArray[Any]) -> None:
        """Refuses targets that are not what the head is trained towards, one a row.

        Raises:
            BundleError: If one is not.
        """
        raise NotImplementedError

    def targets(self, truths: Sequence[Truth]) -> NDArray[Any]:
        """Makes targets of what people said, each of which ``faults`` found nothing wrong with."""
        raise NotImplementedError

    def soft_targets(self, scores: Scores) -> NDArray[np.float32]:
        """Makes of a teacher's scores what a student is trained towards; see ``soft_loss``.

        Returns:
            The columns of the outputs that there are soft targets for, from the first on.
        """
        raise NotImplementedError

    def is_complete(self, truth: Truth) -> bool:
        """Whether something said has all that a model learns from; of several heads, one may be left out."""
        return True

    # Calibration

    def calibrated(
        self, outputs: NDArray[np.float32], targets: NDArray[Any]
    ) -> tuple[Self, ReviewEvidence | None]:
        """Completes the head with what follows from the calibration part.

        Returns:
            It, and what speaks for its review threshold, if it has one.

        Raises:
            BundleError: If what it was given is wrong, or the rows are too few for what it promises.
        """
        return self, None

    # Comparing

    @property
    def units(self) -> float | NDArray[np.float64]:
        """The unit in which differences of scores are measured, one for all or one for each."""
        return 1.0

    def distances(self, expected: Scores, got: Scores) -> NDArray[np.float64]:
        """Returns how far each row is, shape ``(rows,)``; one that is not a number counts as infinite."""
        with np.errstate(invalid="ignore"):
            far = np.abs(expected.astype(np.float64) - got) / self.units
        return np.asarray(np.nan_to_num(far, nan=np.inf).max(axis=-1, initial=0.0)).reshape(len(expected))

    def flipped(self, expected: Scores, got: Scores) -> Flags:
        """Which rows get another answer."""
        raise NotImplementedError

    def needs_review(self, scores: Scores) -> Flags:
        """Which rows a person should look at."""
        return np.zeros(len(scores), bool)

    def sureness(self, scores: Scores) -> NDArray[np.float32]:
        """How sure each row is, in any unit."""
        return np.zeros(len(scores), np.float32)

    def right(self, scores: Scores, targets: NDArray[Any]) -> Flags:
        """Which rows are answered with their target."""
        return np.asarray(self.losses(scores, targets) == 0)

    def losses(self, scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
        """The loss of each row that versions are compared by, shape ``(rows,)``."""
        raise NotImplementedError

    def answer_losses(self, answers: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
        """The loss of answers that are given as targets are, such as a baseline's, shape ``(rows,)``."""
        return np.asarray(np.any((answers != targets).reshape(len(targets), -1), axis=1), np.float64)

    def mean_loss(self, figures: Mapping[str, float]) -> float:
        """Returns the mean loss of the evaluation part from what was measured on it; see ``measured``."""
        return figures[self.metric.replace(" ", "_")]

    def in_words(self, scores: Scores) -> str:
        """Says what one row of scores, shape ``(outputs,)``, answers."""
        raise NotImplementedError

    # Mistakes

    def target_in_words(self, target: Any) -> str:
        """Says the target of one row."""
        return np.array2string(np.asarray(target), threshold=8, precision=6, separator=", ").replace("\n", "")

    def confusions(self, scores: Scores, targets: NDArray[Any]) -> list[Confusion]:
        """Returns what was taken for what, the most frequent first; nothing for kinds without labels."""
        return []

    def suspects(self, scores: Scores, targets: NDArray[Any]) -> Suspects:
        """Finds targets that are probably wrong, by the scores of a model that did not learn from them.

        Raises:
            ConfigError: If this cannot be said of the kind, or what finds them is not installed.
        """
        kind = type(self).__name__
        raise ConfigError(f"nothing tells a label that looks wrong from others in {kind}")

    # In words and figures, for the author

    @property
    def review_limit(self) -> float:
        """The figure that sends a row to review; infinite where none does."""
        return np.inf

    @property
    def reviews_everything(self) -> bool:
        """Whether no answer would go out without review."""
        return False

    @property
    def policy(self) -> str:
        """What goes to review, in words."""
        return "no prediction goes to review: the model says nothing of how sure it is"

    @property
    def summary(self) -> str:
        """What it answers with, in a sentence."""
        raise NotImplementedError

    @property
    def unit_of_scores(self) -> str:
        """What the largest difference of two scores is a difference of, in words."""
        return "a number"

    def measured(self, part: Evaluated) -> Measured:
        """Returns the figures of the evaluation part, and a diagram."""
        return Measured({self.metric.replace(" ", "_"): float(self.losses(part.scores, part.targets).mean())})

    def report(self, figures: Mapping[str, float], review: ReviewEvidence | None) -> tuple[str, dict[str, str]]:
        """Says what calibration found: a text, and facts by name."""
        return self.policy[:1].upper() + self.policy[1:] + ".", {}

    # Labels

    @property
    def classes(self) -> Sequence[str]:
        """The classes of which each row has one, in the order of the outputs; empty for other kinds."""
        return ()

    @property
    def labels_used(self) -> Sequence[str]:
        """The labels that answers are made of; empty for kinds without."""
        return self.classes

    @property
    def signature(self) -> tuple[object, ...]:
        """What callers would notice if it were different between two versions."""
        return (type(self).__name__, self.outputs)

    def public(self, meanings: Mapping[str, str]) -> Self:
        """Returns it in the labels that callers see.

        Args:
            meanings: What labels mean to callers, where that is not the label itself.
        """
        return self

    def judged(self, by: str) -> Self:
        """Returns it as a trial is judged by one of its heads; without a name, by the one that it says itself.

        Raises:
            BundleError: If it has no head of that name.
        """
        if by:
            raise BundleError(f"the model has no head {by!r}: it answers with one thing, so leave the head out")
        return self

    def translation(self, public: Head, meanings: Mapping[str, str]) -> Translation | None:
        """Returns what puts numbers of this head in the layout of ``public``; ``None`` where they are in it."""
        return None

    # Answering

    def can_go_out(self, scores: Scores) -> NDArray[np.bool_]:
        """Which scores are finite numbers, in the precision in which they go out; of the scores' shape."""
        return np.isfinite(scores)

    def numbers(self, scores: Scores) -> Numbers:
        """Makes of scores what goes out, to six decimals; shape ``(rows, columns)``."""
        return np.asarray(scores.astype(np.float64).round(DIGITS))

    @property
    def columns(self) -> int:
        """Columns of the numbers."""
        return self.outputs

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        """The ``NamedTuple`` that an answer is, whose fields stand in the prediction."""
        raise NotImplementedError

    def described_type(self, name: str) -> type[tuple[Any, ...]]:
        """Returns ``answer_type`` as the API is described; the names of its parts begin with ``name``."""
        return self.answer_type

    def answer(self, row: Row) -> Any:
        """Makes the answer of a row of numbers; see ``answer_type``."""
        raise NotImplementedError

    def confidences(self, numbers: Numbers) -> NDArray[np.float64] | None:
        """Returns a confidence from 0 to 1 for each row, shape ``(rows,)``; ``None`` where there is none."""
        return None

    def features(self, numbers: Numbers) -> Features:
        """Returns what is looked at of answers to see whether they are like others.

        Args:
            numbers: Of some rows; NaN where nothing is known.

        Returns:
            By name; always the same names. Here, the confidence and the numbers.
        """
        return self.confidence_feature(numbers) | of_rows(numbers)

    def confidence_feature(self, numbers: Numbers) -> Features:
        """Returns the confidence in per cent, if there is one: variants differ further behind the point."""
        found = self.confidences(numbers)
        if found is None:
            return {}
        return {"confidence": number(np.where(np.isnan(numbers).any(1), np.nan, (100 * found).round()), "%")}

    def explained(self, row: Row, label: str = "", head: str = "") -> Explained:
        """Says which number of an answer is explained: by default, what decided it.

        Args:
            row: A row of numbers.
            label: The label that the number is to be of, in the place of the one that was decided.
            head: The head that it is to be of, where there are several.

        Raises:
            InvalidRequestError: If there is no such label or head, or no such number in answers of this kind.
        """
        raise refuse(self.summary)

    def unsure(self, row: Row) -> str | None:
        """Names the head, of several, that sends a row of numbers to review."""
        return None

    def declared(self) -> dict[str, Declared]:
        """Says which tensors the answers are made of."""
        raise NotImplementedError

    def tensor(self, name: str, numbers: Numbers) -> NDArray[Any] | list[str]:
        """Returns one of these tensors for all rows, shape ``(rows, *shape)``; texts as a list."""
        raise NotImplementedError

    def keys_of(self, column: str) -> Sequence[str] | None:
        """Returns the names in an object of the answer, where they are always the same."""
        return None

    def table(self) -> dict[str, tuple[Any, Sequence[str] | None]]:
        """Says which columns a table of answers has: the type of each, and what ``keys_of`` says of it."""
        return {name: (kind, self.keys_of(name)) for name, kind in get_type_hints(self.answer_type).items()}

    def table_row(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Returns an answer as it went out as a row of such a table; it may have more fields."""
        return {name: answer[name] for name in self.answer_type._fields}  # type: ignore[attr-defined]

    def agree(self, ours: Row, theirs: Row) -> bool:
        """Whether two rows of numbers, the champion's first, are the same decision."""
        raise NotImplementedError

    def distance(self, ours: Row, theirs: Row) -> float:
        """How far two rows of numbers are apart, the champion's first."""
        return float(np.abs(np.subtract(ours, theirs)).max(initial=0.0))

    def each(self, answer: Mapping[str, Any]) -> dict[str, tuple[Head, Mapping[str, Any]]]:
        """Takes an answer of several heads apart: each head with its own, by name; empty for a single head."""
        return {}

    # What people and callers say

    def faults(self, truth: Truth) -> Iterator[tuple[str, str]]:
        """Yields what is wrong with something said: a JSON pointer, and a sentence."""
        forms = truth.forms
        if not self.form:
            yield "", "this model's answers are neither right nor wrong: there is nothing to report of them"
            return
        for form in forms:
            if form != self.form:
                yield f"/{form}", f"is not what this model answers with: send {self.form}"
        if self.form not in forms:
            yield f"/{self.form}", "is required"
        else:
            yield from self.form_faults(truth)

    def form_faults(self, truth: Truth) -> Iterator[tuple[str, str]]:
        """Yields what is wrong with something said in the head's own form."""
        yield from ()

    def loss(self, answer: Mapping[str, Any], truth: Truth) -> float | None:
        """Returns how wrong an answer was, from 0 to 1; ``None`` where it is neither right nor wrong.

        Args:
            answer: As it went out.
            truth: What was true.
        """
        return None

    def accepted(self, answer: Mapping[str, Any]) -> Truth | None:
        """Returns what somebody says who finds an answer right; ``None`` where nothing can be said."""
        return None

    def truth_distance(self, one: Truth, other: Truth) -> float:
        """Returns how far two people are apart, from 0 to 1."""
        return float(one != other)

    def agreed(self, one: Truth, other: Truth) -> Truth | None:
        """Returns what two people say together; ``None`` where they differ, which is at any distance but 0."""
        return other if self.truth_distance(one, other) == 0 else None

    def brief(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what is kept of an answer until its outcome comes: what ``loss`` and ``says`` need."""
        return dict(answer)

    def uncertainty(self, answer: Mapping[str, Any]) -> float:
        """Returns how much a look at an answer is worth, from 0 to 1."""
        return 0.0

    def says(self, answer: Mapping[str, Any]) -> str:
        """Says an answer as it went out in a few words."""
        raise NotImplementedError

    def labels_of(self, answer: Mapping[str, Any]) -> list[str]:
        """Returns the labels in an answer, by which items are filtered."""
        return []

    # Label Studio

    def studio_result(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns an answer as regions of Label Studio, without the names of its tags; empty if it has none."""
        return []

    def studio_truth(self, results: Sequence[Mapping[str, Any]]) -> Truth:
        """Returns what the regions of an annotation say.

        Raises:
            ValueError: If they say nothing that the head takes; with a sentence.
        """
        raise ValueError("Label Studio has no form for vectors and tensors: decide in the console")
