"""Mistakes as sections of the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rollout.bundle.fields import Field
from rollout.bundle.mistakes import Answered, Mistakes, see
from rollout.bundle.report import Example, Section, Table
from rollout.bundle.slices import LEAST_ROWS, LEVEL, Slice

SHOWN_SLICES = 8
MOST_EXAMPLES = 24


def describe_mistakes(
    found: Mistakes, answered: Answered, inputs: Mapping[str, Field], notes: Sequence[str] = ()
) -> list[Section]:
    """Says which mistakes were found, and shows some.

    Args:
        found: The mistakes.
        answered: The rows in which they were found.
        inputs: The input schema.
        notes: What is to be known of the rows, in sentences.
    """
    rate = f"{found.rate:.2%} (95 % interval {found.low:.2%} to {found.high:.2%})"
    text = f"{found.mistakes:,} of {found.rows:,} rows are mistakes, {rate}; a mistake is {found.counts_as}."
    largest = [see(row, f"{_name(found, row)}: {_said(found, row)}", answered, inputs) for row in found.largest]
    return [
        Section(f"Mistakes on {found.of}", [*notes, text], examples=largest),
        *_groups(found, answered, inputs),
        *_slices(found, answered, inputs),
    ]


def _groups(found: Mistakes, answered: Answered, inputs: Mapping[str, Field]) -> list[Section]:
    if not found.groups:
        return []
    table = Table(
        "What was taken for what",
        ["true", "answered", "rows", "of", "share"],
        _grouped(
            (one.truth, [one.answer, f"{one.rows:,}", f"{one.of:,}", f"{one.share:.1%}"]) for one in found.groups
        ),
        texts=2,
    )
    rows = ((row, "") for one in found.groups for row in one.examples)
    text = "The share is that of all rows of which the first was true."
    return [
        Section(f"By label, {found.of}", [text], table=table, examples=_examples(rows, found, answered, inputs))
    ]


def _slices(found: Mistakes, answered: Answered, inputs: Mapping[str, Field]) -> list[Section]:
    title = f"By input, {found.of}"
    if not found.looked_at:
        return [Section(title, [f"No slice of the inputs has {LEAST_ROWS} rows: nothing can be said of them."])]
    sure = [one for one in found.slices if one.p_value < LEVEL]
    many = f"{found.looked_at:,} slices of the inputs with {LEAST_ROWS} rows or more were looked at"
    text = (
        f"{many}; in {len(sure):,} the model errs more than elsewhere, beyond chance. The p-values are those of "
        "Fisher's exact test, corrected by Holm's method for all that were looked at."
        if sure
        else f"{many}. In none does the model err more than chance explains: Fisher's exact test, corrected by "
        "Holm's method for all of them."
    )
    table = Table(
        "Slices that stand out most",
        ["slice", "rows", "mistakes", "rate", "95 % interval", "p, corrected"],
        _grouped((one.name, _cells(one)) for one in found.slices[:SHOWN_SLICES]),
    )
    rows = ((row, f"{one.name}; ") for one in sure for row in one.examples)
    return [Section(title, [text], table=table, examples=_examples(rows, found, answered, inputs))]


def _cells(one: Slice) -> list[str]:
    interval = f"{one.low:.1%} to {one.high:.1%}"
    return [f"{one.rows:,}", f"{one.mistakes:,}", f"{one.rate:.1%}", interval, f"{one.p_value:.2g}"]


def _grouped(rows: Iterable[tuple[str, list[str]]]) -> dict[str, list[list[str]]]:
    grouped: dict[str, list[list[str]]] = {}
    for name, cells in rows:
        grouped.setdefault(name, []).append(cells)
    return grouped


def _examples(
    rows: Iterable[tuple[int, str]], found: Mistakes, answered: Answered, inputs: Mapping[str, Field]
) -> list[Example]:
    captions: dict[int, str] = {}
    for row, why in rows:
        captions.setdefault(row, why)
    return [
        see(row, f"{why}{_name(found, row)}: {_said(found, row)}", answered, inputs)
        for row, why in list(captions.items())[:MOST_EXAMPLES]
    ]


def _name(found: Mistakes, row: int) -> str:
    return found.examples[row].name or f"row {row}"


def _said(found: Mistakes, row: int) -> str:
    return f"{found.examples[row].truth}, answered {found.examples[row].answer}"
