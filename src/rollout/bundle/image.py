"""The image field: nested lists, or a PNG or JPEG file in base64."""

from __future__ import annotations

import base64
import binascii
import io
import struct
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import PIL.Image
import PIL.ImageOps
from msgspec import Meta
from numpy.typing import NDArray

from rollout.bundle.wire import WireField, nested

MAX_PIXELS = 16_000_000
# Pillow keeps a pointer and more for each line, which may be of a single pixel.
MAX_SIDE = 16_384
# A PNG of no more bytes and pixels is decoded sooner than a thread is reached.
QUICK_BYTES = 4096
QUICK_PIXELS = 4096
PNG_HEAD = struct.Struct(">8s4x4sII")  # signature, length and name of the first chunk, width, height
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# These hold compressed text and profiles, which a few bytes can make long.
COMPRESSED_CHUNKS = (b"zTXt", b"iTXt", b"iCCP")
PLAIN_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})

# Every image is checked against these limits before it is decoded; Pillow's own limit would only warn.
PIL.Image.MAX_IMAGE_PIXELS = None


class PixelBudget:
    """The pixels or samples that the files of one request may have together: a small file may be a large image.

    Args:
        most: How many.
    """

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def take(self, pixels: int, files: str = "images", unit: str = "pixels") -> None:
        """Takes the pixels of one file, or its samples.

        Raises:
            ValueError: If there are not so many left.
        """
        self._left -= pixels
        if self._left < 0:
            raise ValueError(
                f"the {files} of a request may have {self._most:,} {unit} together: send fewer of them at a "
                "time, or smaller ones"
            )


class Image(WireField, frozen=True, kw_only=True, tag="image"):
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
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest number taken."""
        return 0, 255

    @property
    def wire_type(self) -> Any:
        """The type that ``msgspec`` checks the JSON value against."""
        return nested(Annotated[int, Meta(ge=0, le=255)], self.shape) | str

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        shape = "×".join(map(str, self.shape))
        return f"{shape} nested lists of whole numbers from 0 to 255, or a PNG or JPEG file in base64"

    def decode(self, value: Any, budget: PixelBudget | None = None) -> NDArray[np.uint8]:
        """Turns nested lists or a base64 file into an array of ``shape`` and ``uint8``.

        Args:
            value: Lists, or base64.
            budget: What its file may take from; without one, a single file has a limit alone.

        Raises:
            ValueError: If a string is not base64, not an image, or too large an image.
        """
        if isinstance(value, str):
            return self._decode_file(value, budget)
        return np.array(value, np.uint8).reshape(self.shape)

    @property
    def is_large(self) -> bool:
        """Whether it is kept as a file for reviewers, however it came: numbers take six times the bytes."""
        return self.height * self.width > QUICK_PIXELS

    def keep(self, sent: msgspec.Raw | None, array: NDArray[Any]) -> Any:
        """Returns what is kept of a row for a reviewer: a file as it came, other large images as a PNG in base64.

        Args:
            sent: The JSON value that came, or ``None`` where numbers came in another form.
            array: What it was decoded to.
        """
        is_file = sent is not None and bytes(sent).startswith(b'"')
        if is_file or not self.is_large:
            return super().keep(sent, array)
        file = io.BytesIO()
        PIL.Image.fromarray(array).save(file, "PNG", compress_level=1)
        return base64.b64encode(file.getvalue()).decode()

    def _decode_file(self, text: str, budget: PixelBudget | None) -> NDArray[np.uint8]:
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("the string is not base64; send the file's bytes in base64, nothing else") from None
        try:
            image = PIL.Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        except PIL.UnidentifiedImageError:
            raise ValueError("the bytes are neither a PNG nor a JPEG image") from None
        except Exception as error:  # whatever a decoder makes of bytes from anywhere is the fault of these
            raise _damaged(error) from None
        with image:
            pixels = image.width * image.height
            if pixels > MAX_PIXELS or max(image.size) > MAX_SIDE:
                raise ValueError(
                    f"the image is {image.width}×{image.height} pixels; at most {MAX_PIXELS:,} are taken, and "
                    f"{MAX_SIDE:,} a side"
                )
            if image.mode not in PLAIN_MODES:
                raise ValueError(f"the image has mode {image.mode}; send 8 bits a channel")
            if budget is not None:
                budget.take(pixels)
            try:
                upright = PIL.ImageOps.exif_transpose(image).convert("L" if self.channels == 1 else "RGB")
            except Exception as error:
                raise _damaged(error) from None
        return np.asarray(upright.resize((self.width, self.height), PIL.Image.Resampling.BOX))


def is_slow(raw: bytes) -> bool:
    """Whether the file in a JSON string takes long enough to decode to be moved off the event loop.

    It does unless it is a small PNG: that says its size in the first chunk (PNG, third edition, section 11.2.1),
    wherever in a JPEG it may stand.
    """
    if len(raw) > QUICK_BYTES:
        return True
    try:
        data = binascii.a2b_base64(raw)
        signature, name, width, height = PNG_HEAD.unpack_from(data)
    except (binascii.Error, struct.error):
        return True
    is_png = signature == PNG_SIGNATURE and name == b"IHDR"
    return not is_png or width * height > QUICK_PIXELS or any(chunk in data for chunk in COMPRESSED_CHUNKS)


def _damaged(error: Exception) -> ValueError:
    return ValueError(f"the image is damaged: {error}")
