"""A version that fails on one kind of row."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rollout.heads import Scores
from rollout.inference.version import LoadedVersion


def spoil_black(version: LoadedVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a version give NaN for black images."""
    run = version._runtime.run

    def spoil(inputs: dict[str, NDArray[np.uint8]]) -> Scores:
        scores = run(inputs)
        scores[inputs["image"].max((1, 2)) == 0] = np.nan
        return scores

    monkeypatch.setattr(version._runtime, "run", spoil)
