"""What was true of a prediction, as people and callers say it: one form for each way to say it."""

from __future__ import annotations

from typing import Any

import msgspec

LARGEST = float.fromhex("0x1.fffffep127")
"""The largest number that ``float32`` holds, in which modules learn: a larger one is infinite to them."""
NO_NUMBER = "must be a number that float32 holds"


class Span(msgspec.Struct, frozen=True, order=True):
    """A stretch of a text.

    Attributes:
        start: Its first character, from 0.
        end: The character after its last.
        label: What it is.
    """

    start: int
    end: int
    label: str


class Box(msgspec.Struct, frozen=True, order=True):
    """A rectangle in an image as it was sent.

    Attributes:
        label: What is in it.
        box: Left, top, right and bottom edge, in parts of the width and height, from 0 to 1.
    """

    label: str
    box: tuple[float, float, float, float]


class Truth(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was true, in the form that the head takes; all others are ``None``.

    Attributes:
        label: The class.
        value: The number.
        labels: The labels that hold.
        values: The number of each target, by its name.
        vector: The vector that was wanted.
        tensors: Nested lists of numbers, by the name of the tensor.
        spans: The stretches of the text.
        boxes: The rectangles in the image.
        heads: What was true for each head, by its name.
    """

    label: str | None = None
    value: float | None = None
    labels: list[str] | None = None
    values: dict[str, float] | None = None
    vector: list[float] | None = None
    tensors: dict[str, Any] | None = None
    spans: list[Span] | None = None
    boxes: list[Box] | None = None
    heads: dict[str, Truth] | None = None

    def __post_init__(self) -> None:
        # They have no order of their own: who says the same says what is equal.
        for name in ("labels", "spans", "boxes"):
            said = getattr(self, name)
            if said is not None and said != (ordered := sorted(said)):
                msgspec.structs.force_setattr(self, name, ordered)

    @property
    def forms(self) -> list[str]:
        """The forms in which something is said."""
        return [name for name in FORMS if getattr(self, name) is not None]

    @property
    def said(self) -> dict[str, Any]:
        """What is said, by its form, in plain values."""
        return {name: msgspec.to_builtins(getattr(self, name)) for name in self.forms}

    @property
    def truth(self) -> Truth:
        """This alone, of a record that has more."""
        return self if type(self) is Truth else Truth(**{name: getattr(self, name) for name in FORMS})

    def in_words(self) -> str:
        """Says it shortly."""
        if self.heads:
            return "; ".join(f"{name}: {own.in_words()}" for name, own in self.heads.items())
        said = self.said
        if len(said) == 1 and isinstance(one := next(iter(said.values())), str | float):
            return str(one)
        return msgspec.json.encode(said).decode()


def is_number(said: float | None) -> bool:
    """Whether something said is a number that a module can learn from."""
    return said is not None and abs(said) <= LARGEST


FORMS = Truth.__struct_fields__
