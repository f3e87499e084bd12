"""From a picture of any size to one of the model's, with the sizes, offsets and filters of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce
from operator import add
from typing import Literal, NamedTuple

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from rollout.bundle.image_file import MAX_PIXELS, Colour, colour_of

Fit = Literal["stretch", "crop", "pad", "exact"]
Resample = Literal["nearest", "box", "bilinear", "bicubic", "lanczos"]
Size = tuple[int, int]
"""Width and height."""


def resized_size(size: Size, target: Size, fit: Fit, shorter: int) -> Size:
    """Returns the size that a picture is resized to before its middle is put in the target.

    The longer side is ``int(shorter * long / short)``, as torchvision's ``Resize`` has it.

    Args:
        size: Of the picture.
        target: Of what the model takes.
        fit: How the one becomes the other.
        shorter: Length of the shorter side before a crop.
    """
    return SIZES[fit](size, target, shorter)


def _by_shorter_side(size: Size, _: Size, shorter: int) -> Size:
    width, height = size
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _inside(size: Size, target: Size, _: int) -> Size:
    width, height = size
    if width * target[1] >= height * target[0]:
        return target[0], max(1, int(target[0] * height / width))
    return max(1, int(target[1] * width / height)), target[1]


SIZES: Mapping[Fit, Callable[[Size, Size, int], Size]] = {
    "stretch": lambda _size, target, _: target,
    "crop": _by_shorter_side,
    "pad": _inside,
    "exact": lambda size, _target, _: size,
}


def pixels_computed(resized: Size, target: Size, *, antialias: bool) -> int:
    """Returns how many pixels ``put_in_the_middle`` computes."""
    return math.prod(resized if _is_resized_whole(resized, antialias=antialias) else target)


def _is_resized_whole(resized: Size, *, antialias: bool) -> bool:
    return antialias and math.prod(resized) <= MAX_PIXELS


def put_in_the_middle(
    picture: PIL.Image.Image,
    resized: Size,
    target: Size,
    *,
    resample: Resample,
    antialias: bool,
    padding: Colour,
) -> PIL.Image.Image:
    """Resizes a picture and returns the middle of it, as torchvision's ``Resize`` and ``CenterCrop`` do.

    With antialiasing, pixels are those of Pillow's ``resize``. Without, they are those of plain interpolation
    between pixel centres (PyTorch's ``interpolate(align_corners=False, antialias=False)``), rounded.

    What is resized has no limit but the crop has: where it would be more than ``MAX_PIXELS``, a line brought to
    the height of a picture, only what stays is computed. There Pillow rounds the place of the crop to
    ``float32``, and a value may differ by one.

    Args:
        picture: In mode ``L`` or ``RGB``.
        resized: Its size before the crop.
        target: The size of what is returned.
        resample: The filter.
        antialias: Whether the filter grows with the scale when a picture shrinks.
        padding: The colour of what the picture does not cover.
    """
    left, width = _middle(resized[0], target[0])
    top, height = _middle(resized[1], target[1])
    if picture.size == resized:
        seen = picture.crop((left, top, left + width, top + height))
    elif not antialias:
        rows = _taps(picture.height, resized[1], top, height, resample)
        columns = _taps(picture.width, resized[0], left, width, resample)
        seen = _interpolate(picture, rows, columns)
    elif _is_resized_whole(resized, antialias=antialias):
        seen = picture.resize(resized, FILTERS[resample]).crop((left, top, left + width, top + height))
    else:
        across, down = picture.width / resized[0], picture.height / resized[1]
        box = (left * across, top * down, (left + width) * across, (top + height) * down)
        seen = picture.resize((width, height), FILTERS[resample], box=box)
    if seen.size == target:
        return seen
    canvas = PIL.Image.new(picture.mode, target, colour_of(picture.mode, padding))
    canvas.paste(seen, ((target[0] - width) // 2, (target[1] - height) // 2))
    return canvas


FILTERS: Mapping[Resample, PIL.Image.Resampling] = {
    "nearest": PIL.Image.Resampling.NEAREST,
    "box": PIL.Image.Resampling.BOX,
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
    "lanczos": PIL.Image.Resampling.LANCZOS,
}


def _middle(size: int, target: int) -> tuple[int, int]:
    """Returns where the middle begins and how long it is, along one side."""
    return max(0, round((size - target) / 2)), min(size, target)


class _Tap(NamedTuple):
    """One of the pixels that each row, or each column, of a result is made of.

    Attributes:
        places: Of the pixels in the picture.
        weights: How much of each, ``float32``.
    """

    places: NDArray[np.intp]
    weights: NDArray[np.float32]


def _taps(size: int, resized: int, first: int, length: int, resample: Resample) -> list[_Tap]:
    """Returns the taps of ``length`` pixels from ``first`` on, along one side, in PyTorch's arithmetic."""
    offsets, weigh = KERNELS[resample]
    scale = np.float32(size / resized)
    numbers = np.arange(first, first + length, dtype=np.float32)
    # The nearest pixel is that of PyTorch and OpenCV, by the corner of a pixel; Pillow's is by its centre.
    middle = np.float32(0 if resample == "nearest" else 0.5)
    at = (numbers + middle) * scale - middle
    base = np.floor(at)
    places = [(base.astype(np.intp) + offset).clip(0, size - 1) for offset in offsets]
    return list(map(_Tap, places, weigh(at - base)))


def _interpolate(picture: PIL.Image.Image, rows: list[_Tap], columns: list[_Tap]) -> PIL.Image.Image:
    pixels = np.asarray(picture)
    used_rows, rows = _used(rows)
    used_columns, columns = _used(columns)
    near = pixels[np.ix_(used_rows, used_columns)].reshape(len(used_rows), len(used_columns), -1)
    down = reduce(add, (near[tap.places] * tap.weights[:, None, None] for tap in rows))
    across = reduce(add, (down[:, tap.places] * tap.weights[:, None] for tap in columns))
    values = np.rint(across).clip(0, 255).astype(np.uint8)
    return PIL.Image.fromarray(values.reshape(*values.shape[:2], *pixels.shape[2:]))


def _used(taps: list[_Tap]) -> tuple[NDArray[np.intp], list[_Tap]]:
    """Returns the places that taps use, and the same taps among these alone."""
    used, numbers = np.unique([tap.places for tap in taps], return_inverse=True)
    renumbered = numbers.reshape(len(taps), -1)
    return used, [tap._replace(places=places) for tap, places in zip(taps, renumbered, strict=True)]


def _linear(part: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [1 - part, part]


def _cubic(part: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Cubic convolution (Keys 1981) with a = -0.75, which PyTorch and OpenCV have; Pillow's has -0.5."""
    near = [((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1 for x in (part, 1 - part)]
    far = [((CUBIC * x - 5 * CUBIC) * x + 8 * CUBIC) * x - 4 * CUBIC for x in (part + 1, 2 - part)]
    return [far[0], near[0], near[1], far[1]]


CUBIC = np.float32(-0.75)
Weigh = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]
KERNELS: Mapping[Resample, tuple[tuple[int, ...], Weigh]] = {
    "nearest": ((0,), lambda part: [np.ones_like(part)]),
    "bilinear": ((0, 1), _linear),
    "bicubic": ((-1, 0, 1, 2), _cubic),
}
"""Filters that there are without antialiasing: the pixels beside a place, and the weights of each."""
