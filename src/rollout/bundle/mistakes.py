"""Error analysis: which mistakes a bundle makes, by what was taken for what and by what the inputs are like."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from rollout.bundle.baseline import features_of_inputs
from rollout.bundle.columns import bare
from rollout.bundle.fields import Field
from rollout.bundle.report import Example
from rollout.bundle.schema import Labelled
from rollout.bundle.slices import Slice, find_slices, wilson
from rollout.bundle.wav import wav
from rollout.heads import Flags, Head, Scores

MOST_GROUPS = 30
MOST_SLICES = 20
MOST_WORST = 12
EXAMPLES = 4
LARGEST_PART = 0.1
# Of one input in a report: characters, pixels a side, seconds of sound.
LONGEST_WORDS, LARGEST_SIDE, LONGEST_S = 500, 512, 10


class Answered(NamedTuple):
    """Rows with their targets, as a bundle answers them.

    Attributes:
        name: What they are, such as ``the evaluation part``.
        rows: They and their targets.
        scores: What the bundle gives, ``float32`` of shape ``(rows, outputs)``.
        names: What each is called, where a number does not say it: of review items their ID.
    """

    name: str
    rows: Labelled
    scores: Scores
    names: Sequence[str] = ()


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one label that was taken for another.

    Attributes:
        truth: What was true.
        answer: What was answered.
        rows: How many.
        of: Rows of which that was true.
        share: What part of these they are.
        examples: Some of them, by row.
    """

    truth: str
    answer: str
    rows: int
    of: int
    share: float
    examples: list[int]


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """One row that was answered wrongly.

    Attributes:
        row: Its number.
        name: What it is called, if it has a name of its own: the ID of its review item.
        truth: What was true, in words.
        answer: What was answered, in words.
        loss: How far that is off, in the units of the head's own loss.
    """

    row: int
    name: str = ""
    truth: str
    answer: str
    loss: float


class Mistakes(msgspec.Struct, frozen=True, kw_only=True):
    """The mistakes in one set of rows.

    Attributes:
        of: Which rows.
        rows: How many.
        counts_as: What counts as a mistake.
        mistakes: How many there are.
        rate: Their share.
        low: Lower end of its 95 % interval.
        high: Its upper end.
        groups: What was taken for what, the most frequent first; empty for kinds without labels.
        slices: Parts of the rows, by their inputs, those that stand out most first.
        looked_at: Slices that were looked at, for all of which the p-values are corrected.
        examples: The rows that groups, slices and the largest losses name, by row.
        largest: The rows with the largest losses, the largest first.
    """

    of: str
    rows: int
    counts_as: str
    mistakes: int
    rate: float
    low: float
    high: float
    groups: list[Group]
    slices: list[Slice]
    looked_at: int
    examples: dict[int, Mistake]
    largest: list[int]


def find_mistakes(answered: Answered, inputs: Mapping[str, Field], head: Head) -> Mistakes:
    """Groups the mistakes in rows by label pair and by slices of the inputs.

    Args:
        answered: The rows, as a bundle answers them.
        inputs: The input schema.
        head: What the bundle answers.
    """
    (arrays, targets), scores = answered.rows, answered.scores
    losses = head.losses(scores, targets)
    mistakes, counts_as = _mistakes(losses, head)
    total, wrong = len(losses), int(mistakes.sum())
    low, high = wilson(wrong, total)
    groups = [
        Group(
            truth=one.truth,
            answer=one.answer,
            rows=len(one.rows),
            of=one.of,
            share=len(one.rows) / one.of,
            examples=one.rows[:EXAMPLES].tolist(),
        )
        for one in head.confusions(scores, targets)[:MOST_GROUPS]
    ]
    found = find_slices(features_of_inputs(inputs, arrays), mistakes, EXAMPLES)
    slices = found.slices[:MOST_SLICES]
    order = np.lexsort((np.arange(total), head.sureness(scores) * -1, -losses))
    largest = [row for row in order[:MOST_WORST].tolist() if mistakes[row]]
    shown = {*largest, *(row for group in groups for row in group.examples)}
    shown |= {row for each in slices for row in each.examples}
    return Mistakes(
        of=answered.name,
        rows=total,
        counts_as=counts_as,
        mistakes=wrong,
        rate=wrong / total if total else 0.0,
        low=low,
        high=high,
        groups=groups,
        slices=slices,
        looked_at=found.looked_at,
        examples={
            row: Mistake(
                row=row,
                name=answered.names[row] if answered.names else "",
                truth=head.target_in_words(targets[row]),
                answer=head.in_words(scores[row]),
                loss=float(losses[row]),
            )
            for row in sorted(shown)
        },
        largest=largest,
    )


def see(row: int, caption: str, answered: Answered, inputs: Mapping[str, Field]) -> Example:
    """Returns a row under a caption, with each of its inputs as what it is, or its beginning."""
    facts, pictures, sounds = {}, {}, {}
    for name, field in inputs.items():
        array = bare(answered.rows.inputs[name][row])
        if (picture := field.picture(array)) is not None:
            pictures[name] = _png(picture)
        elif (sound := field.sound(array)) is not None:
            samples, rate = sound
            sounds[name] = wav(samples[: LONGEST_S * rate], rate)
        else:
            words = field.in_words(array)
            facts[name] = words if len(words) <= LONGEST_WORDS else f"{words[:LONGEST_WORDS]} …"
    return Example(caption, facts, pictures, sounds)


def _png(picture: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    image = PIL.Image.fromarray(picture)
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    image.save(file, "PNG")
    return file.getvalue()


def _mistakes(losses: NDArray[np.float64], head: Head) -> tuple[Flags, str]:
    """Returns which rows are mistakes, and what counts as one: a loss; where most have one, a large loss."""
    wrong = losses > 0
    if 2 * wrong.sum() <= len(losses):
        return wrong, "a wrong answer"
    limit = float(np.quantile(losses, 1 - LARGEST_PART))
    return losses > limit, f"a loss among the largest tenth, above {limit:.4g} ({head.metric})"
