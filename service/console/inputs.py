"""The inputs of a review item as what they are: an image, a text, a fact, numbers, a curve or a sound."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import PIL.Image
from msgspec import UNSET
from numpy.typing import NDArray

from rollout.bundle.audio import Audio
from rollout.bundle.fields import Field, Tensor
from rollout.bundle.image import Image
from rollout.bundle.image_file import decode_image, open_image
from rollout.bundle.numbers import Number, Time
from rollout.bundle.table import Table
from rollout.bundle.texts import Category, Text
from rollout.bundle.wav import wav
from rollout.review.item import ReviewItem
from service.console import sound

REDACTED = "[redacted]"
MOST_PIXELS = 1024
SMALL_PIXELS = 256
MOST_NUMBERS = 64
MOST_CELLS = 12
MISSING = "–"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One input, ready for a page.

    Attributes:
        name: Of the field.
        kind: How it is shown.
        text: The value in words; what a picture shows, for those who do not see it.
        more: A further way of writing it.
        source: The picture or sound, a ``data:`` URL.
        size: Width and height of the picture, in pixels.
        is_small: Whether the picture is scaled up with its pixels in sight.
        path: The curve, an SVG path in a box of 1000 by 100.
        rows: Numbers in rows and columns, written out.
    """

    name: str
    kind: Literal["image", "text", "fact", "numbers", "curve", "sound", "gone"]
    text: str = ""
    more: str = ""
    source: str = ""
    size: tuple[int, int] = (0, 0)
    is_small: bool = False
    path: str = ""
    rows: Sequence[Sequence[str]] = ()


def show_inputs(fields: Mapping[str, Field], item: ReviewItem) -> list[Shown]:
    """Returns the inputs of an item in the order of the schema; none where they are not kept any more.

    What does not fit the schema, which may have changed since, is shown as it was sent.

    Args:
        fields: The model's input schema.
        item: The item.
    """
    if not item.has_inputs:
        return []
    values: dict[str, Any] = msgspec.json.decode(item.inputs)
    names = [
        *(name for name, field in fields.items() if name in values or field.missing is not None),
        *(name for name in values if name not in fields),
    ]
    return [_show(name, fields.get(name), values.get(name, UNSET)) for name in names]


def _show(name: str, field: Field | None, value: Any) -> Shown:
    if value is UNSET:
        return Shown(name=name, kind="gone", text="Missing: the caller has sent none.")
    if value is None or value == REDACTED:
        return Shown(name=name, kind="gone", text="Not kept: the review policy redacts this field.")
    if field is not None:
        with suppress(ValueError, OSError, SyntaxError):
            return SHOW[type(field)](name, field, msgspec.convert(value, field.wire_type))
    return Shown(name=name, kind="text", text=msgspec.json.format(msgspec.json.encode(value)).decode())


def _image(name: str, field: Image, value: Any) -> Shown:
    image = _open(value, field) if isinstance(value, str) else PIL.Image.fromarray(field.decode(value))
    size = f"{image.width} × {image.height} pixels"
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    file = io.BytesIO()
    image.save(file, "PNG")
    return Shown(
        name=name,
        kind="image",
        text=size,
        source=_data_url("image/png", file.getvalue()),
        size=image.size,
        is_small=max(image.size) <= SMALL_PIXELS,
    )


def _open(text: str, field: Image) -> PIL.Image.Image:
    with open_image(base64.b64decode(text)) as image:
        image.draft("RGB", (MOST_PIXELS, MOST_PIXELS))
        return decode_image(image, "RGB", field.background)


def _text(name: str, _: Text, value: str) -> Shown:
    return Shown(name=name, kind="text", text=value)


def _fact(name: str, _: Number | Category, value: float | str) -> Shown:
    return Shown(name=name, kind="fact", text=_cell(value))


def _cell(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.10g}"


def _columns(name: str, field: Table, value: Any) -> Shown:
    cells = [MISSING if cell is None else _cell(cell) for cell in msgspec.structs.astuple(value)]
    rows = [list(pair) for pair in zip(field.columns, cells, strict=True)]
    missing = cells.count(MISSING)
    text = f"{len(cells)} columns" + (f", {missing} of them missing" if missing else "")
    return Shown(name=name, kind="numbers", text=text, rows=rows)


def _time(name: str, _: Time, value: Any) -> Shown:
    clock = f"{value:%H:%M:%S}" if value.second else f"{value:%H:%M}"
    text = f"{value:%A}, {value.day} {value:%B %Y}, {clock} {value.tzname()}"
    return Shown(name=name, kind="fact", text=text, more=value.isoformat().replace("+00:00", "Z"))


def _tensor(name: str, field: Tensor, value: Any) -> Shown:
    array = field.decode(value)
    if field.free is not None:
        array = array[()]
    if np.isnan(array).any():
        return Shown(name=name, kind="numbers", text=_range(array), rows=_table(array))
    if not array.ndim:
        return Shown(name=name, kind="fact", text=f"{array.item():,.7g}")
    if field.sample_rate is not UNSET:
        return _sound(name, array, field.sample_rate, f" at {field.sample_rate:,} Hz")
    if array.ndim == 1 and len(array) > 2:
        return Shown(name=name, kind="curve", text=_range(array), path=sound.curve(array), rows=[_written(array)])
    return Shown(name=name, kind="numbers", text=_range(array), rows=_table(array))


def _audio(name: str, field: Audio, value: str) -> Shown:
    return _sound(name, field.decode(value)[()], field.sample_rate)


def _sound(name: str, samples: NDArray[Any], rate: int, at: str = "") -> Shown:
    """Shows samples as something to play."""
    return Shown(
        name=name,
        kind="sound",
        text=f"{len(samples) / rate:.3g} s{at}",
        source=_data_url("audio/wav", wav(samples, rate)),
        path=sound.waveform(samples),
    )


def _table(array: NDArray[Any]) -> list[list[str]]:
    """Returns a corner of an array as rows; of more than two dimensions, the first plane."""
    plane = np.atleast_2d(array)
    while plane.ndim > 2:
        plane = plane[0]
    rows = [_written(row, MOST_CELLS) for row in plane[:MOST_CELLS]]
    return rows if len(plane) <= MOST_CELLS else [*rows, ["…"]]


def _written(numbers: NDArray[Any], most: int = MOST_NUMBERS) -> list[str]:
    written = [_figure(one) for one in numbers[:most].tolist()]
    return written if len(numbers) <= most else [*written, "…"]


def _figure(number: float) -> str:
    if math.isnan(number):
        return MISSING
    return f"{number:.4g}" if isinstance(number, float) else str(number)


def _range(array: NDArray[Any]) -> str:
    shape = " × ".join(map(str, array.shape))
    if missing := int(np.isnan(array).sum()):
        known = array[~np.isnan(array)]
        of = f", of the others {_range(known)}" if len(known) else ""
        return f"{shape} numbers, {missing} of them missing{of}"
    return f"{shape} numbers from {array.min():.4g} to {array.max():.4g}, {array.mean():.4g} on average"


def _data_url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


SHOW: Mapping[type[Field], Callable[[str, Any, Any], Shown]] = {
    Image: _image,
    Text: _text,
    Number: _fact,
    Category: _fact,
    Time: _time,
    Tensor: _tensor,
    Audio: _audio,
    Table: _columns,
}
