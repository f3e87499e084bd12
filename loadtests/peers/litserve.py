"""LitServe: batching in the API, the fast queue that its documentation advises for high rates."""

from __future__ import annotations

import os
from typing import Any

import litserve
import numpy as np
from numpy.typing import NDArray

from loadtests.peers.model import Model


class Scorer(litserve.LitAPI):
    """Scores images; LitServe gathers them into batches."""

    def setup(self, device: str) -> None:
        """Loads the model, in the worker."""
        self._model = Model()

    # LitServe makes an annotation here the type of a FastAPI parameter.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """Takes the image from the body."""
        return np.asarray(request["image"], np.uint8)

    def predict(self, inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scores a batch."""
        return self._model.score(inputs)

    def encode_response(self, output: NDArray[np.float32]) -> dict[str, Any]:
        """Answers with one row of scores."""
        return {"scores": output.tolist()}


if __name__ == "__main__":
    api = Scorer(max_batch_size=64, batch_timeout=0.002)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), generate_client_file=False, log_level="warning"
    )
