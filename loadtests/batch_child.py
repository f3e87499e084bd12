"""One contender of ``make bench-batch``, in a process of its own: answers the table whenever it reads a line."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from loadtests.bodies import images, json_request, rollout_body
from loadtests.ours import BIN, SERVE
from loadtests.servers import running

TAG = "digits:v2"
VARIANT = "onnx"
BATCH = 256

Work = Callable[[], object]


@contextlib.contextmanager
def onnxruntime_alone(rows: Path, out: Path) -> Iterator[Work]:
    """What one would write by hand: Parquet in, the graph, label and confidence, Parquet out."""
    import onnxruntime
    import pyarrow as pa

    from rollout.bundle.store import open_bundle

    folder, manifest = open_bundle(TAG)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / manifest.variants[VARIANT].file, options)
    side = manifest.inputs["image"].shape

    def work() -> None:
        for file in sorted(rows.glob("*.parquet")):
            table = pq.read_table(file)
            pixels = table.column("image").combine_chunks().flatten().flatten().to_numpy()
            drawn = pixels.reshape(-1, *side)
            batches = [drawn[at : at + BATCH] for at in range(0, len(drawn), BATCH)]
            scores = np.concatenate([session.run(None, {"image": batch})[0] for batch in batches])
            answers = {"label": scores.argmax(1), "confidence": scores.max(1)}
            pq.write_table(pa.table({"key": table.column("key"), **answers}), f"{out}-{file.name}")

    yield work


@contextlib.contextmanager
def predict(rows: Path, out: Path) -> Iterator[Work]:
    """``rollout predict`` and the service that it asks, with a Valkey."""
    from rollout.cli import cli

    whole = out.with_name("rows.parquet")
    pq.write_table(pq.read_table(rows), whole)
    home = out.with_name("home")
    environment = {"ROLLOUT_HOME": str(home), "ROLLOUT_WORKERS": "0", "ROLLOUT_VARIANT": VARIANT}
    model, _, version = TAG.partition(":")
    split = [str(BIN / "rollout"), "split", "set", model, "--champion", version, "--yes"]
    subprocess.run(split, env=os.environ | environment, check=True)
    first = json_request(f"/v1/models/{model}/predict", rollout_body(images()[0].tolist(), 0))
    with running(SERVE, environment, first, out.with_suffix(".service.log")) as service:

        def work() -> None:
            arguments = ["predict", str(whole), "--out", f"{out}.parquet", "--force", "--url", service.url]
            with contextlib.redirect_stdout(sys.stderr):
                cli.main(arguments, standalone_mode=False)

        yield work


@contextlib.contextmanager
def spark(rows: Path, out: Path) -> Iterator[Work]:
    """``rollout.spark.predict`` in a session that is there."""
    from pyspark.sql import SparkSession

    import rollout.spark

    session = SparkSession.builder.master("local[*]").config("spark.ui.enabled", "false").getOrCreate()
    answers = rollout.spark.predict(session.read.parquet(str(rows)), TAG, variant=VARIANT)
    yield lambda: answers.write.mode("overwrite").parquet(str(out))
    session.stop()


@contextlib.contextmanager
def ray_data(rows: Path, out: Path) -> Iterator[Work]:
    """``rollout.ray.predict`` in a Ray that is there; its actors begin anew each time, as Ray Data has it."""
    import ray

    import rollout.ray

    cores = len(os.sched_getaffinity(0))
    ray.init(num_cpus=2 * cores, include_dashboard=False, log_to_driver=False)

    def work() -> None:
        shutil.rmtree(out, ignore_errors=True)
        read: Any = ray.data.read_parquet(str(rows))
        rollout.ray.predict(read, TAG, concurrency=cores, variant=VARIANT).write_parquet(str(out))

    yield work
    ray.shutdown()


@contextlib.contextmanager
def ray_files(rows: Path, out: Path) -> Iterator[Work]:
    """``rollout.ray.predict_to`` in a Ray that is there; what it wrote is removed, or it would do nothing."""
    import ray

    import rollout.ray

    cores = len(os.sched_getaffinity(0))
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False)

    def work() -> None:
        shutil.rmtree(out, ignore_errors=True)
        rollout.ray.predict_to(str(rows), TAG, str(out), concurrency=cores, variant=VARIANT)

    yield work
    ray.shutdown()


JOBS = {
    "onnxruntime": onnxruntime_alone,
    "predict": predict,
    "spark": spark,
    "ray": ray_data,
    "ray-files": ray_files,
}


def main(name: str, rows: str, out: str) -> None:
    """Says a line when it is ready, and after each turn."""
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what engines print is no answer
    with JOBS[name](Path(rows), Path(out)) as work:
        print("ready", file=said, flush=True)
        for _ in sys.stdin:
            work()
            print("done", file=said, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
