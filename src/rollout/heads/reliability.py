"""Reliability: how often answers given with so much confidence are right, as figures and as a diagram."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILE_NAME = "reliability.svg"
BINS = 15
LEVELS = np.arange(1, 20) / 20
# Both are seen well on white and on black; text and axes take the colour of what is around them.
BEFORE, AFTER = "#d9782d", "#3987d6"
INK = "#010203"
STYLE = """
 <style>
  svg { color-scheme: light dark; color: #1f2328 }
  text { font-family: system-ui, sans-serif !important }
  @media (prefers-color-scheme: dark) { svg { color: #e6e8eb } }
 </style>"""


class Bins(NamedTuple):
    """Rows in 15 bins of equal width, by confidence; 0 where a bin is empty.

    Attributes:
        rows: Number of rows.
        confidence: Their mean confidence.
        accuracy: The share of them that is right.
    """

    rows: NDArray[np.int_]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def calibration_error(self) -> float:
        """The expected calibration error: the mean distance of confidence and accuracy, weighted by rows.

        Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", 2015.
        """
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.rows))


def bin_by_confidence(confidence: NDArray[Any], correct: NDArray[np.bool_]) -> Bins:
    """Sorts rows into bins.

    Args:
        confidence: Confidence of each row, shape ``(rows,)``.
        correct: Whether each was right, shape ``(rows,)``.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = np.bincount(bins, minlength=BINS)
    sums = (np.bincount(bins, weights, minlength=BINS) for weights in (confidence, correct))
    return Bins(rows, *(total / np.maximum(rows, 1) for total in sums))


def draw_confidence(before: Bins, after: Bins) -> str:
    """Draws accuracy against confidence, before and after temperature scaling, above the rows of each bin.

    Returns:
        An SVG, the same one each time.
    """

    def draw(figure: Figure) -> None:
        accuracy, rows = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        _diagonal(accuracy, "as right as it is sure")
        for name, bins, colour, start in (("before", before, BEFORE, 0.1), ("after", after, AFTER, 0.5)):
            filled = bins.rows > 0
            label = f"{name} scaling: calibration error {bins.calibration_error:.4f}"
            _line(accuracy, bins.confidence[filled], bins.accuracy[filled], colour, label)
            rows.bar((np.arange(BINS) + start) / BINS, bins.rows, 0.4 / BINS, align="edge", color=colour)
        accuracy.set(ylabel="accuracy", ylim=(-0.04, 1.04))
        rows.set(xlabel="confidence", ylabel="rows", xlim=(-0.02, 1.02))

    return _svg("Accuracy against confidence, before and after temperature scaling", draw)


def draw_coverage(observed: NDArray[np.float64], promised: float) -> str:
    """Draws how often intervals hold their target against how often they are to.

    Args:
        observed: The share of intervals that held it, for each of ``LEVELS``.
        promised: The coverage that the task asks for.

    Returns:
        An SVG, the same one each time.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _diagonal(axes, "as often as asked for")
        axes.axvline(promised, color=BEFORE, linewidth=1.5, label=f"this model asks for {promised:.0%}")
        _line(axes, LEVELS, observed, AFTER, "observed")
        axes.set(xlabel="coverage asked for", ylabel="coverage observed", xlim=(-0.02, 1.02), ylim=(-0.04, 1.04))

    return _svg("Observed coverage of intervals against the coverage asked for", draw)


def _diagonal(axes: Axes, label: str) -> None:
    axes.plot([0, 1], [0, 1], "--", color=INK, linewidth=1, alpha=0.5, label=label)


def _line(axes: Axes, x: NDArray[Any], y: NDArray[Any], colour: str, label: str) -> None:
    axes.plot(x, y, "-o", color=colour, linewidth=1.5, markersize=5, label=label)


def _svg(title: str, draw: Callable[[Figure], None]) -> str:
    import matplotlib.style  # noqa: PLC0415  only packing needs it, and only here
    from matplotlib.figure import Figure  # noqa: PLC0415

    style = {
        "svg.hashsalt": "rollout",
        "svg.fonttype": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.alpha": 0.15,
        "legend.frameon": False,
        **dict.fromkeys(
            ("text.color", "axes.edgecolor", "axes.labelcolor", "grid.color", "xtick.color", "ytick.color"), INK
        ),
    }
    file = io.StringIO()
    with matplotlib.style.context(style, after_reset=True):
        figure = Figure(figsize=(5.2, 4.4), layout="constrained")
        draw(figure)
        figure.legend(loc="outside upper left")
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata={"Title": title, **nothing})
    start, rest = file.getvalue().partition("<svg")[2].split(">", 1)
    return f"<svg{start}>{STYLE}{rest}".replace(INK, "currentColor")
