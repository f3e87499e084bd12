"""The image field: nested lists, or a PNG, JPEG or WebP file in base64."""

from __future__ import annotations

import base64
import io
import math
import struct
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import msgspec
import numpy as np
import PIL.Image
from msgspec import Meta
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngInfo

from rollout.bundle.apart import Apart, patches
from rollout.bundle.image_file import (
    FORMATS,
    MAX_PIXELS,
    MAX_SIDE,
    Colour,
    PixelBudget,
    check_colour,
    decode_image,
    open_image,
)
from rollout.bundle.image_parts import PACKED_CHUNKS, count_passes, count_unpacked
from rollout.bundle.resizing import (
    FILTERS,
    KERNELS,
    Fit,
    Resample,
    Size,
    pixels_computed,
    put_in_the_middle,
    resized_size,
)
from rollout.bundle.wire import WireField, from_base64, nested
from rollout.judge.features import Features, number

# A PNG of no more bytes and pixels is decoded sooner than a thread is reached.
QUICK_BYTES = 4096
QUICK_PIXELS = 4096
# Numbers of an image that are looked at to compare it with others.
PIXELS = 16_384
PNG_HEAD = struct.Struct(">8s4x4sII")  # signature, length and name of the first chunk, width, height
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# A text in a PNG: its pixels came as lists, which nothing resizes.
AS_THE_MODEL_TAKES_IT = ("Rollout", "as the model takes it")


