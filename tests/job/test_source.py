"""Tables of rows as if whoever made them meant harm: a row fails alone, a file in a line."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rollout import Tensor
from rollout.errors import ConfigError
from rollout.job import source
from rollout.job.row import Columns, Row
from rollout.job.source import open_source
from tests.client.test_hostile import answering
from tests.commands import rollout
from tests.job.test_exchange import head

COLUMNS = Columns("client_id", "key", {"x": Tensor(shape=(2,))})
MODEL = b'{"models":[{"model":"m","inputs":{"x":{"kind":"tensor","shape":[2]}},"task":{"kind":"regression"}}]}'
DEEP = "[" * 100_000
FAR = pa.array([2**62], pa.timestamp("us"))
NO_TEXT = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
)


def rows_of(file: Path) -> list[Row]:
    return list(open_source(file, COLUMNS).rows())


def test_what_is_too_deep_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        f'{{"client_id":"a","x":[1,2]}}\n{{"x":{DEEP}\n{{"client_id":"b","x":[1,2]}}\n'
    )
    assert [row.client_id for row in rows_of(tmp_path / "rows.jsonl")] == ["a", None, "b"]
    (tmp_path / "rows.csv").write_text(f'client_id,x\na,"[1,2]"\nb,{DEEP}\nc,"[1,2]"\n')
    assert [row.client_id for row in rows_of(tmp_path / "rows.csv")] == ["a", "b", "c"]


def test_no_line_is_longer_than_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "LONGEST_LINE", 64)
    lines = [
        f'{{"client_id":"{name}","x":[{", ".join("1" * count)}]}}'
        for name, count in (("a", 2), ("b", 100), ("c", 2))
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    assert [(row.client_id, row.fault) for row in rows_of(tmp_path / "rows.jsonl")] == [
        ("a", None),
        (None, "the line is longer than 64 bytes"),
        ("c", None),
    ]
    assert rows_of(tmp_path / "rows.jsonl")[-1].position == (tmp_path / "rows.jsonl").stat().st_size
    (tmp_path / "rows.csv").write_text(f"client_id,x\na,{'1' * 100}\n")
    with pytest.raises(ConfigError, match="line 1: it is longer than 64 bytes"):
        rows_of(tmp_path / "rows.csv")


@pytest.mark.parametrize("column", [FAR, NO_TEXT, pa.array([2**31 - 1], pa.date32())])
def test_cells_that_nothing_in_python_can_be_are_said(tmp_path: Path, column: Any) -> None:
    pq.write_table(pa.table({"client_id": ["a"], "x": column}), tmp_path / "rows.parquet")
    with pytest.raises(ConfigError, match=r"cannot read .*rows\.parquet: "):
        rows_of(tmp_path / "rows.parquet")


def test_a_damaged_page_is_said(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    values = pa.array(range(10_000), pa.int64())
    pq.write_table(pa.table({"client_id": values, "x": values}), file, compression="zstd")
    data = bytearray(file.read_bytes())
    data[4:1000] = b"\xff" * 996
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=r"cannot read .*rows\.parquet: "):
        rows_of(file)


def test_a_small_file_of_parquet_takes_no_more_memory_than_it_may(tmp_path: Path) -> None:
    long = pa.array(["a" * (64 * 1024 * 1024)])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 256, pa.int32()), long)
    pq.write_table(
        pa.table({"client_id": ["c"] * 256, "x": column}), tmp_path / "bomb.parquet", compression="zstd"
    )
    assert (tmp_path / "bomb.parquet").stat().st_size < 10_000
    answers = iter([MODEL])

    def answer(connection: Any) -> None:
        said = next(answers, b"")
        connection.sendall(head(200) + said)
        while not said and connection.recv(65536):
            pass

    program = (
        "import sys; from rollout.cli import main, predict; predict.usable_memory = lambda: 2**31; "
        "sys.argv[1:] = ['predict', 'bomb.parquet', '--out', 'out.csv', '--url', sys.argv[1]]; main()"
    )
    with answering(answer) as url:
        done = subprocess.run(
            [sys.executable, "-c", program, url], cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.stderr == "rollout: cannot read bomb.parquet: some of its rows take more memory than they may\n"
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 3 * 1024 * 1024
    assert [file.name for file in tmp_path.iterdir()] == ["bomb.parquet"]


@pytest.mark.parametrize("answer", [b"{}", b'{"value":{"a":[]},"interval":1}'])
def test_an_answer_that_no_model_could_give_is_said_in_a_line(answer: bytes, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"client_id":"c","x":[1,2]}\n')
    answers = iter([MODEL, answer + b"\n"])
    with answering(lambda connection: connection.sendall(head(200) + next(answers))) as url:
        done = rollout("predict", "in.jsonl", "--out", "out.parquet", "--url", url, folder=tmp_path)
    assert re.fullmatch("rollout: the service has answers that this version does not know: .*\n", done.stderr)
