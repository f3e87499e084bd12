"""What is tried to make a field decode as its author does."""

from __future__ import annotations

from typing import Literal

from rollout import Image
from rollout.bundle.differences import MOST_TRIED, better_settings
from rollout.bundle.fields import Field
from rollout.bundle.wire import WireField

Choice = Literal["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]
made = 0


class Many(WireField, frozen=True, kw_only=True, tag="many"):
    """A field with ten billion combinations of its settings, which counts how many are made."""

    s0: Choice = "a"
    s1: Choice = "a"
    s2: Choice = "a"
    s3: Choice = "a"
    s4: Choice = "a"
    s5: Choice = "a"
    s6: Choice = "a"
    s7: Choice = "a"
    s8: Choice = "a"
    s9: Choice = "a"

    def __post_init__(self) -> None:
        global made  # noqa: PLW0603
        made += 1


def test_few_changes_are_tried_first_and_each_is_made_when_it_is_tried() -> None:
    tried: list[Field] = []

    def is_right(field: Field) -> bool:
        tried.append(field)
        return len(tried) == 91  # the first with two changes

    field = Many()
    before = made
    assert better_settings(field, is_right) == "Many(s0='b', s1='b')"  # type: ignore[arg-type]
    assert made - before == len(tried) == 91
    assert better_settings(field, lambda _: False) == ""  # type: ignore[arg-type]
    assert made - before == 91 + MOST_TRIED


def test_settings_that_do_not_go_together_are_passed_over() -> None:
    tried: list[Field] = []

    def is_right(field: Field) -> bool:
        tried.append(field)
        return False

    assert not better_settings(Image(height=8, width=8), is_right)
    assert len(tried) > 100
    assert len({repr(one) for one in tried}) == len(tried)
