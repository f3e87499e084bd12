"""Parquet files answered one by one: each becomes a file of answers that is there whole or not at all.

That makes a job restartable on any engine that calls a function for each file: what is there is left out. No
engine may cut the rows anew, so they are parted before it sees them, by the files that they came in.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from rollout.errors import ConfigError
from rollout.job.plan import Plan
from rollout.job.scorer import Scorer

DRAFTS = "_drafts"  # a name that readers of Parquet take for no data
ROW_GROUP = 2**16


class Place:
    """A folder on a disk or in object storage, by pyarrow's own clients; it can be sent to other processes.

    Args:
        path: A folder, or a URL that pyarrow knows, such as ``s3://bucket/folder``.

    Raises:
        ConfigError: If pyarrow does not know such URLs.
    """

    def __init__(self, path: str) -> None:
        import pyarrow  # noqa: PLC0415
        from pyarrow import fs  # noqa: PLC0415

        where = path if "://" in path else str(Path(path).absolute())
        try:
            self.files, self.folder = fs.FileSystem.from_uri(where)
        except pyarrow.ArrowInvalid as error:
            raise ConfigError(f"{path} is no place for Parquet: {error}") from None

    def parts(self) -> list[str]:
        """Returns the Parquet files in this folder and those below, by their paths from here, sorted."""
        from pyarrow import fs  # noqa: PLC0415

        found = self.files.get_file_info(fs.FileSelector(self.folder, allow_not_found=True, recursive=True))
        names = [PurePosixPath(one.path).relative_to(self.folder) for one in found if one.is_file]
        return sorted(
            str(name)
            for name in names
            if name.suffix == ".parquet" and not any(step.startswith(("_", ".")) for step in name.parts)
        )

    def open(self, name: str) -> Any:
        """Opens a file for reading."""
        return self.files.open_input_file(f"{self.folder}/{name}")

    def read(self, name: str) -> bytes | None:
        """Returns what is in a file, or ``None`` where there is none."""
        try:
            with self.open(name) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    @contextmanager
    def whole(self, name: str) -> Iterator[Any]:
        """Opens a file for writing that gets its name when the block has ended, and never where it fails."""
        from pyarrow import fs  # noqa: PLC0415

        draft, target = f"{self.folder}/{DRAFTS}/{uuid4().hex}", f"{self.folder}/{name}"
        for folder in (draft, target):
            self.files.create_dir(folder.rpartition("/")[0])
        with self.files.open_output_stream(draft) as stream:
            yield stream
        if isinstance(self.files, fs.LocalFileSystem):
            _sync(draft)
        self.files.move(draft, target)

    def clear(self) -> None:
        """Removes what a job left that was stopped in the middle of a file."""
        self.files.delete_dir_contents(f"{self.folder}/{DRAFTS}", missing_dir_ok=True)


def columns_of(rows: Place, name: str) -> list[str]:
    """Returns the columns of a file."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    with rows.open(name) as stream:
        return list(pq.read_schema(stream).names)


def answer_part(scorer: Scorer, plan: Plan, reads: Collection[str], rows: Place, out: Place, name: str) -> None:
    """Answers a file of rows into a file of the same name.

    Args:
        scorer: What answers.
        plan: The plan of the job.
        reads: The columns that are looked at.
        rows: Where the file lies.
        out: Where the answers go.
        name: The path of both from there.

    Raises:
        ConfigError: If the file has other columns than the first one.
        InvalidRequestError: If a row does not fit, and the plan says that the job fails then.
        PredictionFailedError: If the model fails on a row, and the plan says so.
    """
    import pyarrow  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    with rows.open(name) as stream:
        file = pq.ParquetFile(stream)
        if lacking := sorted(set(reads).difference(file.schema_arrow.names)):
            raise ConfigError(f"{name} has no column {lacking[0]}, which the first file has")
        done = [scorer(file.schema_arrow.empty_table().select(list(reads)))]
        with out.whole(name) as target, pq.ParquetWriter(target, done[0].schema) as writer:
            for batch in file.iter_batches(plan.batch_size, columns=list(reads)):
                done.append(scorer(pyarrow.Table.from_batches([batch])))
                if sum(map(len, done)) >= ROW_GROUP:
                    writer.write_table(pyarrow.concat_tables(done))
                    done.clear()
            if done:
                writer.write_table(pyarrow.concat_tables(done))


def _sync(file: str) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
