"""Stage by stage: where on the way from a raw input to an answer a bundle leaves the author's own pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.bundle.columns import is_ragged, ragged
from rollout.bundle.differences import ROUNDING, difference, fitting
from rollout.bundle.evidence import Stage, WorstRow
from rollout.bundle.faults import NOISE
from rollout.bundle.parity import TOLERANCE, decided_otherwise, run_in_batches
from rollout.bundle.schema import Arrays, InputSchema, RawInputs
from rollout.bundle.side_by_side import draw
from rollout.bundle.source import Source
from rollout.errors import BundleError
from rollout.heads import Scores

WORST_ROWS = 4


class Answer(NamedTuple):
    """What the author's own pipeline made of one raw row; see ``reference.Answered``."""

    outputs: NDArray[np.float32]
    stages: dict[str, NDArray[Any]]
    label: str | None


class Ways(NamedTuple):
    """Both ways of the raw rows that the service takes.

    Attributes:
        schema: The fields.
        source: The module with its last step.
        numbers: The rows' numbers among all raw rows.
        sent: What the service gets.
        ours: What it decodes that to, for each field an array of shape ``(rows, *field.shape)``, or a ragged
            column.
        theirs: What the author's own pipeline answers.
        outputs: The author's outputs, in the shape of those of the module.
        expected: The scores that follow from these.
        scores: The scores of the module, from ``ours``.
    """

    schema: InputSchema
    source: Source
    numbers: list[int]
    sent: list[RawInputs]
    ours: Arrays
    theirs: list[Answer]
    outputs: NDArray[np.float32]
    expected: Scores
    scores: Scores

    def arrays(self, stage: str) -> list[NDArray[Any]]:
        """Returns the author's arrays at a stage; none if the author named no such stage."""
        return [answer.stages[stage] for answer in self.theirs if stage in answer.stages]

    def given(self) -> tuple[Arrays, list[str]]:
        """Returns the author's arrays where they fit, ours for other fields; and which fields these are."""
        given, own = dict(self.ours), []
        for name, ours in self.ours.items():
            theirs = self.arrays(name)
            cast = [_cast(array, like) for array, like in zip(theirs, ours, strict=True)] if theirs else []
            fits = [array for array in cast if array is not None]
            if theirs and len(fits) == len(ours):
                given[name] = ragged(fits) if is_ragged(ours) else np.stack(fits)
            else:
                own.append(name)
        return given, own


def compare_stages(ways: Ways) -> list[Stage]:
    """Compares the fields, the layers, what the module gives, and the scores, in the order of the way."""
    names = list(ways.theirs[0].stages)
    if any(answer.stages.keys() != ways.theirs[0].stages.keys() for answer in ways.theirs):
        raise BundleError("the reference names other stages for one raw row than for another")
    given, own = ways.given()
    note = f"from the bundle's own {', '.join(own)}" if own else ""
    stages = [_decoded(name, ways.ours[name], ways.arrays(name)) for name in ways.schema.fields if name in names]
    layers = [name for name in names if name not in ways.schema.fields]
    if layers:
        of_layers = _layer_outputs(ways, layers, given)
        stages += [
            _compare("layer", name, array, ways.arrays(name), NOISE, note) for name, array in of_layers.items()
        ]
    outputs = run_in_batches(ways.source.outputs, given)
    stages.append(_compare("outputs", "", outputs, list(ways.outputs), NOISE, note))
    far = ways.source.task.distances(ways.expected, ways.scores)
    return [*stages, _stage("scores", "", far, far > TOLERANCE)]


