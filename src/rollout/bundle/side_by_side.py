"""Two images of the same size and their difference, side by side as one picture."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

# Of one of the three, in pixels: smaller ones are enlarged by whole numbers, larger ones are reduced.
LEAST, MOST = 160, 480
GAP = 8


def draw(theirs: NDArray[np.uint8], ours: NDArray[np.uint8]) -> bytes:
    """Returns a PNG of two images, ``(height, width)`` or ``(height, width, 3)``, and of their difference.

    The difference is stretched until its largest value is white.
    """
    apart = np.abs(theirs.astype(np.int16) - ours.astype(np.int16))
    stretched = (apart * (255 / max(1, int(apart.max(initial=0))))).astype(np.uint8)
    panels = [_panel(array) for array in (theirs, ours, stretched)]
    width, height = panels[0].size
    sheet = PIL.Image.new("RGB", (3 * width + 2 * GAP, height), "white")
    for at, panel in enumerate(panels):
        sheet.paste(panel, (at * (width + GAP), 0))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _panel(array: NDArray[Any]) -> PIL.Image.Image:
    image = PIL.Image.fromarray(array).convert("RGB")
    longest = max(image.size)
    if longest > MOST:
        image.thumbnail((MOST, MOST))
        return image
    times = max(1, LEAST // longest)
    return image.resize((image.width * times, image.height * times), PIL.Image.Resampling.NEAREST)
