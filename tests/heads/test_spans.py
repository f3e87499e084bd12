"""Spans of a text and the tags that say the same."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.heads import spans
from rollout.heads.spans import Scheme, Span, decode, encode, find_faults, loss, tag_names

LABELS = ["person", "place"]


def found(
    tags: str, offsets: list[tuple[int, int]] | None = None, scheme: Scheme = "BIO"
) -> list[tuple[int, int, str]]:
    return [(*each.span,) for each in decode(tags.split(), offsets, scheme)]


@st.composite
def texts(draw: st.DrawFn, gap: int = 0) -> tuple[list[tuple[int, int]], list[Span]]:
    """Tokens, some without a character, with gaps, and spans that begin and end with them."""
    offsets, position = [], 0
    for width, space in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=12)):
        offsets.append((position, position + width))
        position += width + space
    real = [token for token, (start, end) in enumerate(offsets) if end > start]
    chosen, at = [], 0
    for skipped, size, label in draw(
        st.lists(st.tuples(st.integers(gap, 2), st.integers(1, 3), st.sampled_from(LABELS)), max_size=6)
    ):
        tokens = real[at + skipped : at + skipped + size]
        if tokens:
            chosen.append(Span(offsets[tokens[0]][0], offsets[tokens[-1]][1], label))
        at += skipped + size
    return offsets, chosen


def test_the_examples_are_true() -> None:
    assert doctest.testmod(spans).failed == 0


@given(texts())
def test_spans_come_back_from_bio(text: tuple[list[tuple[int, int]], list[Span]]) -> None:
    offsets, expected = text
    tags = encode(expected, offsets, "BIO")
    assert set(tags) <= set(tag_names(LABELS, "BIO"))
    assert [each.span for each in decode(tags, offsets, "BIO")] == expected


@given(texts(gap=1))
def test_spans_come_back_from_io_where_they_do_not_touch(text: tuple[list[tuple[int, int]], list[Span]]) -> None:
    offsets, expected = text
    tags = encode(expected, offsets, "IO")
    assert set(tags) <= set(tag_names(LABELS, "IO"))
    assert [each.span for each in decode(tags, offsets, "IO")] == expected


@given(
    st.lists(st.sampled_from(tag_names(LABELS, "BIO"))),
    st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 2))),
)
def test_any_tags_are_spans_without_fault(tags: list[str], steps: list[tuple[int, int]]) -> None:
    """Even of tokens that lie over each other."""
    offsets, position = [], 0
    for width, step in steps:
        position = max(0, position + step)
        offsets.append((position, position + width))
    offsets.sort()
    many = min(len(tags), len(offsets))
    made = decode(tags[:many], offsets[:many])
    assert find_faults([each.span for each in made], 1000, LABELS) == []
    assert [each.span for each in made] == sorted(each.span for each in made)


def test_a_span_knows_its_tokens_and_holds_what_is_between() -> None:
    made = decode(["O", "B-place", "I-place", "I-place", "B-place"], [(0, 0), (0, 3), (3, 3), (5, 9), (9, 12)])
    assert made == [(Span(0, 9, "place"), [1, 3]), (Span(9, 12, "place"), [4])]


def test_characters_are_tokens_where_there_are_no_others() -> None:
    assert found("O B-place I-place O B-place") == [(1, 3, "place"), (4, 5, "place")]
    assert encode([Span(1, 3, "place")], 4, "IO") == ["O", "place", "place", "O"]


def test_inside_without_a_beginning_begins() -> None:
    assert found("I-place I-place O I-place I-person") == [(0, 2, "place"), (3, 4, "place"), (4, 5, "person")]


def test_io_joins_what_touches() -> None:
    assert found("place place person O person", scheme="IO") == [
        (0, 2, "place"),
        (2, 3, "person"),
        (4, 5, "person"),
    ]


def test_a_token_added_in_the_middle_parts_nothing() -> None:
    assert found("B-place O I-place", [(0, 3), (3, 3), (3, 6)]) == [(0, 6, "place")]


def test_a_span_within_a_token_becomes_the_token() -> None:
    offsets = [(0, 4), (5, 9)]
    inside = [Span(1, 6, "place"), Span(7, 9, "person")]
    assert encode(inside, offsets) == encode(inside[::-1], offsets) == ["B-place", "I-place"]


def test_what_is_no_tag_is_refused() -> None:
    with pytest.raises(ValueError, match="'place' is no tag"):
        decode(["place"])
    with pytest.raises(ValueError, match="2 tags are given for 1 tokens"):
        decode(["O", "O"], [(0, 1)])


def test_faults_are_said_span_by_span() -> None:
    wrong = [
        Span(8, 12, "place"),
        Span(0, 4, "plaice"),
        Span(3, 3, "place"),
        Span(2, 9, "place"),
        Span(-1, 2, "place"),
        Span(95, 101, "place"),
        Span(3, 4, "person"),
        Span(12, 100, "person"),
    ]
    assert find_faults(wrong, 100, LABELS) == [
        (0, "the span from 8 to 12 overlaps the span from 2 to 9: no two may have a character in common"),
        (1, "'plaice' is no label: there are 'person', 'place'"),
        (2, "the span from 3 to 3 has no character: the end is the first character after a span"),
        (4, "the span from -1 to 2 lies outside the text, which has 100 characters"),
        (5, "the span from 95 to 101 lies outside the text, which has 100 characters"),
        (6, "the span from 3 to 4 overlaps the span from 2 to 9: no two may have a character in common"),
    ]


def test_a_long_span_overlaps_all_that_are_in_it() -> None:
    faults = find_faults([Span(0, 50, "place"), Span(1, 2, "place"), Span(40, 45, "place")], 100, LABELS)
    assert [fault.position for fault in faults] == [1, 2]


def test_the_loss_counts_exact_spans() -> None:
    one, other = Span(0, 4, "place"), Span(5, 9, "place")
    assert loss([], []) == loss([one, other], [other, one]) == 0
    assert loss([one], []) == loss([], [one]) == loss([one], [one._replace(label="person")]) == 1
    assert loss([one], [one._replace(end=5)]) == 1
    assert loss([one, other], [one]) == pytest.approx(1 / 3)
