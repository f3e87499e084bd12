"""An explanation as a picture: images under a map of their patches, everything else as bars."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rollout.bundle.fields import Field
from rollout.bundle.schema import Arrays
from rollout.explain.explanation import Attribution, Explanation

UP, DOWN = "#c0392b", "#2c6fbb"
MOST_BARS = 20
LONGEST = 40
WIDTH, BAR_HEIGHT, IMAGE_HEIGHT = 7.0, 0.24, 3.4
DPI = 110


def draw(explanation: Explanation, fields: dict[str, Field], row: Arrays) -> bytes:
    """Draws an explanation as a PNG.

    Args:
        explanation: It.
        fields: The input schema.
        row: The inputs, columns of one row.
    """
    pictures = {
        name: picture for name, field in fields.items() if (picture := field.picture(row[name][0])) is not None
    }
    bars = [one for one in explanation.attributions if one.field not in pictures]
    bars = sorted(bars, key=lambda one: -abs(one.attribution))[:MOST_BARS]
    heights = [IMAGE_HEIGHT] * len(pictures) + ([BAR_HEIGHT * len(bars) + 0.5] if bars else [])
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.9), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        _plain(f"{explanation.model}:{explanation.version} ({explanation.variant}): {explanation.explained}")
        + f" is {explanation.value:.4g}",
        fontsize=10,
    )
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    for place, (name, picture) in enumerate(pictures.items()):
        own = grid[place].subgridspec(1, 2)
        _draw_image(figure, own, name, picture, explanation.of_field(name))
    if bars:
        _draw_bars(figure.add_subplot(grid[len(heights) - 1]), bars)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def heat(shape: tuple[int, int], attributions: Sequence[Attribution]) -> NDArray[np.float64]:
    """Returns the attributions of patches as a map, shape ``(height, width)``."""
    found = np.zeros(shape)
    for one in attributions:
        if one.box is not None:
            left, top, right, bottom = one.box
            found[top:bottom, left:right] = one.attribution
    return found


def _draw_image(
    figure: Figure, place: Any, name: str, picture: NDArray[np.uint8], attributions: Sequence[Attribution]
) -> None:
    found = heat(picture.shape[:2], attributions)
    most = float(np.abs(found).max()) or 1.0
    colours = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    as_is, mapped = figure.add_subplot(place[0]), figure.add_subplot(place[1])
    for axes in (as_is, mapped):
        axes.imshow(colours)
        axes.set_axis_off()
    as_is.set_title(_plain(name), fontsize=9)
    shown = mapped.imshow(found, cmap="RdBu_r", vmin=-most, vmax=most, alpha=0.6, interpolation="nearest")
    mapped.set_title("what each patch does to it", fontsize=9)
    figure.colorbar(shown, ax=mapped, shrink=0.8).ax.tick_params(labelsize=7)


def _draw_bars(axes: Any, bars: Sequence[Attribution]) -> None:
    names = [_plain(" ".join(filter(None, (one.field, one.part, one.value)))) for one in bars]
    numbers = [one.attribution for one in bars]
    places = range(len(bars))
    axes.barh(places, numbers, color=[UP if number > 0 else DOWN for number in numbers])
    axes.set_yticks(places, names, fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.axvline(0, color="#444444", linewidth=0.8)
    axes.invert_yaxis()
    if not any(math.fabs(number) for number in numbers):
        axes.set_xlim(-1, 1)


def _plain(text: str) -> str:
    """Returns a text as it is drawn: not taken for a formula, and not too long."""
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in short).replace(
        "$", r"\$"
    )
