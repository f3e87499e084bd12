"""Lines out of a body in pieces."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rollout.http.lines import Line, Lines

BODIES = st.lists(st.sampled_from([b"a", b"bc", b" ", b"\r", b"\n", b"0123456789"]), max_size=60).map(b"".join)


@given(BODIES, st.lists(st.integers(0, 60), max_size=8))
def test_where_a_body_is_cut_makes_no_difference(body: bytes, cuts: list[int]) -> None:
    ends = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    lines = Lines(longest=12)
    found = [line for start, end in pairwise(ends) for line in lines.feed(body[start:end])]
    found += lines.end()
    assert found == [
        Line(number, text if len(text) <= 12 else None)
        for number, text in enumerate(body.split(b"\n"), 1)
        if text.strip() or len(text) > 12
    ]


def test_what_is_too_long_is_not_kept() -> None:
    lines = Lines(longest=1000)
    tracemalloc.start()
    piece = b"x" * 100_000
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(200):
        assert not list(lines.feed(piece))
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < 500_000
    assert after - before < 10_000
    assert list(lines.feed(b"\nnext\n")) == [Line(1, None), Line(2, b"next")]
