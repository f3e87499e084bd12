"""Bare BentoML: a batchable API in front of the model; no validation beyond shape and dtype."""

from __future__ import annotations

from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import DType, Shape
from numpy.typing import NDArray

from loadtests.peers.model import Model

Images = Annotated[NDArray[np.uint8], Shape((-1, 32, 32)), DType("uint8")]
Scores = Annotated[NDArray[np.float32], Shape((-1, 10)), DType("float32")]


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Bare:
    """Scores images."""

    def __init__(self) -> None:
        self._model = Model()

    @bentoml.api(batchable=True, max_batch_size=64)
    def predict(self, image: Images) -> Scores:
        """Scores a batch."""
        return self._model.score(image)
