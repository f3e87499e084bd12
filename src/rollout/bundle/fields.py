"""The fields of an input schema: each decodes its wire form to an array, and does no arithmetic on it."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import PIL.Image
import PIL.ImageOps
from msgspec import Meta
from numpy.typing import NDArray

MAX_PIXELS = 16_000_000
PLAIN_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})

# Every image is checked against MAX_PIXELS before it is decoded; Pillow's own limit would only warn.
PIL.Image.MAX_IMAGE_PIXELS = None


class Tensor(msgspec.Struct, frozen=True, kw_only=True, tag="tensor", tag_field="kind"):
    """Nested lists of numbers.

    Attributes:
        shape: Shape of one row, without the batch dimension.
        dtype: dtype of the array that the model takes.
        minimum: Smallest value allowed, if any.
        maximum: Largest value allowed, if any.

    Example:
        >>> Tensor(shape=(2,), dtype="float32", minimum=0).decode([0.5, 3])
        array([0.5, 3. ], dtype=float32)
    """

    shape: tuple[int, ...]
    dtype: Literal["float32", "int64", "uint8"] = "float32"
    minimum: float | None = None
    maximum: float | None = None

    @property
    def wire_type(self) -> Any:
        """The type that ``msgspec`` checks the JSON value against: element type, range and shape."""
        low, high = self.minimum, self.maximum
        if self.dtype == "float32":
            return _nested(Annotated[float, Meta(ge=low, le=high)], self.shape)
        limits = np.iinfo(self.dtype)
        low = int(limits.min if low is None else max(low, limits.min))
        high = int(limits.max if high is None else min(high, limits.max))
        return _nested(Annotated[int, Meta(ge=low, le=high)], self.shape)

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        shape = "×".join(map(str, self.shape)) + " nested lists of " if self.shape else "one of "
        kind = "numbers" if self.dtype == "float32" else f"whole numbers that fit {self.dtype}"
        least = "" if self.minimum is None else f", at least {self.minimum:g}"
        most = "" if self.maximum is None else f", at most {self.maximum:g}"
        return f"{shape}{kind}{least}{most}"

    def decode(self, value: Any) -> NDArray[Any]:
        """Turns a value that passed ``wire_type`` into an array of ``shape`` and ``dtype``.

        Raises:
            ValueError: If a number does not fit a finite ``float32``.
        """
        with np.errstate(over="ignore"):
            array = np.array(value, self.dtype).reshape(self.shape)
        if self.dtype == "float32" and not np.isfinite(array).all():
            raise ValueError("every number must fit a finite float32")
        return array


class Image(msgspec.Struct, frozen=True, kw_only=True, tag="image", tag_field="kind"):
    """An image: nested lists of ``uint8``, or a base64 PNG or JPEG of any size.

    A file is turned upright, converted to the number of channels, and resized by area averaging.

    Attributes:
        height: Rows that the model takes.
        width: Columns that the model takes.
        channels: 1 for grayscale, shape ``(height, width)``; 3 for RGB, shape ``(height, width, 3)``.

    Example:
        >>> Image(height=2, width=2).decode([[0, 255], [7, 0]])
        array([[  0, 255],
               [  7,   0]], dtype=uint8)
    """

    height: int
    width: int
    channels: Literal[1, 3] = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row, without the batch dimension."""
        return (self.height, self.width) if self.channels == 1 else (self.height, self.width, 3)

    @property
    def dtype(self) -> Literal["uint8"]:
        """The dtype of the array that the model takes."""
        return "uint8"

    @property
    def wire_type(self) -> Any:
        """The type that ``msgspec`` checks the JSON value against."""
        return _nested(Annotated[int, Meta(ge=0, le=255)], self.shape) | str

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        shape = "×".join(map(str, self.shape))
        return f"{shape} nested lists of whole numbers from 0 to 255, or a PNG or JPEG file in base64"

    def decode(self, value: Any) -> NDArray[np.uint8]:
        """Turns nested lists or a base64 file into an array of ``shape`` and ``uint8``.

        Raises:
            ValueError: If a string is not base64, not an image, or too large an image.
        """
        if isinstance(value, str):
            return self._decode_file(value)
        return np.array(value, np.uint8).reshape(self.shape)

    def _decode_file(self, text: str) -> NDArray[np.uint8]:
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("the string is not base64; send the file's bytes in base64, nothing else") from None
        try:
            with PIL.Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(
                        f"the image is {image.width}×{image.height} pixels; at most {MAX_PIXELS:,} are taken"
                    )
                if image.mode not in PLAIN_MODES:
                    raise ValueError(f"the image has mode {image.mode}; send 8 bits a channel")
                upright = PIL.ImageOps.exif_transpose(image).convert("L" if self.channels == 1 else "RGB")
        except PIL.UnidentifiedImageError:
            raise ValueError("the bytes are neither a PNG nor a JPEG image") from None
        except (OSError, SyntaxError, ArithmeticError, LookupError, TypeError) as error:
            raise ValueError(f"the image is damaged: {error}") from None
        return np.asarray(upright.resize((self.width, self.height), PIL.Image.Resampling.BOX))


Field = Tensor | Image


def _nested(element: Any, shape: Iterable[int]) -> Any:
    wire = element
    for size in reversed(tuple(shape)):
        wire = Annotated[list[wire], Meta(min_length=size, max_length=size)]  # type: ignore[valid-type]
    return wire
