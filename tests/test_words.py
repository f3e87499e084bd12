"""Counts and times as people read them."""

from __future__ import annotations

import pytest

from rollout.words import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.0000123, "0.0123 ms"),
        (0.25, "250 ms"),
        (0.99949, "999 ms"),
        (0.9999, "1 s"),
        (1.234, "1.23 s"),
        (60, "1 min"),
        (119.99, "120 s"),
        (3599, "60 min"),
        (86_399, "24 h"),
        (7 * 86_400, "7 days"),
        (1234 * 86_400, "1,234 days"),
    ],
)
def test_a_time_is_in_the_unit_that_fits(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_rough_one_has_fewer_digits() -> None:
    assert [duration(seconds, digits=2) for seconds in (3.21, 45.6, 110, 214)] == [
        "3.2 s",
        "46 s",
        "110 s",
        "3.6 min",
    ]
