"""Rows of the demo as Arrow tables, for jobs and for their tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from models.digits import data


def digits(rows: int, *, seed: int = 0, clients: int = 97) -> Any:
    """Returns rows of digits, drawn from the evaluation part: client IDs, keys, and images as lists of lists.

    Args:
        rows: How many.
        seed: By which they are drawn.
        clients: How many clients they are of, in turn.
    """
    images = data.load().evaluation.inputs["image"]
    drawn = images[np.random.default_rng(seed).integers(0, len(images), rows)]
    return pa.table(
        {
            "client_id": [f"c-{index % clients}" for index in range(rows)],
            "key": [f"k-{index}" for index in range(rows)],
            "image": pa.array(drawn.tolist(), pa.list_(pa.list_(pa.uint8()))),
        }
    )
