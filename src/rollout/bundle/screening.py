"""Screening: every variant is exported and compared with its source, then kept or left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rollout.bundle.capture import explain
from rollout.bundle.columns import sizes, widths
from rollout.bundle.effort import Effort, Packing, RowsToScore
from rollout.bundle.fields import Field
from rollout.bundle.golden import Golden
from rollout.bundle.manifest import LeftOut, PackedVariant
from rollout.bundle.mcnemar import mcnemar
from rollout.bundle.memory import taken_by
from rollout.bundle.module import first_line
from rollout.bundle.parity import (
    ELSEWHERE,
    MAX_BATCH,
    TOLERANCE,
    Parity,
    Run,
    compare,
    count,
    decided_otherwise,
    run_in_batches,
    run_in_sizes,
    take,
)
from rollout.bundle.precision import tolerances
from rollout.bundle.probes import gaps, whole_rows
from rollout.bundle.schema import Arrays, Labelled
from rollout.bundle.source import Source
from rollout.bundle.variants import VARIANTS, Variant
from rollout.errors import BundleError
from rollout.heads import Scores

EXAMPLES = "examples"
REFERENCE = "reference"
BATCH_SIZES = "batch sizes"
WORST_ROWS = 3
PADDED_ROWS = 8
SIGNIFICANT = 0.05


def require_answers(source: Source, fields: dict[str, Field], rows: Arrays) -> None:
    """Takes away of one row what may be missing, one after the other: the module must answer all the same.

    Args:
        source: The module.
        fields: The fields.
        rows: Real rows.

    Raises:
        BundleError: If it gives a score that is not finite; the sentence names the field.
    """
    whole = whole_rows(fields, rows)
    row = take(rows, slice(at := int(whole.argmax()), at + 1))
    if not np.isfinite(source.run(row)).all():
        return  # whatever the reason, it is not what is missing
    for name, lacking in gaps(fields, row):
        if not np.isfinite(source.run(lacking)).all():
            raise BundleError(
                f"the module answers NaN or infinity where {name} is missing, which its field allows: put a "
                "number in its place inside forward, as rollout.layers.FillMissing does, or give a default"
            )


def require_masks(source: Source, fields: dict[str, Field], rows: Arrays) -> None:
    """Pads rows of all lengths by a step, as beside a slightly longer row, and as far as their field allows.

    Args:
        source: The module.
        fields: The fields; where none has a free dimension, there is nothing to do.
        rows: Real rows.

    Raises:
        BundleError: If an answer changes; the sentence names the first layer whose output does.
    """
    longest = {name: field.free.longest for name, field in fields.items() if field.free}
    if not longest:
        return
    order = np.argsort(sizes(rows).sum(1), kind="stable")
    for row in order[np.unique(np.linspace(0, len(order) - 1, PADDED_ROWS).astype(int))]:
        alone = take(rows, slice(row, row + 1))
        slightly = {name: min(width + 1, longest[name]) for name, width in widths(alone).items()}
        for least in (slightly, longest):
            if layer := source.padding_dependent_layer(alone, least):
                raise BundleError(
                    f"{layer} answers for a row according to how far it is padded: a prediction would depend on "
                    "other callers. Let forward use the lengths that it gets: as a mask, to pick the last step "
                    "of each row, or for pack_padded_sequence where a layer goes backwards, too"
                )


def require_numbers(is_number: NDArray[np.bool_], what: str) -> None:
    """Refuses a module that does not answer some rows with numbers.

    Args:
        is_number: Of each output, shape ``(rows, outputs)``, or of each row.
        what: What the rows are.

    Raises:
        BundleError: If one is none.
    """
    rows = np.flatnonzero(~is_number.reshape(len(is_number), -1).all(1))
    if len(rows):
        raise BundleError(
            f"the module answers NaN or infinity for {len(rows)} of {len(is_number)} {what}, the first of them "
            f"row {rows[0]}: it must answer everything that its fields allow"
        )


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
        effort: How much is compared.
        on_progress: Called after each batch that is scored.
        kinds: How many kinds of variants there are to compare.
        reference: Raw rows, decoded, with the scores of the author's own pipeline.

    Raises:
        BundleError: If the source itself decides differently for a row when the rest of its batch changes, or
            gives scores that are not finite.
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
        effort: Effort,
        on_progress: Callable[[Packing], None],
        kinds: int = len(VARIANTS),
        reference: Golden | None = None,
    ) -> None:
        self._source = source
        self._effort = effort
        self._calibration = calibration
        self._targets = evaluation.targets
        self._flip_rate = flip_rate
        spread = np.linspace(0, count(evaluation.inputs) - 1, MAX_BATCH).astype(int)
        self._neighbours = take(evaluation.inputs, np.unique(spread))
        held = [evaluation.inputs, golden.inputs, *further.values(), self._neighbours]
        self._rows = sum(map(count, held)) + sum(effort.sizes)  # that a variant scores
        self._largest = np.arange(effort.sizes[-1]) % count(self._neighbours)
        self._progress = RowsToScore(self._rows * (1 + kinds), on_progress)
        self._exported = 0
        run = self._progress.counting(source.run)
        self._probes = {
            "evaluation": Golden(evaluation.inputs, scores),
            "golden": golden,
            **{name: Golden(inputs, self._batches(run, inputs, 1)) for name, inputs in further.items()},
        }
        for name, probe in self._probes.items():
            require_numbers(np.isfinite(probe.scores), f"{name} inputs")
        measured = tolerances(source, self._probes, effort.precise_rows)
        # What real rows are allowed, of which golden examples are the least sure, others are as well.
        real = max(measured["evaluation"], measured["golden"])
        self._tolerances = {name: max(real, own) for name, own in (measured | {BATCH_SIZES: real}).items()}
        self._tolerances["golden"] = real
        if reference is not None:
            self._probes[REFERENCE] = reference
        try:
            self._alone = run_in_batches(run, self._neighbours, size=1)
        except Exception as error:
            raise BundleError(f"the module cannot answer a single row: {explain(error)}") from error
        try:
            rows, scores = run_in_sizes(run, self._neighbours, effort.sizes)
        except Exception as error:
            raise BundleError(f"the module cannot answer batches of every size: {explain(error)}") from error
        if not compare(source.task, self._alone[rows], scores, real).is_exact:
            raise BundleError(
                f"{source.batch_dependent_layer(self._neighbours)} answers for a row according to the rest of "
                "its batch: a prediction would depend on other callers"
            )

    def export(self, kind: type[Variant], folder: Path) -> PackedVariant | LeftOut:
        """Writes a variant into ``folder`` and compares it; one that does not pass is removed again."""
        self._exported += 1
        self._progress.reach(self._rows * self._exported)
        device, *others = reversed(kind.devices()) if kind.is_for_gpu else kind.devices()
        path = folder / kind.file
        path.parent.mkdir()
        try:
            kind.export(self._source, self._calibration, folder)
            (run, largest), memory = taken_by(lambda: self._loaded(kind, path, device), device)
            at_a_time = self._effort.at_a_time
            got = {name: self._batches(run, probe.inputs, at_a_time) for name, probe in self._probes.items()}
            parity = {name: self._compare(name, probe.scores, got[name]) for name, probe in self._probes.items()}
            rows, scores = run_in_sizes(run, self._neighbours, self._effort.sizes[:-1], at_a_time)
            alone = run_in_batches(run, self._neighbours, 1, at_a_time)
            parity[BATCH_SIZES] = self._compare(
                BATCH_SIZES,
                alone[np.concatenate([rows, self._largest])],
                np.concatenate([scores, largest]),
            )
        except Exception as error:
            outcome: PackedVariant | LeftOut = LeftOut(why=f"it cannot be made: {first_line(error)}")
        else:
            why = self._fault(kind, parity, got)
            outcome = (
                PackedVariant(
                    file=kind.file,
                    parity=parity,
                    is_exact=kind.is_exact,
                    device=device,
                    elsewhere=self._elsewhere(kind, path, others),
                    memory=memory,
                )
                if why is None
                else LeftOut(why=why, worst=self._worst(got))
            )
        if isinstance(outcome, LeftOut):
            for file in path.parent.iterdir():
                file.unlink()
            path.parent.rmdir()
        return outcome

    def _loaded(self, kind: type[Variant], path: Path, device: str) -> tuple[Run, Scores]:
        """Loads a variant and runs the largest batch, for which it takes what memory it ever does.

        Returns:
            What scores a batch and counts its rows, and the scores of this one.
        """
        run = self._progress.counting(kind(path, 1, device).run)
        return run, run(take(self._neighbours, self._largest))

    def _batches(self, run: Run, inputs: Arrays, at_a_time: int) -> Scores:
        return run_in_batches(run, inputs, self._effort.batch_size, at_a_time)

    def _elsewhere(self, kind: type[Variant], path: Path, devices: Iterable[str]) -> dict[str, Parity]:
        """Compares the golden examples on other devices; where it cannot be run, a worker there says so."""
        golden, tolerance = self._probes["golden"], max(self._tolerances["golden"], ELSEWHERE)
        found = {}
        for device in devices:
            with suppress(Exception):
                scores = self._batches(kind(path, 1, device).run, golden.inputs, 1)
                found[device] = compare(self._source.task, golden.scores, scores, tolerance)
        return found

    def _compare(self, name: str, expected: Scores, got: Scores) -> Parity:
        return compare(self._source.task, expected, got, self._tolerances.get(name, TOLERANCE))

    def _fault(self, kind: type[Variant], parity: dict[str, Parity], got: dict[str, Scores]) -> str | None:
        for name, found in parity.items():
            is_exact = (kind.is_exact and name != REFERENCE) or name == BATCH_SIZES
            if is_exact and not found.is_exact:
                return f"it disagrees with the source ({name}): {found}"
            if not np.isfinite(found.largest_difference):
                return f"it gives scores that are not finite ({name})"
        why = self._fault_from_raw(kind, got[REFERENCE]) if REFERENCE in got else None
        if why is not None or kind.is_exact:
            return why
        return self._fault_of_reduced(parity, got["evaluation"])

    def _fault_from_raw(self, kind: type[Variant], scores: Scores) -> str | None:
        """Looks at raw rows that the source decides as the author's own pipeline does."""
        task, (inputs, expected) = self._source.task, self._probes[REFERENCE]
        of_source = decided_otherwise(task, expected, self._batches(self._source.run, inputs, 1))
        rows = int((decided_otherwise(task, expected, scores) & ~of_source).sum())
        if rows > (0.0 if kind.is_exact else self._flip_rate) * len(expected):
            return (
                f"it decides {rows} of {len(expected)} raw rows ({REFERENCE}) otherwise than the author's own "
                "pipeline, where the source does not"
            )
        return None

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
            far = task.distances(probe.scores, got[name])
            flipped = task.flipped(probe.scores, got[name])
            order = np.lexsort((-far, ~flipped))[:WORST_ROWS]
            lines += [
                f"{name} row {row}: {task.in_words(probe.scores[row])} became {task.in_words(got[name][row])}"
                for row in order
                if far[row] > 0
            ]
        return lines
