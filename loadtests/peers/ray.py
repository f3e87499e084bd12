"""Ray Serve: a deployment that batches, with the settings that its documentation gives for throughput."""

from __future__ import annotations

import os
import signal

# Read when ray is imported.
os.environ["RAY_SERVE_THROUGHPUT_OPTIMIZED"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray import serve
from starlette.requests import Request

from loadtests.peers.model import Model


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
class Scorer:
    """Scores images."""

    def __init__(self) -> None:
        self._model = Model()

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.002)
    async def score(self, images: list[list[list[int]]]) -> list[dict[str, list[float]]]:
        """Scores the images of several requests."""
        return [{"scores": row} for row in self._model.score(images).tolist()]

    async def __call__(self, request: Request) -> dict[str, list[float]]:
        """Answers one request."""
        answer: dict[str, list[float]] = await self.score((await request.json())["image"])
        return answer


if __name__ == "__main__":
    ray.init(_node_ip_address="127.0.0.1", include_dashboard=False, num_cpus=2, log_to_driver=False)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])},
        logging_config={"enable_access_log": False},
    )
    serve.run(Scorer.bind(), route_prefix="/")  # type: ignore[attr-defined]  # the decorator made it one
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
