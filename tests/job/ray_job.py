"""A job on Ray, to be started and killed: ``python -m tests.job.ray_job ROWS OUT``."""

from __future__ import annotations

import sys

import ray

import rollout.ray


def main(rows: str, out: str) -> None:
    """Answers files of rows by ``digits:v1``; of the three actors two find a core."""
    ray.init(num_cpus=2, include_dashboard=False)
    rollout.ray.predict_to(rows, "digits:v1", out, concurrency=3, variant="onnx", audit=0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
