"""mosec: dynamic batching on the worker, JSON as it comes with it."""

from __future__ import annotations

import os
from typing import Any

from mosec import Server, Worker

from loadtests.peers.model import Model


class Scorer(Worker):
    """Scores batches of images."""

    def __init__(self) -> None:
        super().__init__()
        self._model = Model()

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Scores the images of several requests."""
        scores = self._model.score([one["image"] for one in data]).tolist()
        return [{"scores": row} for row in scores]


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Scorer,
        num=int(os.environ["BENCH_WORKERS"]),
        max_batch_size=64,
        max_wait_time=int(os.environ.get("BENCH_WAIT_MS", "1")),
    )
    server.run()
