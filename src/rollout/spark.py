"""Large jobs on Spark: the rows of a DataFrame, answered as the service would answer them.

- **The same answers.** One bundle is pinned on the machine that starts the job, by its digest and its variant,
  and shipped with it. Each Python worker of an executor unpacks it, unless another one on that machine did,
  compares every file with the digest, and runs its golden examples before it answers the first row. Of a bundle
  that was neither packed where the job was started nor signed, only ONNX is loaded.
- **The same review.** ``needs_review``, ``reason`` and ``pi`` follow from the same hash as in the service.
- **Every row once**, see ``predict_to``.

Executors need the same release of Rollout, pyarrow, and nothing from the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack
from urllib.parse import quote

import msgspec

from rollout.errors import ConfigError
from rollout.job.plan import PLAN, Job, Options, Plan, goes_on, prepare, schema_of

NULL = "__HIVE_DEFAULT_PARTITION__"


def predict(df: Any, tag: str, **options: Unpack[Options]) -> Any:
    """Answers the rows of a DataFrame.

    Nothing is computed before Spark is asked for rows, as usual. It may compute rows again, which gives the same
    answers.

    Args:
        df: A column for each input of the model, by its name, or for each part of one that is made of parts, and
            one of client IDs. Files, such as images, are binary.
        tag: Name and version of a bundle in the store of this machine, such as ``digits:v2``.
        options: See ``rollout.job.plan.Options``.

    Returns:
        A DataFrame: client ID and key as they came, ``version``, ``variant``, the fields of the answer, and
        ``needs_review``, ``reason``, ``pi`` and ``error``.

    Raises:
        BundleError: If there is no such bundle, or it is refused.
        ConfigError: If an option or a column is wrong.
    """
    return _answered(df, prepare(tag, df.columns, options))


def predict_to(df: Any, tag: str, path: str, *, by: str, **options: Unpack[Options]) -> None:
    """Answers the rows of a DataFrame into Parquet, part by part, and goes on where a job before was stopped.

    A part is the rows with one value of the column ``by``, such as a day, and lies in ``path/by=VALUE``. It is
    written by Spark's own committer, which puts ``_SUCCESS`` there last. A part that has it is never written
    again; one that has not is replaced as a whole. So when this has returned, whatever was killed before and
    however often, ``path`` has an answer for every row of ``df`` exactly once.

    That takes three things of the caller: ``df`` has the same rows each time; one job at a time writes to
    ``path``; and it lies where the committer's promises hold: HDFS, a disk that all share, or object storage with
    a committer made for it.

    What makes answers different, the bundle and its variant first of all, is written down in
    ``path/_rollout.json``, by which a later call goes on.

    Args:
        df: As for ``predict``.
        tag: Name and version of a bundle in the store of this machine.
        path: Where the answers go, as Spark names places.
        by: The column that parts the rows. Those of a table that is stored by this column are read once; of any
            other table, all rows are read for each part.
        options: See ``rollout.job.plan.Options``.

    Raises:
        BundleError: If there is no such bundle, or it is refused.
        ConfigError: If an option or a column is wrong, or the output was begun by another job.
    """
    from pyspark.sql import functions  # noqa: PLC0415

    job = prepare(tag, df.columns, options, parts=by)
    output = _Output(df.sparkSession, path)
    before = output.read(PLAN)
    plan = goes_on(job.plan, before)
    if by in plan.keep or by in (plan.client_id, plan.key):
        raise ConfigError(f"{by} is the name of the parts already: rename the column, or do not keep it")
    values = [row[0] for row in df.select(f"`{by}`").distinct().collect()]
    parts = _parts(by, values)
    column = functions.col(f"`{by}`")
    named = column.isin([functions.lit(value) for value in values if value is not None])
    if not df.where(column.isNotNull() & ~named).isEmpty():  # what Python has is another value
        raise ConfigError(f"{by} has a value that is in no part, such as a text that is not UTF-8: replace it")
    if before is None:
        output.write(PLAN, msgspec.json.encode(plan))
    job = job._replace(plan=plan)
    for part, value in parts.items():
        if not output.has(f"{part}/_SUCCESS"):
            rows = df.where(column.eqNullSafe(functions.lit(value)))
            _answered(rows, job).write.mode("overwrite").parquet(f"{path}/{part}")


def _parts(by: str, values: Sequence[Any]) -> dict[str, Any]:
    """Returns the values of a column, each by the name of its part.

    Raises:
        ConfigError: If two have the same name: the rows of one would never be answered.
    """
    parts: dict[str, Any] = {}
    for value in sorted(values, key=lambda value: (value is None, value)):
        part = f"{by}={NULL if value is None else quote(str(value), safe=' ')}"
        if part in parts:
            raise ConfigError(
                f"the rows of {parts[part]!r} and of {value!r} would both lie in {part}: rename one"
            )
        parts[part] = value
    return parts


def _answered(df: Any, job: Job) -> Any:
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema  # noqa: PLC0415

    read = df.select(*(f"`{name}`" for name in job.reads))
    given = to_arrow_schema(read.schema)
    types = dict(zip(given.names, given.types, strict=True))
    df.sparkSession.sparkContext.addFile(str(job.archive))
    schema = from_arrow_schema(schema_of(job.plan, job.manifest, types))
    return read.mapInArrow(_scoring(job.plan, job.archive.name), schema)


def _scoring(plan: Plan, archive: str) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """Returns what a Python worker runs: from batches of rows to batches of answers."""

    def score(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow  # noqa: PLC0415
        from pyspark import SparkFiles  # noqa: PLC0415

        from rollout.job.scorer import open_scorer  # noqa: PLC0415

        scorer = open_scorer(plan, lambda: Path(SparkFiles.get(archive)).read_bytes())
        for batch in batches:
            yield from scorer(pyarrow.Table.from_batches([batch])).to_batches()

    return score


class _Output:
    """A folder wherever Spark writes, by Hadoop's own client, which knows all such places."""

    def __init__(self, spark: Any, path: str) -> None:
        context = spark.sparkContext
        self._hadoop = context._jvm.org.apache.hadoop
        self._folder = self._hadoop.fs.Path(path)
        self._files = self._folder.getFileSystem(context._jsc.hadoopConfiguration())

    def has(self, name: str) -> bool:
        return bool(self._files.exists(self._path(name)))

    def read(self, name: str) -> bytes | None:
        if not self.has(name):
            return None
        stream = self._files.open(self._path(name))
        try:
            return bytes(stream.readAllBytes())
        finally:
            stream.close()

    def write(self, name: str, content: bytes) -> None:
        """Writes a file that is there whole or not at all."""
        partial = self._path(f"{name}.partial")
        stream = self._files.create(partial, True)  # noqa: FBT003  # it replaces what is there
        try:
            stream.write(bytearray(content))
        finally:
            stream.close()
        self._files.rename(partial, self._path(name))

    def _path(self, name: str) -> Any:
        return self._hadoop.fs.Path(self._folder, name)
