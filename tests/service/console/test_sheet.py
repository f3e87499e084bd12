"""What a reviewer reads of an item, and which keys the classes have."""

from __future__ import annotations

import datetime

import pytest

from service.console.item_view import age
from service.console.panels import Key, bars, keys_of
from tests.service.console.stage import BIRDS, LANGUAGES


def test_keys_of_classes() -> None:
    digits = ["3", "0", "7"]
    assert keys_of(digits) == [Key("3", "3"), Key("0", "0"), Key("7", "7")]
    assert [one.key for one in keys_of(LANGUAGES)] == list("123456789")
    assert {one.key for one in keys_of(BIRDS)} == {""}
    assert [one.key for one in keys_of(["²", "1"])] == ["1", "2"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "less than a minute"),
        (59, "less than a minute"),
        (60, "1 minute"),
        (7199, "1 hour"),
        (180_000, "2 days"),
    ],
)
def test_age(seconds: int, words: str) -> None:
    at = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)
    assert age("2026-11-22T00:00:00Z", at + datetime.timedelta(seconds=seconds)) == words


def test_the_five_highest_scores() -> None:
    scores = {str(number): number / 20 for number in range(7)}
    assert [bar.label for bar in bars(["5"], scores)] == ["6", "5", "4", "3", "2"]
    assert [bar.is_answer for bar in bars(["5"], scores)] == [False, True, False, False, False]
    assert bars([], {}) == []
