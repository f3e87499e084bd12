"""Rows of the demo as Arrow tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from models.digits import data


def digits(rows: int) -> Any:
    """Returns rows of digits: client IDs, keys, and images as lists of lists."""
    images = data.load().evaluation.inputs["image"]
    drawn = images[np.random.default_rng(5).integers(0, len(images), rows)]
    return pa.table(
        {
            "client_id": [f"c-{index % 97}" for index in range(rows)],
            "key": [f"k-{index}" for index in range(rows)],
            "image": pa.array(drawn.tolist(), pa.list_(pa.list_(pa.uint8()))),
        }
    )
