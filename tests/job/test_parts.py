"""Parquet files answered one by one, without an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rollout.job.parts
import rollout.ray
from loadtests.tables import digits
from rollout.errors import ConfigError, InvalidRequestError
from rollout.job.parts import DRAFTS, Place, answer_part, columns_of
from rollout.job.plan import Job, prepare
from rollout.job.scorer import Scorer, open_scorer


@pytest.fixture(scope="module")
def job(bundles: str) -> Job:
    return prepare("digits:v1", ["client_id", "key", "image"], {"variant": "onnx", "on_error": "fail"})


@pytest.fixture(scope="module")
def scorer(job: Job) -> Scorer:
    return open_scorer(job.plan, job.archive.read_bytes)


def test_only_files_of_parquet_are_parts(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "rows"))
    assert place.parts() == []
    assert place.read("_rollout.json") is None
    for name in ("b.parquet", "a/day=1/c d.parquet", "a.json", "_drafts/x.parquet", ".a/b.parquet", "_x.parquet"):
        (tmp_path / "rows" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rows" / name).write_bytes(b"")
    assert place.parts() == ["a/day=1/c d.parquet", "b.parquet"]
    assert Place((tmp_path / "rows").as_uri()).parts() == place.parts()
    with pytest.raises(ConfigError, match="is no place for Parquet"):
        Place("gopher://rows")


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    with pytest.raises(ValueError, match="halfway"), place.whole("a/b.parquet") as file:
        file.write(b"half")
        raise ValueError("halfway")
    assert place.parts() == []
    place.clear()
    assert not any((tmp_path / DRAFTS).iterdir())
    for content in (b"one", b"another"):
        with place.whole("a/b.parquet") as file:
            file.write(content)
        assert place.read("a/b.parquet") == content


def test_a_part_has_the_answers_of_its_rows_in_their_order(
    job: Job, scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout.job.parts, "ROW_GROUP", 300)
    rows, out = Place(str(tmp_path / "rows")), Place(str(tmp_path / "out"))
    table = digits(700)
    (tmp_path / "rows").mkdir()
    pq.write_table(table, tmp_path / "rows" / "a.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "rows" / "empty.parquet")
    for name in rows.parts():
        assert columns_of(rows, name) == table.column_names
        answer_part(scorer, job.plan, job.reads, rows, out, name)
    assert pq.read_table(tmp_path / "out" / "a.parquet").equals(scorer(table))
    assert pq.read_table(tmp_path / "out" / "empty.parquet").equals(scorer(table.slice(0, 0)))


def test_a_part_that_fails_leaves_no_file(job: Job, scorer: Scorer, tmp_path: Path) -> None:
    rows, out = Place(str(tmp_path)), Place(str(tmp_path / "out"))
    wrong: Any = pa.array([[[1]]] * 2, pa.list_(pa.list_(pa.uint8())))
    pq.write_table(digits(2).set_column(2, "image", wrong), tmp_path / "wrong.parquet")
    pq.write_table(digits(2).drop_columns("image"), tmp_path / "other.parquet")
    with pytest.raises(InvalidRequestError, match=r"the row with the key k-0: .*/image"):
        answer_part(scorer, job.plan, job.reads, rows, out, "wrong.parquet")
    with pytest.raises(ConfigError, match=r"other.parquet has no column image, which the first file has"):
        answer_part(scorer, job.plan, job.reads, rows, out, "other.parquet")
    assert out.parts() == []


def test_a_job_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no file whose name ends in \.parquet in"):
        rollout.ray.predict_to(str(tmp_path), "digits:v1", str(tmp_path / "out"))
