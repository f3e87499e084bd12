"""Triton through PyTriton, with its dynamic batcher."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from loadtests.peers.model import Model

model = Model()


@batch
def infer(image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Scores a batch."""
    return {"scores": model.score(image)}


if __name__ == "__main__":
    port = int(os.environ["BENCH_PORT"])
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=port,
        allow_grpc=False,
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="digits",
            infer_func=infer,
            inputs=[Tensor(name="image", dtype=np.uint8, shape=(32, 32))],
            outputs=[Tensor(name="scores", dtype=np.float32, shape=(10,))],
            config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher(max_queue_delay_microseconds=2000)),
            strict=False,
        )
        triton.serve()