def worst_rows(ways: Ways, refused: Mapping[int, str]) -> tuple[list[WorstRow], dict[str, bytes]]:
    """Returns the rows that are furthest apart, and their pictures by file name."""
    rows = [
        WorstRow(row=number, text=f"the service would answer 422: {why}")
        for number, why in list(refused.items())[:WORST_ROWS]
    ]
    pictures: dict[str, bytes] = {}
    task = ways.source.task
    far = task.distances(ways.expected, ways.scores)
    flipped = decided_otherwise(task, ways.expected, ways.scores)
    moved = {name: _moved(array, ways.arrays(name)) for name, array in ways.ours.items()}
    has_moved = sum(moved.values(), np.zeros(len(far)))
    apart = flipped | (far > TOLERANCE) | (has_moved > 0)
    for at in [at for at in np.lexsort((-has_moved, -far, ~flipped)) if apart[at]][:WORST_ROWS]:
        number, texts, files = ways.numbers[at], [], []
        for name, field in ways.schema.fields.items():
            ours = ways.ours[name][at]
            theirs = fitting(ways.arrays(name)[at], ours.shape) if moved[name][at] else None
            if theirs is None:
                continue
            before, after = field.picture(theirs), field.picture(ours)
            if before is not None and after is not None:
                files.append(f"reference/row-{number}-{name}.png")
                pictures[files[-1]] = draw(before, after)
            else:
                texts.append(f"{name} {field.in_words(theirs)} became {field.in_words(ours)}")
        answer = f"{task.in_words(ways.expected[at])} became {task.in_words(ways.scores[at])}"
        rows.append(WorstRow(row=number, text="; ".join([answer, *texts]), pictures=files))
    return rows, pictures


def _cast(theirs: NDArray[Any], ours: NDArray[Any]) -> NDArray[Any] | None:
    """Returns the author's array as one of ours, if it fits and has no fraction that would be lost."""
    fits = fitting(theirs, ours.shape)
    if fits is None:
        return None
    with np.errstate(invalid="ignore"):
        cast = fits.astype(ours.dtype)
    return cast if np.allclose(cast.astype(np.float64), fits, ROUNDING, 0, equal_nan=True) else None


def _moved(ours: NDArray[Any], theirs: list[NDArray[Any]]) -> NDArray[np.float64]:
    """How far each row of a field is from the author's array, if there is one."""
    far = np.zeros(len(ours))
    for at, array in enumerate(theirs):
        fits = fitting(array, ours[at].shape)
        if fits is None:
            far[at] = np.inf
        else:
            apart, is_apart = difference(ours[at], fits)
            far[at] = apart.max(initial=0.0, where=is_apart)
    return far


def _decoded(name: str, ours: NDArray[Any], theirs: list[NDArray[Any]]) -> Stage:
    own = ours[0].dtype
    kinds = {array.dtype for array in theirs if (array.dtype.kind == "f") != (own.kind == "f")}
    note = f"the author's array is {kinds.pop()}, the bundle's {own}" if kinds else ""
    return _compare("decoded", name, ours, theirs, ROUNDING, note)


def _compare(
    where: Literal["decoded", "layer", "outputs"],
    name: str,
    ours: NDArray[Any],
    theirs: list[NDArray[Any]],
    rounding: float,
    note: str,
) -> Stage:
    far: list[NDArray[Any]] = []
    apart: list[bool] = []
    for own, array in zip(ours, theirs, strict=True):
        fits = fitting(array, own.shape)
        if fits is None:
            shapes = f"the author's array has shape {array.shape}, the bundle's {own.shape}"
            rows = len(theirs)
            return Stage(where=where, name=name, rows=rows, differ=rows, largest=None, mean=None, note=shapes)
        distances_of_row, is_apart = difference(own, fits, rounding)
        far.append(np.ravel(distances_of_row))
        apart.append(bool(np.any(is_apart)))
    return _stage(where, name, np.concatenate(far), np.array(apart), note)


def _stage(
    where: Literal["decoded", "layer", "outputs", "scores"],
    name: str,
    far: NDArray[Any],
    apart: NDArray[np.bool_],
    note: str = "",
) -> Stage:
    largest, mean = (
        float(figure) if np.isfinite(figure) else None for figure in (far.max(initial=0.0), far.mean())
    )
    differ = int(apart.sum())
    return Stage(where=where, name=name, rows=len(apart), differ=differ, largest=largest, mean=mean, note=note)


def _layer_outputs(ways: Ways, names: list[str], given: Arrays) -> Arrays:
    """Returns what layers of the module give for each row, in the order in which they are run."""
    layers = ways.source.layer_names()
    for name in names:
        if name not in layers:
            raise BundleError(
                f"the reference names a stage {name!r}, which is neither a field "
                f"({', '.join(ways.schema.fields)}) nor a layer of the module, such as "
                f"{', '.join(layers[:5]) or 'none here'}"
            )
    return ways.source.layer_outputs(given, names)
