"""Several answers of one model, each with a name and a head of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError, step_to
from rollout.heads.explained import Explained, require_name
from rollout.heads.head import Declared, Flags, Head, Numbers, Row, Scores, Translation
from rollout.heads.parts import Parts
from rollout.heads.review_evidence import ReviewEvidence
from rollout.heads.several_targets import OfSeveral
from rollout.heads.steps import Step
from rollout.heads.structured import SeveralAnswer, described, without_name
from rollout.heads.truth import Truth
from rollout.judge.features import Features, named


class Heads(msgspec.Struct, OfSeveral, frozen=True, kw_only=True, tag="heads", tag_field="kind"):
    """Several answers of one model.

    The module returns a tuple in the order of the heads, or a mapping or dataclass with their names, such as a
    ``ModelOutput``; each entry is what that head takes. A row goes to review if any head is unsure of it.
    Versions are compared, and a trial is judged, by one of the heads.

    Targets are a structured array with a field for each head that needs some; see ``targets_of``. People and
    callers say what was true of the judging head, and of any others that they know; of a row, each other head is
    learnt, calibrated and measured only if it is known.

    Attributes:
        heads: The heads, by names that are identifiers.
        judged_by: The head that versions are compared by; the first that can be right or wrong unless you say.

    Example:
        >>> from rollout.heads import Classification, Regression
        >>> Heads(heads={"late": Classification(labels=["no", "yes"]), "minutes": Regression()}).judged_by
        'late'
    """

    form: ClassVar[str] = "heads"
    panel: ClassVar[str] = "several"

    heads: dict[str, Head]
    judged_by: str = ""

    def __post_init__(self) -> None:
        for name, head in self.heads.items():
            if not name.isidentifier():
                raise ValueError(f"a head is called {name!r}: its name must be an identifier")
            if isinstance(head, Heads):
                raise ValueError(f"head {name} has heads of its own: put them beside the others")
        if not self.heads:
            raise ValueError("there is no head: heads={name: head}")
        if not self.judged_by:
            able = [name for name, head in self.heads.items() if head.form and head.has_loss]
            msgspec.structs.force_setattr(self, "judged_by", next(iter(able or self.heads)))
        elif self.judged_by not in self.heads:
            raise ValueError(f"judged_by is {self.judged_by!r}, and the heads are {', '.join(self.heads)}")

    @property
    def metric(self) -> str:  # type: ignore[override]  # it is that of a head
        """What the losses of the judging head are called."""
        return self.judge.metric

    @property
    def is_rate(self) -> bool:  # type: ignore[override]
        """Whether each loss of the judging head is from 0 to 1."""
        return self.judge.is_rate

    @property
    def has_loss(self) -> bool:  # type: ignore[override]
        """Whether an answer of the judging head can be right or wrong."""
        return self.judge.has_loss

    @property
    def measure(self) -> str:  # type: ignore[override]
        """What is right of the judging head, in words."""
        return self.judge.measure

    def judged(self, by: str) -> Self:
        """Returns it judged by another of its heads."""
        able = [name for name, head in self.asked.items() if head.has_loss]
        if by and by not in able:
            raise BundleError(f"the model has no head {by!r} that can be judged: there are {', '.join(able)}")
        return msgspec.structs.replace(self, judged_by=by) if by else self

    # What a module gives

    @property
    def parts(self) -> Parts:
        """Those of each head."""
        return {name: head.parts for name, head in self.heads.items()}

    @property
    def needs(self) -> str:
        """What a module has to return, in words."""
        return "; ".join(f"{name}: {head.needs}" for name, head in self.heads.items())

    def needs_at(self, path: Sequence[str]) -> str:
        """Says what the head of that name needs."""
        if not path:
            return self.needs
        return f"{path[0]}: {self.heads[path[0]].needs_at(path[1:])}"

    @property
    def last_step(self) -> Sequence[Step]:
        """Those of the heads, one after the other."""
        return [step for head in self.heads.values() for step in head.last_step]

    def check_inputs(self, fields: Mapping[str, Any]) -> None:
        """Refuses inputs that a head refuses."""
        for name, head in self.heads.items():
            try:
                head.check_inputs(fields)
            except BundleError as error:
                raise BundleError(f"{name}: {error.detail}") from None

    # Comparing

    def distances(self, expected: Scores, got: Scores) -> NDArray[np.float64]:
        """Returns the largest distance of a head, in its own units."""
        pairs = zip(self._own(expected), self._own(got), strict=True)
        return np.asarray(np.max([head.distances(one, other) for (_, head, one), (_, _, other) in pairs], axis=0))

    def flipped(self, expected: Scores, got: Scores) -> Flags:
        """Which rows get another answer of a head."""
        pairs = zip(self._own(expected), self._own(got), strict=True)
        return np.asarray(np.any([head.flipped(one, other) for (_, head, one), (_, _, other) in pairs], axis=0))

    def _unsure(self, scores: Scores) -> Flags:
        """Which heads send which rows to review, shape ``(rows, heads)``."""
        return np.stack([head.needs_review(own) for _, head, own in self._own(scores)], axis=1)

    def needs_review(self, scores: Scores) -> Flags:
        """Which rows a head is unsure of."""
        return np.asarray(self._unsure(scores).any(1))

    def sureness(self, scores: Scores) -> NDArray[np.float32]:
        """How sure the least sure head is, as the place of the row among all of that head's."""
        places = [np.argsort(np.argsort(head.sureness(own))) for _, head, own in self._own(scores)]
        return np.asarray(np.min(places, axis=0), np.float32)

    def mean_loss(self, figures: Mapping[str, float]) -> float:
        """Returns that of the judging head."""
        return self.judge.mean_loss(without_name(self.judged_by, figures))

    def in_words(self, scores: Scores) -> str:
        """Says what each head answers."""
        return "; ".join(f"{name} {head.in_words(own)}" for name, head, own in self._own(scores))

    # In words and figures

    @property
    def review_limit(self) -> float:
        """That of the judging head."""
        return self.judge.review_limit

    @property
    def reviews_everything(self) -> bool:
        """Whether a head sends everything to review."""
        return any(head.reviews_everything for head in self.heads.values())

    @property
    def policy(self) -> str:
        """What goes to review, head by head."""
        return "; ".join(f"of {name}, {head.policy}" for name, head in self.heads.items())

    @property
    def summary(self) -> str:
        """What each head answers with."""
        return " ".join(f"{name}: {head.summary}" for name, head in self.heads.items())

    @property
    def unit_of_scores(self) -> str:
        """What differences are of."""
        return "a number, in the unit of its head"

    def report(self, figures: Mapping[str, float], review: ReviewEvidence | None) -> tuple[str, dict[str, str]]:
        """Says what calibration found, head by head."""
        texts: list[str] = []
        facts: dict[str, str] = {}
        for name, head in self.heads.items():
            text, own = head.report(
                without_name(name, figures), None if review is None else review.heads.get(name)
            )
            texts.append(f"{name}: {text}")
            facts |= {f"{name}: {fact}": value for fact, value in own.items()}
        return " ".join(texts), facts

    # Labels

    @property
    def labels_used(self) -> Sequence[str]:
        """The labels of all heads."""
        return list(dict.fromkeys(label for head in self.heads.values() for label in head.labels_used))

    @property
    def signature(self) -> tuple[object, ...]:
        """The names and what each would show."""
        return ("Heads", self.judged_by, *((name, *head.signature) for name, head in self.heads.items()))

    def public(self, meanings: Mapping[str, str]) -> Self:
        """Returns it with each head in the labels that callers see."""
        heads = {name: head.public(meanings) for name, head in self.heads.items()}
        return self if heads == self.heads else msgspec.structs.replace(self, heads=heads)

    def translation(self, public: Head, meanings: Mapping[str, str]) -> Translation | None:
        """Returns what translates the numbers of each head."""
        others = public.heads if isinstance(public, Heads) else {}
        found = {name: head.translation(others[name], meanings) for name, head in self.heads.items()}
        if not any(found.values()):
            return None

        def translate(numbers: Numbers) -> Numbers:
            flags = numbers[:, : len(self.heads)]
            own = ((found[name], columns) for name, _, columns in self._numbers(numbers))
            return np.concatenate([flags, *(each(columns) if each else columns for each, columns in own)], axis=1)

        return translate

    # Answering

    def can_go_out(self, scores: Scores) -> NDArray[np.bool_]:
        """Which scores each head can answer with."""
        return np.concatenate([head.can_go_out(own) for _, head, own in self._own(scores)], axis=1)

    def numbers(self, scores: Scores) -> Numbers:
        """Whether each head is unsure, and the numbers of each."""
        own = [head.numbers(columns) for _, head, columns in self._own(scores)]
        return np.concatenate([self._unsure(scores).astype(np.float64), *own], axis=1)

    @property
    def columns(self) -> int:
        """A flag for each head, and their numbers."""
        return sum(1 + head.columns for head in self.heads.values())

    def _numbers(self, numbers: Numbers) -> Iterator[tuple[str, Head, Numbers]]:
        start = len(self.heads)
        for name, head in self.heads.items():
            yield name, head, numbers[:, start : start + head.columns]
            start += head.columns

    def _rows(self, row: Row) -> Iterator[tuple[str, Head, Row]]:
        start = len(self.heads)
        for name, head in self.heads.items():
            yield name, head, row[start : start + head.columns]
            start += head.columns

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        """An object by the names of the heads."""
        return SeveralAnswer

    def described_type(self, name: str) -> type[tuple[Any, ...]]:
        """An object with a field for each head, with the answer of that head."""
        own = {each: head.described_type(f"{name}Heads_{each}") for each, head in self.heads.items()}
        return described(f"{name}Heads", own)

    def answer(self, row: Row) -> Any:
        """Returns the answers of all heads."""
        return SeveralAnswer({name: head.answer(own)._asdict() for name, head, own in self._rows(row)})

    def explained(self, row: Row, label: str = "", head: str = "") -> Explained:
        """A number of the head that is named, or of the one that versions are compared by."""
        asked = require_name("head", head or self.judged_by, list(self.heads))
        found = next(one.explained(own, label) for name, one, own in self._rows(row) if name == asked)
        return found.within(asked, lambda rows: next(own for at, _, own in self._numbers(rows) if at == asked))

    def confidences(self, numbers: Numbers) -> NDArray[np.float64] | None:
        """Returns those of the judging head."""
        return next(head.confidences(own) for name, head, own in self._numbers(numbers) if name == self.judged_by)

    def unsure(self, row: Row) -> str | None:
        """Names the heads that are unsure."""
        return ", ".join(name for name, flag in zip(self.heads, row, strict=False) if flag) or None

    def features(self, numbers: Numbers) -> Features:
        """Returns those of each head."""
        each = (named(name, head.features(own)) for name, head, own in self._numbers(numbers))
        return {name: feature for features in each for name, feature in features.items()}

    def declared(self) -> dict[str, Declared]:
        """The tensors of each head, such as ``late.label``."""
        heads = self.heads.items()
        return {f"{name}.{own}": each for name, head in heads for own, each in head.declared().items()}

    def tensor(self, name: str, numbers: Numbers) -> NDArray[Any] | list[str]:
        """Returns a tensor of a head."""
        head_name, _, own_name = name.partition(".")
        return next(head.tensor(own_name, own) for each, head, own in self._numbers(numbers) if each == head_name)

    def table(self) -> dict[str, tuple[Any, Sequence[str] | None]]:
        """The columns of each head, such as ``late.label``."""
        heads = self.heads.items()
        return {f"{name}.{own}": each for name, head in heads for own, each in head.table().items()}

    def table_row(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the answers of all heads side by side."""
        given = answer["heads"]
        rows = ((name, head.table_row(given[name])) for name, head in self.heads.items())
        return {f"{name}.{own}": value for name, row in rows for own, value in row.items()}

    def agree(self, ours: Row, theirs: Row) -> bool:
        """Whether the judging head decides the same."""
        pairs = zip(self._rows(ours), self._rows(theirs), strict=True)
        return next(head.agree(one, other) for (n, head, one), (_, _, other) in pairs if n == self.judged_by)

    def distance(self, ours: Row, theirs: Row) -> float:
        """Returns the distance of the judging head."""
        pairs = zip(self._rows(ours), self._rows(theirs), strict=True)
        return next(head.distance(one, other) for (n, head, one), (_, _, other) in pairs if n == self.judged_by)

    def each(self, answer: Mapping[str, Any]) -> dict[str, tuple[Head, Mapping[str, Any]]]:
        """Returns each head with its answer."""
        return {name: (head, answer["heads"][name]) for name, head in self.heads.items()}

    # What people and callers say

    def form_faults(self, truth: Truth) -> Iterator[tuple[str, str]]:
        """Yields that the judging head is missing, that another is unknown, and what each finds wrong."""
        said = truth.heads or {}
        for name in said:
            if name not in self.asked:
                able = ", ".join(self.asked)
                yield f"/heads{step_to(name)}", f"is no head that takes an answer: there are {able}"
        for name, head in self.asked.items():
            if name not in said:
                if name == self.judged_by:
                    yield f"/heads{step_to(name)}", "is required"
                continue
            for pointer, detail in head.faults(said[name]):
                yield f"/heads{step_to(name)}{pointer}", detail

    def loss(self, answer: Mapping[str, Any], truth: Truth) -> float | None:
        """Returns the loss of the judging head."""
        said = (truth.heads or {}).get(self.judged_by)
        return None if said is None else self.judge.loss(answer["heads"][self.judged_by], said)

    def truth_distance(self, one: Truth, other: Truth) -> float:
        """Returns the mean over the heads."""
        mine, theirs = one.heads or {}, other.heads or {}
        both = [self.heads[name].truth_distance(mine[name], theirs[name]) for name in mine if name in theirs]
        return float(np.mean(both)) if both else float(one != other)

    def brief(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what is kept of each head's."""
        return {"heads": {name: head.brief(answer["heads"][name]) for name, head in self.heads.items()}}

    def agreed(self, one: Truth, other: Truth) -> Truth | None:
        """Returns what both say together: of a head that one of them left out, what the other says."""
        mine, theirs = one.heads or {}, other.heads or {}
        both = {name: self.heads[name].agreed(mine[name], theirs[name]) for name in mine if name in theirs}
        agreed = {name: truth for name, truth in both.items() if truth is not None}
        return Truth(heads={**mine, **theirs, **agreed}) if len(agreed) == len(both) else None

    def uncertainty(self, answer: Mapping[str, Any]) -> float:
        """Returns the largest of the heads'."""
        return max(head.uncertainty(answer["heads"][name]) for name, head in self.heads.items())

    def says(self, answer: Mapping[str, Any]) -> str:
        """Says the answer of each head."""
        return "; ".join(f"{name}: {head.says(answer['heads'][name])}" for name, head in self.heads.items())

    def accepted(self, answer: Mapping[str, Any]) -> Truth | None:
        """Returns what somebody says who finds all heads right."""
        said = {name: head.accepted(answer["heads"][name]) for name, head in self.asked.items()}
        sure = {name: truth for name, truth in said.items() if truth is not None}
        return Truth(heads=sure) if len(sure) == len(said) else None

    def labels_of(self, answer: Mapping[str, Any]) -> list[str]:
        """Returns the labels in the answers of all heads."""
        return [label for name, head in self.heads.items() for label in head.labels_of(answer["heads"][name])]

    def studio_result(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns the regions of all heads, each under the name of its head, or ``head.part`` if it has parts."""
        return [
            {**region, "from_name": f"{name}.{region['from_name']}" if "from_name" in region else name}
            for name, head in self.heads.items()
            for region in head.studio_result(answer["heads"][name])
        ]

    def studio_truth(self, results: Sequence[Mapping[str, Any]]) -> Truth:
        """Returns what the regions of each head say."""
        said: dict[str, Truth] = {}
        for name, head in self.asked.items():
            named = [(each, *str(each.get("from_name", "")).partition(".")) for each in results]
            own = [{**each, "from_name": part} for each, head_name, _, part in named if head_name == name]
            if not own and name != self.judged_by:
                continue
            try:
                said[name] = head.studio_truth(own)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return Truth(heads=said)
