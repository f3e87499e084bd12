"""Bare BentoML, as its documentation says: a batchable API in front of the same ONNX file."""

from __future__ import annotations

import os
from typing import Annotated

import bentoml
import numpy as np
import onnxruntime
from bentoml.validators import DType, Shape
from numpy.typing import NDArray

Images = Annotated[NDArray[np.uint8], Shape((-1, 32, 32)), DType("uint8")]
Scores = Annotated[NDArray[np.float32], Shape((-1, 10)), DType("float32")]


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Bare:
    """Scores images; no A/B, no review, no validation beyond shape and dtype."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            os.environ["BENCH_ONNX"], options, providers=["CPUExecutionProvider"]
        )

    @bentoml.api(batchable=True, max_batch_size=64)
    def predict(self, image: Images) -> Scores:
        """Scores a batch."""
        scores: Scores = self._session.run(None, {"image": image})[0]
        return scores
