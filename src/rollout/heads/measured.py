"""What a head is measured by on the evaluation part, and what that gives."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Measured(NamedTuple):
    """What was measured on the evaluation part.

    Attributes:
        figures: By name, with underscores.
        diagram: An SVG that shows how far the answers can be trusted; empty where there is nothing to show.
    """

    figures: dict[str, float]
    diagram: str = ""


class Evaluated(NamedTuple):
    """What a head is measured by.

    Attributes:
        calibration: Outputs and targets of the calibration part.
        outputs: Outputs of the evaluation part, ``float32`` of shape ``(rows, width)``.
        scores: Its scores, ``float32`` of shape ``(rows, outputs)``.
        targets: Its targets.
    """

    calibration: tuple[NDArray[np.float32], NDArray[Any]]
    outputs: NDArray[np.float32]
    scores: NDArray[np.float32]
    targets: NDArray[Any]
