"""Screening: every variant is exported and compared with its source, then kept or left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rollout.bundle.capture import explain
from rollout.bundle.golden import Golden
from rollout.bundle.manifest import LeftOut, PackedVariant
from rollout.bundle.mcnemar import mcnemar
from rollout.bundle.module import first_line
from rollout.bundle.parity import (
    MAX_BATCH,
    Parity,
    compare,
    count,
    distances,
    run_in_batches,
    run_in_every_size,
    take,
)
from rollout.bundle.schema import Arrays, Labelled
from rollout.bundle.source import Source
from rollout.bundle.task import Scores
from rollout.bundle.variants import Variant
from rollout.errors import BundleError

EXAMPLES = "examples"
WORST_ROWS = 3
SIGNIFICANT = 0.05


class Screening:
    """Compares variants with a source.

    Args:
        source: What they are exported from, with its task calibrated.
        calibration: What a quantization is calibrated on.
        evaluation: Real rows, with their targets.
        scores: The source's scores of these.
        golden: Examples with the source's scores.
        further: Further inputs by name: random, extreme, and ``EXAMPLES``, which even a quantized variant must
            answer as the source does.
        flip_rate: Largest share of real rows that a variant in lower precision may answer differently.

    Raises:
        BundleError: If the source itself decides differently for a row when the rest of its batch changes.
    """

    def __init__(
        self,
        source: Source,
        calibration: Arrays,
        evaluation: Labelled,
        scores: Scores,
        golden: Golden,
        further: dict[str, Arrays],
        flip_rate: float,
    ) -> None:
        self._source = source
        self._calibration = calibration
        self._targets = evaluation.targets
        self._flip_rate = flip_rate
        self._probes = {
            "evaluation": Golden(evaluation.inputs, scores),
            "golden": golden,
            **{name: Golden(inputs, run_in_batches(source.run, inputs)) for name, inputs in further.items()},
        }
        spread = np.linspace(0, count(evaluation.inputs) - 1, MAX_BATCH).astype(int)
        self._neighbours = take(evaluation.inputs, np.unique(spread))
        try:
            self._alone = run_in_batches(source.run, self._neighbours, size=1)
        except Exception as error:
            raise BundleError(f"the module cannot answer a single row: {explain(error)}") from error
        try:
            rows, scores = run_in_every_size(source.run, self._neighbours)
        except Exception as error:
            raise BundleError(f"the module cannot answer batches of every size: {explain(error)}") from error
        if not compare(source.task, self._alone[rows], scores).is_exact:
            raise BundleError(
                f"{source.batch_dependent_layer(self._neighbours)} answers for a row according to the rest of "
                "its batch: a prediction would depend on other callers"
            )

    def export(self, kind: type[Variant], folder: Path) -> PackedVariant | LeftOut:
        """Writes a variant into ``folder`` and compares it; one that does not pass is removed again."""
        path = folder / kind.file
        path.parent.mkdir()
        try:
            kind.export(self._source, self._calibration, folder)
            variant = kind(path)
            got = {name: run_in_batches(variant.run, probe.inputs) for name, probe in self._probes.items()}
            parity = {
                name: compare(self._source.task, probe.scores, got[name]) for name, probe in self._probes.items()
            }
            rows, scores = run_in_every_size(variant.run, self._neighbours)
            alone = run_in_batches(variant.run, self._neighbours, size=1)
            parity["batch sizes"] = compare(self._source.task, alone[rows], scores)
        except Exception as error:
            outcome: PackedVariant | LeftOut = LeftOut(why=f"it cannot be made: {first_line(error)}")
        else:
            why = self._fault(kind, parity, got["evaluation"])
            outcome = (
                PackedVariant(file=kind.file, parity=parity, is_exact=kind.is_exact)
                if why is None
                else LeftOut(why=why, worst=self._worst(got))
            )
        if isinstance(outcome, LeftOut):
            for file in path.parent.iterdir():
                file.unlink()
            path.parent.rmdir()
        return outcome

    def _fault(self, kind: type[Variant], parity: dict[str, Parity], scores: Scores) -> str | None:
        for name, found in parity.items():
            if (kind.is_exact or name == "batch sizes") and not found.is_exact:
                return f"it disagrees with the source ({name}): {found}"
            if not np.isfinite(found.largest_difference):
                return f"it gives scores that are not finite ({name})"
        if kind.is_exact:
            return None
        return self._fault_of_reduced(parity, scores)

    def _fault_of_reduced(self, parity: dict[str, Parity], scores: Scores) -> str | None:
        real = parity["evaluation"]
        if real.answers_flipped > self._flip_rate * real.rows:
            return f"it answers more than {self._flip_rate:.2%} of the evaluation part differently: {real}"
        if EXAMPLES in parity and parity[EXAMPLES].answers_flipped:
            return f"it answers an example of yours differently: {parity[EXAMPLES]}"
        task, expected = self._source.task, self._probes["evaluation"].scores
        was_right, is_right = task.right(expected, self._targets), task.right(scores, self._targets)
        lost, won = int((was_right & ~is_right).sum()), int((~was_right & is_right).sum())
        p_value = mcnemar(lost, won)
        if lost > won and p_value < SIGNIFICANT:
            return f"it is significantly worse: {lost} rows lost, {won} won, exact McNemar p = {p_value:.2g}"
        return None

    def _worst(self, got: dict[str, Scores]) -> list[str]:
        task = self._source.task
        lines = []
        for name, probe in self._probes.items():
            far = distances(task, probe.scores, got[name])
            flipped = task.flipped(probe.scores, got[name])
            order = np.lexsort((-far, ~flipped))[:WORST_ROWS]
            lines += [
                f"{name} row {row}: {task.in_words(probe.scores[row])} became {task.in_words(got[name][row])}"
                for row in order
                if far[row] > 0
            ]
        return lines
