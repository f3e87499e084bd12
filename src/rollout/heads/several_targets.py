"""What several heads make of their targets: each of its own, of the rows of which it is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.errors import BundleError, ConfigError
from rollout.heads.confusion import Confusion, most_frequent
from rollout.heads.doubts import Suspects, of_heads
from rollout.heads.head import Flags, Head, Scores
from rollout.heads.measured import Evaluated, Measured
from rollout.heads.review_evidence import ReviewEvidence
from rollout.heads.structured import columns_of, known, rows_of, targets_of
from rollout.heads.truth import Truth

T = TypeVar("T", bound=np.generic)


class OfSeveral(Head):
    """Targets of several heads, a structured array with a field for each head that needs some.

    Of a row, one that versions are not compared by may be unknown: it is no part of what is said of that head.
    """

    __slots__ = ()

    heads: dict[str, Head]
    judged_by: str

    @property
    def judge(self) -> Head:
        """The head that versions are compared by."""
        return self.heads[self.judged_by]

    @property
    def asked(self) -> dict[str, Head]:
        """The heads that take a truth."""
        return {name: head for name, head in self.heads.items() if head.form}

    @property
    def each_head(self) -> Mapping[str, Head]:
        """The heads by name."""
        return self.heads

    @property
    def _needed(self) -> list[str]:
        return [name for name, head in self.heads.items() if head.needs_targets or name == self.judged_by]

    def _own(self, table: NDArray[T]) -> Iterator[tuple[str, Head, NDArray[T]]]:
        """Yields each head with its columns of outputs or scores, or of one row of them."""
        start = 0
        for name, head in self.heads.items():
            yield name, head, table[..., start : start + head.width]
            start += head.width

    def _judged(self, table: NDArray[T]) -> NDArray[T]:
        return next(own for name, _, own in self._own(table) if name == self.judged_by)

    def check_targets(self, targets: NDArray[Any]) -> None:
        """Refuses targets that are no structured array, or that a head refuses."""
        named, needed = set(columns_of(targets)), self._needed
        if not set(needed) <= named <= set(self.asked):
            raise BundleError(
                f"targets must have one for each of the heads {', '.join(needed)}: "
                f"rollout.targets_of({', '.join(f'{name}=…' for name in needed)}) makes them"
            )
        if lacking := int((~known(targets, self.judged_by)).sum()):
            raise BundleError(
                f"{lacking} of {len(targets)} targets say nothing of {self.judged_by}, by which versions are "
                "compared"
            )
        for name in sorted(named):
            own = rows_of(targets, name)
            try:
                if len(own):
                    self.heads[name].check_targets(own)
            except BundleError as error:
                raise BundleError(f"{name}: {error.detail}") from None

    def targets(self, truths: Sequence[Truth]) -> NDArray[Any]:
        """Makes a structured array of what people said; of a head that nobody speaks of, it has nothing."""
        made: dict[str, NDArray[Any]] = {}
        for name in self._needed:
            said = [(truth.heads or {}).get(name) for truth in truths]
            if not (own := [truth for truth in said if truth is not None]) and truths:
                continue
            found = self.heads[name].targets(own)
            mask = np.array([truth is None for truth in said], bool)
            column = np.ma.zeros((len(truths), *found.shape[1:]), found.dtype)
            column[~mask] = found
            column[mask] = np.ma.masked
            made[name] = column
        return targets_of(**made)

    def is_complete(self, truth: Truth) -> bool:
        """Whether it speaks of every head that is learnt."""
        return set(self._needed) <= set(truth.heads or {})

    def calibrated(
        self, outputs: NDArray[np.float32], targets: NDArray[Any]
    ) -> tuple[Self, ReviewEvidence | None]:
        """Calibrates each head by itself, on the rows of which it is known."""
        done: dict[str, Head] = {}
        found: dict[str, ReviewEvidence] = {}
        for name, head, own in self._own(outputs):
            done[name] = head
            if name in columns_of(targets):
                try:
                    done[name], evidence = head.calibrated(own[known(targets, name)], rows_of(targets, name))
                except BundleError as error:
                    raise BundleError(f"{name}: {error.detail}") from None
                if evidence is not None:
                    found[name] = evidence
        judge = found.get(self.judged_by) or next(iter(found.values()), None)
        evidence = None if judge is None else msgspec.structs.replace(judge, heads=found)
        return msgspec.structs.replace(self, heads=done), evidence  # type: ignore[type-var]  # its kind is a struct

    def right(self, scores: Scores, targets: NDArray[Any]) -> Flags:
        """Which rows the judging head answers right."""
        return self.judge.right(self._judged(scores), targets[self.judged_by])

    def losses(self, scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
        """The losses of the judging head."""
        return self.judge.losses(self._judged(scores), targets[self.judged_by])

    def answer_losses(self, answers: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
        """Those of the judging head, whose answers may stand alone."""
        own = answers[self.judged_by] if answers.dtype.names else answers
        return self.judge.answer_losses(own, targets[self.judged_by])

    def measured(self, part: Evaluated) -> Measured:
        """Returns the figures of all heads, with their names before them, and the diagram of the judging one."""
        outputs, targets = part.calibration
        figures: dict[str, float] = {}
        diagram = ""
        columns = zip(self._own(outputs), self._own(part.outputs), self._own(part.scores), strict=True)
        for (name, head, calibration), (_, _, evaluation), (_, _, scores) in columns:
            if name in columns_of(targets):
                before, now = known(targets, name), known(part.targets, name)
                own = Evaluated(
                    (calibration[before], rows_of(targets, name)),
                    evaluation[now],
                    scores[now],
                    rows_of(part.targets, name),
                )
                found = head.measured(own)
                figures |= {f"{name}_{figure}": value for figure, value in found.figures.items()}
                diagram = found.diagram if name == self.judged_by else diagram
        return Measured(figures, diagram)

    # Mistakes

    def target_in_words(self, target: Any) -> str:
        """Says the target of each head of which it is known."""
        row = np.array([target], target.dtype)
        said = [
            f"{name} {self.heads[name].target_in_words(row[name][0])}"
            for name in columns_of(row)
            if known(row, name)[0]
        ]
        return "; ".join(said)

    def confusions(self, scores: Scores, targets: NDArray[Any]) -> list[Confusion]:
        """Returns those of each head, with its name before what was true."""
        return most_frequent(
            [
                one._replace(truth=f"{name}: {one.truth}", rows=at[one.rows])
                for name, head, own, at in self._known(scores, targets)
                for one in head.confusions(own, rows_of(targets, name))
            ]
        )

    def suspects(self, scores: Scores, targets: NDArray[Any]) -> Suspects:
        """Finds rows of which a head has a target that is probably wrong.

        Raises:
            ConfigError: If this can be said of none of the heads, or what finds them is not installed.
        """
        found: dict[str, Suspects] = {}
        refused: ConfigError | None = None
        for name, head, own, at in self._known(scores, targets):
            try:
                one = head.suspects(own, rows_of(targets, name))
            except ConfigError as error:
                refused = error
            else:
                found[name] = one._replace(rows=at[one.rows])
        if refused is not None and not found:
            raise refused
        return of_heads(found)

    def _known(
        self, scores: Scores, targets: NDArray[Any]
    ) -> Iterator[tuple[str, Head, Scores, NDArray[np.intp]]]:
        """Yields each head with its scores of the rows of which it is known, and these."""
        for name, head, own in self._own(scores):
            if name in columns_of(targets):
                at = np.flatnonzero(known(targets, name))
                yield name, head, own[at], at
