"""What every contender serves: the same ONNX file, run by the same onnxruntime on one thread."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray


class Model:
    """The file that ``BENCH_ONNX`` names."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            os.environ["BENCH_ONNX"], options, providers=["CPUExecutionProvider"]
        )

    def score(self, images: Any) -> NDArray[np.float32]:
        """Scores a batch of 32×32 images, given as arrays or nested lists."""
        scores: NDArray[np.float32] = self._session.run(None, {"image": np.asarray(images, np.uint8)})[0]
        return scores
