"""Image files of anybody: from their bytes to upright pixels of 8 bits a channel, within limits."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.WebPImagePlugin  # or Pillow does not know the format

from rollout.bundle.image_parts import count_passes, count_unpacked

Colour = int | tuple[int, int, int]
"""A grey from 0 to 255, or red, green and blue."""

# The media types of files, and what Pillow calls them.
FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
MAX_PIXELS = 16_000_000
# Pillow keeps a pointer and more for each line, which may be of a single pixel.
MAX_SIDE = 16_384

# Every image is checked against these limits before it is decoded; Pillow's own limit would only warn.
PIL.Image.MAX_IMAGE_PIXELS = None


def check_colour(colour: Colour, channels: int) -> None:
    """Refuses a colour that an image of so many channels does not have.

    Raises:
        ValueError: If it does not.
    """
    levels = (colour,) if isinstance(colour, int) else colour
    if len(levels) not in (1, channels) or not all(0 <= level <= 255 for level in levels):
        wanted = "a grey from 0 to 255" if channels == 1 else "a grey, or red, green and blue, from 0 to 255"
        raise ValueError(f"{colour} is no colour of this image: it must be {wanted}")


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


def open_image(data: bytes) -> PIL.Image.Image:
    """Reads the head of a file, and no pixel of it.

    Args:
        data: A PNG, JPEG or WebP file.

    Raises:
        ValueError: If it is none of them, damaged, or too large an image.
    """
    passes = count_passes(data)
    if count_unpacked(data) > MAX_PIXELS:
        raise ValueError("the image has very many texts or profiles: save it without them")
    try:
        image = PIL.Image.open(io.BytesIO(data), formats=tuple(FORMATS.values()))
    except PIL.UnidentifiedImageError:
        raise ValueError("the bytes are neither a PNG nor a JPEG nor a WebP image") from None
    except Exception as error:  # whatever a decoder makes of bytes from anywhere is the fault of these
        raise _damaged(error) from None
    if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise ValueError(
            f"the image is {image.width}×{image.height} pixels; at most {MAX_PIXELS:,} are taken, and "
            f"{MAX_SIDE:,} a side"
        )
    if passes > 1 and image.width * image.height * passes > MAX_PIXELS:
        raise ValueError(
            f"the image is {image.width}×{image.height} pixels in very many scans, each of which passes over all "
            "of them: save it with fewer"
        )
    return image


def decode_image(
    image: PIL.Image.Image, mode: Literal["L", "RGB"], background: Colour | None = None, *, upright: bool = True
) -> PIL.Image.Image:
    """Decodes what ``open_image`` returned, as the libraries do with which models are trained.

    Of 16 bits a channel the higher 8 are taken, as libpng's ``png_set_strip_16`` does for OpenCV, and Pillow for
    colours. CMYK is read as Adobe writes it, inverted, as Pillow does. Of an animation the first frame is taken,
    and colour profiles are ignored.

    Args:
        image: The file.
        mode: Grey (ITU-R 601-2 luma of colours), or red, green and blue.
        background: What lies under transparent pixels. With ``None`` transparency is ignored.
        upright: Whether it is turned as its EXIF orientation says.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        if upright:
            PIL.ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "I;16":
            image = _higher_8_bits(image)
        if not image.has_transparency_data:
            return image.convert(mode)
        if background is None:
            image.info.pop("transparency", None)
            return image.convert(mode)
        seen = image.convert("RGBA")
        canvas = PIL.Image.new("RGB", seen.size, colour_of("RGB", background))
        canvas.paste(seen, mask=seen)
        return canvas.convert(mode)
    except Exception as error:
        raise _damaged(error) from None


def colour_of(mode: str, colour: Colour) -> Colour:
    """Returns a colour as Pillow wants it for a mode: a bare number would be nothing but red."""
    return (colour, colour, colour) if mode == "RGB" and isinstance(colour, int) else colour


def _higher_8_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    values = np.asarray(image)
    grey = PIL.Image.fromarray((values >> 8).astype(np.uint8))
    see_through = image.info.get("transparency")
    if see_through is not None:
        grey.putalpha(PIL.Image.fromarray(np.where(values == see_through, 0, 255).astype(np.uint8)))
    return grey


def _damaged(error: Exception) -> ValueError:
    return ValueError(f"the image is damaged: {error}")
