"""Spans over a text, and the tags of tokens or characters that say the same.

A span is counted in characters as Python counts them, which are Unicode code points: JavaScript counts those
beyond U+FFFF as two. Its end is the first character after it. Spans of a text have no character in common.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from rollout.heads.confusion import Places
from rollout.heads.matching import f1

OUTSIDE = "O"

# What tags say (Ramshaw & Marcus, "Text Chunking using Transformation-Based Learning", 1995). ``IO``: the label
# of the span that a token is in, so that neighbours of one label are one span. ``BIO``: ``B-`` and the label
# where a span begins, ``I-`` and the label inside it.
Scheme = Literal["IO", "BIO"]


class Span(NamedTuple):
    """A part of a text with a label.

    Attributes:
        start: Its first character, from 0.
        end: The first character after it.
        label: What it is.
    """

    start: int
    end: int
    label: str


class Decoded(NamedTuple):
    """A span and what it was made of.

    Attributes:
        span: It.
        tokens: Indexes of its tokens.
    """

    span: Span
    tokens: list[int]


class Fault(NamedTuple):
    """What is wrong with one of several spans.

    Attributes:
        position: Which of them, from 0.
        detail: What is wrong, and what would be right.
    """

    position: int
    detail: str


def tag_names(labels: Iterable[str], scheme: Scheme) -> list[str]:
    """Returns the tags that spans of these labels need, the one outside of all spans first.

    Example:
        >>> tag_names(["person", "place"], "BIO")
        ['O', 'B-person', 'I-person', 'B-place', 'I-place']
    """
    if scheme == "IO":
        return [OUTSIDE, *labels]
    return [OUTSIDE, *(f"{prefix}-{label}" for label in labels for prefix in "BI")]


def decode(
    tags: Sequence[str], offsets: Sequence[tuple[int, int]] | None = None, scheme: Scheme = "BIO"
) -> list[Decoded]:
    """Makes spans of tags.

    ``I-`` that follows no tag of its label begins a span, as in CoNLL's evaluation (Tjong Kim Sang & De Meulder,
    "Introduction to the CoNLL-2003 Shared Task", 2003), so that any tags are spans. Tokens without a character,
    such as those that a tokenizer adds at both ends, are passed over, whatever their tags; characters between two
    tokens of a span are in it.

    Args:
        tags: Of each token.
        offsets: First character of each token and the one after it, in the order of the text; tokens are the
            characters themselves without.
        scheme: What the tags say.

    Returns:
        In the order of the text. Where tokens share a character, as bytes of it do, it is in the first span
        alone.

    Example:
        >>> decode(["B-person", "I-person", "O"], [(0, 3), (4, 9), (9, 10)])
        [Decoded(span=Span(start=0, end=9, label='person'), tokens=[0, 1])]
    """
    if offsets is not None and len(offsets) != len(tags):
        raise ValueError(f"{len(tags)} tags are given for {len(offsets)} tokens")
    found: list[Decoded] = []
    inside = ""  # the label of the token before
    for token, tag in enumerate(tags):
        start, end = (token, token + 1) if offsets is None else offsets[token]
        if end <= start:
            continue
        begins, label = _read(tag, scheme)
        if label and (begins or label != inside):
            found.append(Decoded(Span(start, end, label), [token]))
        elif label:
            last = found[-1]
            found[-1] = Decoded(last.span._replace(end=max(end, last.span.end)), [*last.tokens, token])
        inside = label
    return _apart(found)


def encode(spans: Iterable[Span], offsets: Sequence[tuple[int, int]] | int, scheme: Scheme = "BIO") -> list[str]:
    """Makes tags of spans: the tag of each token says which span has a character of it.

    ``decode`` gives the same spans where each begins and ends with a token, no two begin in the same one, and, in
    ``IO``, no two of one label touch. Otherwise it says what became of them.

    Args:
        spans: Without a character in common.
        offsets: First character of each token and the one after it; or how many characters there are, which are
            the tokens then.
        scheme: What the tags are to say.

    Example:
        >>> encode([Span(0, 9, "person")], [(0, 0), (0, 3), (4, 9), (9, 10)])
        ['O', 'B-person', 'I-person', 'O']
    """
    places = [(index, index + 1) for index in range(offsets)] if isinstance(offsets, int) else offsets
    tags = [OUTSIDE] * len(places)
    for span in sorted(spans):
        begins = True
        for token, (start, end) in enumerate(places):
            if tags[token] == OUTSIDE and max(start, span.start) < min(end, span.end):
                tags[token] = span.label if scheme == "IO" else f"{'B' if begins else 'I'}-{span.label}"
                begins = False
    return tags


def find_faults(spans: Sequence[Span], characters: int, labels: Collection[str]) -> list[Fault]:
    """Finds what is wrong with spans that come from elsewhere.

    Args:
        spans: In any order.
        characters: How many the text has.
        labels: Those that spans may have.

    Returns:
        One for each span with a fault, in their order; none where all are right.
    """
    faults: dict[int, str] = {}
    sound = []
    for position, span in enumerate(spans):
        if span.label not in labels:
            faults[position] = f"{span.label!r} is no label: there are {', '.join(map(repr, labels))}"
        elif span.start >= span.end:
            faults[position] = f"{_place(span)} has no character: the end is the first character after a span"
        elif span.start < 0 or span.end > characters:
            faults[position] = f"{_place(span)} lies outside the text, which has {characters} characters"
        else:
            sound.append(position)
    furthest: Span | None = None
    for position in sorted(sound, key=lambda position: spans[position]):
        span = spans[position]
        if furthest is not None and span.start < furthest.end:
            with_one = f"overlaps {_place(furthest)}: no two may have a character in common"
            faults[position] = f"{_place(span)} {with_one}"
        if furthest is None or span.end > furthest.end:
            furthest = span
    return [Fault(position, faults[position]) for position in sorted(faults)]


def _place(span: Span) -> str:
    return f"the span from {span.start} to {span.end}"


def loss(ones: Collection[Span], others: Collection[Span]) -> float:
    """Returns how far two sets of spans are apart: 1 less the F1 of one as the answer to the other.

    Spans are the same where start, end and label are, as CoNLL-2003 counts them.

    Returns:
        From 0 to 1; 0 for two sets without a span.

    Example:
        >>> loss([Span(0, 4, "person"), Span(9, 12, "place")], [Span(0, 4, "person"), Span(9, 13, "place")])
        0.5
    """
    one, other = set(ones), set(others)
    return 1 - f1(len(one & other), len(one), len(other))


def places(true: Sequence[Span], found: Sequence[Span]) -> Places:
    """Returns the spans of a text and those that were answered, with how much of both is the same.

    Example:
        >>> places([Span(0, 4, "person")], [Span(0, 8, "person"), Span(8, 9, "place")]).overlaps.tolist()
        [[0.5, 0.0]]
    """
    overlaps = np.zeros((len(true), len(found)))
    for row, one in enumerate(true):
        for column, other in enumerate(found):
            shared = max(0, min(one.end, other.end) - max(one.start, other.start))
            overlaps[row, column] = shared / (one.end - one.start + other.end - other.start - shared)
    return Places([span.label for span in true], [span.label for span in found], overlaps)


def _read(tag: str, scheme: Scheme) -> tuple[bool, str]:
    """Returns whether a span begins here, whatever is before, and its label; none outside."""
    if tag == OUTSIDE:
        return False, ""
    if scheme == "IO":
        return False, tag
    prefix, _, label = tag.partition("-")
    if prefix not in {"B", "I"} or not label:
        raise ValueError(f"{tag!r} is no tag: there are 'O', and 'B-' and 'I-' with a label")
    return prefix == "B", label


def _apart(found: list[Decoded]) -> list[Decoded]:
    """Returns the spans without what the span before them has already."""
    apart: list[Decoded] = []
    for span, tokens in found:
        start = max(span.start, apart[-1].span.end) if apart else span.start
        if start < span.end:
            apart.append(Decoded(span._replace(start=start), tokens))
    return apart
