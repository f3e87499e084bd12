"""What every field of an input schema has in common: a type on the wire, and a decoder to an array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray


class WireField(msgspec.Struct, frozen=True, tag_field="kind"):
    """One named input of a model.

    A field has ``shape`` and ``dtype`` of one row as the module gets it, and does no arithmetic on a value: every
    numeric step belongs into the module, and so into every variant of it.
    """

    @property
    def wire_type(self) -> Any:
        """The type that ``msgspec`` checks the JSON value against."""
        raise NotImplementedError

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        raise NotImplementedError

    def decode(self, value: Any) -> NDArray[Any]:
        """Turns a value that passed ``wire_type`` into an array of ``shape`` and ``dtype``.

        Raises:
            ValueError: If the value does not fit after all; the sentence says why.
        """
        raise NotImplementedError

    def keep(self, sent: msgspec.Raw | None, array: NDArray[Any]) -> Any:
        """Returns what is kept of a row for a reviewer, to be written as JSON: what a caller could have sent.

        Args:
            sent: The JSON value that came, or ``None`` where numbers came in another form.
            array: What it was decoded to.
        """
        return array.tolist() if sent is None else sent

    def picture(self, array: NDArray[Any]) -> NDArray[np.uint8] | None:
        """Returns an array as an image, ``(height, width)`` or ``(height, width, 3)``, if it is one."""
        return None

    def in_words(self, array: NDArray[Any]) -> str:
        """Returns an array of one row as a person would read it, shortened."""
        return np.array2string(array, threshold=8, edgeitems=3, precision=6, separator=", ").replace("\n", "")

    def encode(self, values: Sequence[Any]) -> NDArray[Any]:
        """Turns values as a caller would send them into a batch, shape ``(rows, *shape)``: for training code.

        Raises:
            ValueError: If a value does not fit.
        """
        return np.stack([self.decode(msgspec.convert(value, self.wire_type)) for value in values])


def nested(element: Any, shape: Iterable[int]) -> Any:
    """Returns the type of nested lists of ``element`` with exactly this shape."""
    wire = element
    for size in reversed(tuple(shape)):
        wire = Annotated[list[wire], Meta(min_length=size, max_length=size)]  # type: ignore[valid-type]
    return wire