class Image(WireField, frozen=True, kw_only=True, omit_defaults=True, tag="image"):
    """An image: nested lists of ``uint8``, or a PNG, JPEG or WebP file in base64.

    A file is turned upright, converted to the number of channels, and brought to the size that the model takes.
    Lists have that size already. Defaults are not written to the manifest, so that bundles keep their digest.

    Attributes:
        height: Rows that the model takes.
        width: Columns that the model takes.
        channels: 1 for grayscale, shape ``(height, width)``; 3 for RGB, shape ``(height, width, 3)``.
        fit: How a file of another size becomes one of this size. ``stretch`` changes its proportions. ``crop``
            resizes it so that its shorter side is ``resize_to``, and takes the middle; ``pad`` resizes it so that
            all of it is inside, in the middle of ``padding``: both with the sizes and offsets of torchvision's
            ``Resize`` and ``CenterCrop``. ``exact`` refuses it.
        resize_to: Length of the shorter side before a crop, in pixels; the longer of ``height`` and ``width``
            unless it is said. What a smaller one does not cover is ``padding``.
        resample: The filter, Pillow's.
        antialias: Whether the filter grows with the scale when an image shrinks, as in Pillow, and since 0.17 in
            torchvision whatever it resizes. Without it, ``nearest``, ``bilinear`` and ``bicubic`` are what older
            torchvisions did to tensors, and OpenCV does: the plain interpolation of PyTorch with
            ``align_corners=False``, rounded. There ``nearest`` looks at the corners of pixels and not at their
            centres, and ``bicubic`` has -0.75 in the place of Pillow's -0.5.
        padding: The colour of what an image does not cover: a grey, or red, green and blue, from 0 to 255.
        background: The colour under transparent pixels. With ``None`` transparency is ignored, and pixels have
            the colour that the file gives them, seen or not: so do Pillow's ``convert("RGB")``, with which
            torchvision loads data sets, and OpenCV's ``imread``.
        upright: Whether a file is turned as its EXIF orientation says, which OpenCV's ``imread`` does, and
            torchvision's data sets do not. Reviewers see it upright.

    Raises:
        ValueError: If these contradict each other.

    Example:
        >>> Image(height=2, width=2).decode([[0, 255], [7, 0]])
        array([[  0, 255],
               [  7,   0]], dtype=uint8)
    """

    is_image: ClassVar[bool] = True
    media_types: ClassVar[tuple[str, ...]] = tuple(FORMATS)

    height: int
    width: int
    # Made by a function, it is written although it is the default.
    channels: Literal[1, 3] = msgspec.field(default_factory=lambda: 1)
    fit: Fit = "stretch"
    resize_to: int | None = None
    resample: Resample = "box"
    antialias: bool = True
    padding: Colour = 0
    background: Colour | None = None
    upright: bool = True

    def __post_init__(self) -> None:
        low, high = sorted((self.height, self.width))
        _require(
            low > 0 and high <= MAX_SIDE and low * high <= MAX_PIXELS,
            f"{self.height}×{self.width} pixels are no image, or more than {MAX_PIXELS:,} or {MAX_SIDE:,} a side",
        )
        _require(self.fit in FITS, f"fit={self.fit!r} is none of {', '.join(FITS)}")
        _require(self.resample in FILTERS, f"resample={self.resample!r} is none of {', '.join(FILTERS)}")
        _require(
            self.antialias or self.resample in KERNELS,
            f"resample={self.resample!r} is always antialiased; without, there are {', '.join(KERNELS)}",
        )
        if self.resize_to is not None:
            _require(self.fit == "crop", f"resize_to is for fit='crop', and fit is {self.fit!r}")
            _require(0 < self.resize_to <= MAX_SIDE, f"resize_to={self.resize_to} is not from 1 to {MAX_SIDE:,}")
        _require(self.padding == 0 or self.fit in ("crop", "pad"), f"fit={self.fit!r} has nothing to pad")
        for colour in (self.padding, self.background):
            if colour is not None:
                check_colour(colour, self.channels)

    @classmethod
    def imagenet(cls, size: int = 224, *, resize_to: int | None = None) -> Self:
        """How nearly all networks for ImageNet are evaluated.

        As torchvision's ``Resize(resize_to)`` and ``CenterCrop(size)`` do it to a Pillow image in RGB, bilinear
        with antialiasing, pixel by pixel. ``ToTensor`` and ``Normalize`` belong into the module.

        Args:
            size: Side of the square that the model takes.
            resize_to: Shorter side before the crop; ``size / 0.875`` rounded down unless it is said, which is
                256 for 224. Of torchvision's weights, those of ``IMAGENET1K_V2`` mostly have 232, and
                ``Inception_V3`` 342 for 299: ``weights.transforms()`` shows it.
        """
        shorter = int(size / 0.875) if resize_to is None else resize_to
        return cls(height=size, width=size, channels=3, fit="crop", resize_to=shorter, resample="bilinear")

    @classmethod
    def clip(cls, size: int = 224) -> Self:
        """How OpenAI's CLIP and OpenCLIP see an image.

        As the ``preprocess`` of ``clip.load`` does it to a file in RGB, pixel by pixel: ``Resize(size, BICUBIC)``
        and ``CenterCrop(size)``. ``CLIPImageProcessor`` of Transformers rounds the offset of the crop down,
        torchvision half of it to even, so the one may lie a pixel beside the other. ``ToTensor`` and
        ``Normalize`` belong into the module.

        Args:
            size: Side of the square that the model takes; 336 for ``ViT-L/14@336px``.
        """
        return cls(height=size, width=size, channels=3, fit="crop", resize_to=size, resample="bicubic")

    @classmethod
    def vit(cls, size: int = 224, *, resample: Resample = "bilinear") -> Self:
        """How Transformers' ``ViTImageProcessor`` sees an image: all of it, stretched to a square.

        As torchvision's ``Resize((size, size))`` does it to a Pillow image in RGB, bilinear with antialiasing,
        pixel by pixel. Rescaling and normalising belong into the module.

        Args:
            size: Side of the square that the model takes.
            resample: The filter; ``bicubic`` for ``SiglipImageProcessor``.
        """
        return cls(height=size, width=size, channels=3, resample=resample)

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
        file = Annotated[str, Meta(description=self._file, extra_json_schema={"contentEncoding": "base64"})]
        return nested(Annotated[int, Meta(ge=0, le=255)], self.shape) | file

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        shape = "×".join(map(str, self.shape))
        return f"{shape} nested lists of whole numbers from 0 to 255, or {self._file}"

    @property
    def moves(self) -> str:
        """Why a place in what the module gets is not the same part of a file."""
        if self.fit in ("crop", "pad"):
            seen = "the middle of a file" if self.fit == "crop" else "a file with something around it"
            return (
                f"fit={self.fit!r} shows the module {seen}. Take fit='stretch', or fit='exact' for files that "
                "have the model's size, and crop or pad inside forward if the network needs it"
            )
        if not self.upright:
            return "upright=False shows the module files lying that others see upright: leave it at True"
        return ""

    @property
    def _file(self) -> str:
        return "a PNG, JPEG or WebP file in base64" + FITS[self.fit].format(self._shorter)

    def decode(self, value: Any) -> NDArray[np.uint8]:
        """Turns nested lists or a base64 file into an array of ``shape`` and ``uint8``.

        Raises:
            ValueError: If a string is not base64, not an image, or too large an image.
        """
        if isinstance(value, str):
            return self.decode_file(from_base64(value))
        return np.array(value, np.uint8).reshape(self.shape)

    @property
    def is_large(self) -> bool:
        """Whether it is kept as a file for reviewers, however it came: numbers take six times the bytes."""
        return self.height * self.width > QUICK_PIXELS

    def keep(self, sent: msgspec.Raw | None, array: NDArray[Any]) -> Any:
        """Returns what is kept of a row for a reviewer: a file as it came, other large images as a PNG in base64.

        That says that its pixels are the model's, so that it decodes to these whatever ``fit`` is.

        Args:
            sent: The JSON value that came, or ``None`` where numbers came in another form.
            array: What it was decoded to.
        """
        is_file = sent is not None and bytes(sent).startswith(b'"')
        if is_file or not self.is_large:
            return super().keep(sent, array)
        file = io.BytesIO()
        info = PngInfo()
        info.add_text(*AS_THE_MODEL_TAKES_IT)
        PIL.Image.fromarray(array).save(file, "PNG", compress_level=1, pnginfo=info)
        return base64.b64encode(file.getvalue()).decode()

    @property
    def _shorter(self) -> int:
        return max(self.height, self.width) if self.resize_to is None else self.resize_to

    def _resized(self, size: Size) -> Size:
        return resized_size(size, (self.width, self.height), self.fit, self._shorter)

    def _work(self, size: Size, passes: int = 1) -> int:
        """Returns how many pixels are decoded, in so many passes, or computed, whichever are more."""
        computed = pixels_computed(self._resized(size), (self.width, self.height), antialias=self.antialias)
        return max(size[0] * size[1] * passes, computed)

    def read_cell(self, cell: str) -> Any:
        """Reads a cell of a CSV file: lists, or else a file in base64, which digits alone may be as well."""
        return super().read_cell(cell) if cell.lstrip().startswith("[") else cell

    def picture(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        """Returns the array: it is an image."""
        return array.astype(np.uint8)

    def features(self, column: NDArray[Any]) -> Features:
        """Returns brightness, contrast, how sharp it is along its lines, how much redder than blue; from 0 to 1.

        Of a large image, of lines that are spread evenly over it: they tell as much as all of them.
        """
        lines = max(1, PIXELS // (self.width * self.channels))
        seen = column[:, :: -(-self.height // lines)].astype(np.float32) / 255
        inside = tuple(range(1, seen.ndim))
        edges = np.abs(np.diff(seen, axis=2))
        found = {
            "brightness": number(seen.mean(inside)),
            "contrast": number(seen.std(inside)),
            "sharpness": number(edges.sum(inside) / max(1, math.prod(edges.shape[1:]))),
        }
        if self.channels == 1:
            return found
        return found | {"warmth": number((seen[..., 0] - seen[..., 2]).mean((1, 2)))}

    def take_apart(self, row: NDArray[Any], background: NDArray[Any]) -> Apart:
        """Takes the image that the model takes apart into patches."""
        return patches(row, background)

    def decode_file(self, data: bytes, budget: PixelBudget | None = None) -> NDArray[np.uint8]:
        """Turns a file into an array of ``shape`` and ``uint8``.

        Args:
            data: The bytes of the file; what it is they say themselves.
            budget: What it may take from; without one, it has a limit of its own alone.

        Raises:
            ValueError: If it is not an image, or too large a one.
        """
        if budget is not None:
            budget.take(count_unpacked(data))
        with open_image(data) as image:
            if budget is not None:
                budget.take(self._work(image.size, count_passes(data)))
            name, words = AS_THE_MODEL_TAKES_IT
            is_ready = image.info.get(name) == words
            mode: Literal["L", "RGB"] = "L" if self.channels == 1 else "RGB"
            picture = decode_image(image, mode, self.background, upright=self.upright)
        target = self.width, self.height
        if is_ready and picture.size == target:
            return np.asarray(picture)
        if self.fit == "exact" and picture.size != target:
            raise ValueError(
                f"the image is {picture.width}×{picture.height} pixels; this model takes {self.width}×"
                f"{self.height} and nothing else: bring it to that size as it was done in training"
            )
        return np.asarray(
            put_in_the_middle(
                picture,
                self._resized(picture.size),
                target,
                resample=self.resample,
                antialias=self.antialias,
                padding=self.padding,
            )
        )

    def is_slow_file(self, data: bytes) -> bool:
        """Whether ``decode_file`` takes long enough to be moved off the event loop.

        It does unless the file is a small PNG that stays small: that says its size in the first chunk (PNG, third
        edition, section 11.2.1), wherever in a JPEG it may stand.
        """
        if not PNG_HEAD.size <= len(data) <= QUICK_BYTES:
            return True
        signature, name, width, height = PNG_HEAD.unpack_from(data)
        is_png = signature == PNG_SIGNATURE and name == b"IHDR" and width and height
        if not is_png or any(chunk in data for chunk in PACKED_CHUNKS):
            return True
        return self._work((width, height)) > QUICK_PIXELS


FITS: Mapping[Fit, str] = {
    "stretch": ", which is stretched to that size",
    "crop": ", of which the middle is taken once its shorter side has {} pixels",
    "pad": ", which is resized to lie inside that size",
    "exact": ", of that size",
}
"""What becomes of a file, in words."""


def _require(is_so: bool, otherwise: str) -> None:  # noqa: FBT001
    if not is_so:
        raise ValueError(otherwise)
