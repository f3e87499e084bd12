"""A job on Spark, to be started and killed: ``python -m tests.job.spark_job ROWS.parquet OUT``."""

from __future__ import annotations

import sys

from pyspark.sql import SparkSession

import rollout.spark


def main(rows: str, out: str) -> None:
    """Answers rows by ``digits:v1``, a part at a time."""
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    rollout.spark.predict_to(spark.read.parquet(rows), "digits:v1", out, by="part", variant="onnx", audit=0.1)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
