"""The sentence that refuses a bundle: where the ways part, and what to do where that is certain."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from rollout.bundle.columns import bare
from rollout.bundle.differences import better_settings, difference, fitting, in_figures, other_order
from rollout.bundle.evidence import Stage
from rollout.bundle.faults import NOISE
from rollout.bundle.fields import Field
from rollout.bundle.parity import run_in_batches, take
from rollout.bundle.schema import InputSchema, InvalidInputsError
from rollout.bundle.stages import Ways


def explain(ways: Ways, refused: Mapping[int, str], stages: list[Stage]) -> str:
    """Says in a sentence where the ways part, and what to do where that is certain."""
    parts = [f"raw row {number} would be answered with a 422: {why}" for number, why in list(refused.items())[:1]]
    apart = [stage for stage in stages if stage.differ and stage.where != "scores"]
    for stage in apart:
        if stage.where == "decoded":
            parts.append(f"{stage.name} differs already when it is decoded, {_by_how_much(ways, stage)}")
            if settings := better_settings(
                ways.schema.fields[stage.name], partial(_decodes_alike, ways, stage.name)
            ):
                parts.append(f"{settings} would decode every row to the author's array")
    if layer := next((stage for stage in apart if stage.where == "layer"), None):
        parts.append(f"in the graph, layer {layer.name} is the first to differ, {_by_how_much(ways, layer)}")
    for stage in apart:
        if stage.where == "outputs":
            given = stage.note or "from the author's own arrays"
            parts.append(f"the module gives other outputs, {given}, {_by_how_much(ways, stage)}")
            parts += _order_in_words(ways)
            parts += _settings_in_words(ways)
    if ways.theirs and not apart and not refused:
        parts.append("no stage differs by more than rounding, to which the scores are sensitive")
    if ways.theirs and not ways.theirs[0].stages:
        fields = ", ".join(f"{name!r}: …" for name in ways.schema.fields)
        parts.append(
            f"to see at which stage, let the reference return Answered(outputs, stages={{{fields}}}) with the "
            "arrays that the author's module gets"
        )
    return "; ".join(parts)


def _by_how_much(ways: Ways, stage: Stage) -> str:
    rows = f"in {stage.differ} of {stage.rows} rows"
    if stage.largest is None:
        return f"{rows}: {stage.note}" if stage.note else rows
    field = ways.schema.fields.get(stage.name) if stage.where == "decoded" else None
    is_picture = field is not None and field.picture(ways.ours[stage.name][0]) is not None
    of = " of 255" if is_picture else ""
    words = f"by up to {in_figures(stage.largest)}{of} {rows} ({in_figures(stage.mean)} on average)"
    return f"{words}; {stage.note}" if stage.where == "decoded" and stage.note else words


def _decodes_alike(ways: Ways, name: str, other: Field) -> bool:
    """Whether a field with other settings decodes every row to the author's array."""
    schema = InputSchema({name: other})
    for sent, theirs in zip(ways.sent, ways.arrays(name), strict=True):
        try:
            ours = bare(schema.decode({name: sent[name]})[name])
        except InvalidInputsError:
            return False
        array = fitting(theirs, ours.shape)
        if array is None or difference(ours, array)[1].any():
            return False
    return True


def _scores_alike(ways: Ways, name: str, other: Field) -> bool:
    """Whether the module gives the author's scores for every row when a field has other settings."""
    field, task, schema = ways.schema.fields[name], ways.source.task, InputSchema({name: other})
    if (other.shape, other.dtype) != (field.shape, field.dtype):
        return False
    for at in np.argsort(-task.distances(ways.expected, ways.scores)):  # the worst row tells soonest
        row = slice(at, at + 1)
        try:
            array = schema.decode({name: ways.sent[at][name]})[name]
        except InvalidInputsError:
            return False
        scores = ways.source.run({**take(ways.ours, row), name: array[None]})
        if task.distances(ways.expected[row], scores).max() > NOISE:
            return False
    return True


def _settings_in_words(ways: Ways) -> list[str]:
    """Says so if other settings of a field of which the author gave no arrays would do."""
    for name, field in ways.schema.fields.items():
        if not ways.arrays(name):
            settings = better_settings(field, partial(_scores_alike, ways, name))
            if settings:
                return [f"with {settings} for {name}, every score would be the author's"]
    return []


def _order_in_words(ways: Ways) -> list[str]:
    task = ways.source.task
    if not task.classes:
        return []
    ours = run_in_batches(ways.source.outputs, ways.given()[0])
    order = other_order(ours, ways.outputs, NOISE)
    if order is None:
        return []
    at = next(at for at, other in enumerate(order) if other != at)
    return [f"they are the same in another order: output {at} ({task.classes[at]}) is {order[at]} there"]
