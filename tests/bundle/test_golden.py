"""Golden examples from elsewhere: read if they are what packing writes, and otherwise refused before they cost much."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rollout import Tensor
from rollout.bundle import golden as golden_module
from rollout.bundle.golden import FILE_NAME, Golden, choose_golden, golden_of, read_golden, write_golden
from rollout.errors import BundleError
from tests.bundle.two import TASK

FEW = 20_000_000
ZEROS = bytes(1024 * 1024)


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def write(
    folder: Path, start: bytes, zeros: int = 0, method: int = zipfile.ZIP_DEFLATED, name: str = "scores.npy"
) -> None:
    """Writes a file of one array: what it starts with, and so many mebibytes of zeros."""
    with zipfile.ZipFile(folder / FILE_NAME, "w", method) as file, file.open(name, "w") as member:
        member.write(start)
        for _ in range(zeros):
            member.write(ZEROS)


def refused(folder: Path) -> str:
    """Returns why, if it did not cost much."""
    tracemalloc.start()
    try:
        with pytest.raises(BundleError) as error:
            read_golden(folder)
        assert tracemalloc.get_traced_memory()[1] < FEW
    finally:
        tracemalloc.stop()
    return error.value.detail


def test_what_is_written_is_read(tmp_path: Path) -> None:
    inputs = {"x": np.arange(6, dtype=np.float32).reshape(3, 2), "y": np.array([[True], [False], [True]])}
    write_golden(tmp_path, Golden(inputs, np.ones((3, 2), np.float32)))
    found = read_golden(tmp_path)
    assert found.scores.tolist() == [[1, 1]] * 3
    assert {name: array.tolist() for name, array in found.inputs.items()} == {
        name: array.tolist() for name, array in inputs.items()
    }


def test_they_are_no_bomb(tmp_path: Path) -> None:
    write(tmp_path, header((512, 1024, 256)), zeros=512)
    assert (tmp_path / FILE_NAME).stat().st_size < 600_000
    assert "golden.npz unpacks to 536,871,040 bytes; golden examples have at most 134,217,728" in refused(
        tmp_path
    )


def test_a_directory_that_lies_gives_no_more_than_it_says(tmp_path: Path) -> None:
    write(tmp_path, header((512, 1024, 256)), zeros=512)
    file = tmp_path / FILE_NAME
    file.write_bytes(file.read_bytes().replace((128 + 512 * 1024 * 1024).to_bytes(4, "little"), b"\0\0\0\1"))
    assert "is not as large as its header says" in refused(tmp_path)


@pytest.mark.parametrize("shape", [(2**40, 2), (3, 2), (-2, -2), (1,), (2**62, 4)])
def test_an_array_is_as_large_as_its_header_says(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write(tmp_path, header(shape) + bytes(20))
    assert "golden.npz: scores.npy is not as large as its header says" in refused(tmp_path)


@pytest.mark.parametrize(
    ("start", "why"),
    [
        (header((2**40,), "|S0"), "is not as large as its header says"),
        (header((1,), "|S2000000") + bytes(2_000_000), "at most 1,048,576 are read at once"),
        (header((1,), "|O") + bytes(8), "cannot be read: Object arrays cannot be loaded"),
        (b"\x93NUMPY\x02\x00" + b"\xff" * 4, "has version (2, 0) of numpy's format"),
        (b"no array", "cannot be read: the magic string is not correct"),
    ],
)
def test_what_numpy_could_stumble_over_is_refused(tmp_path: Path, start: bytes, why: str) -> None:
    write(tmp_path, start, method=zipfile.ZIP_STORED)
    assert why in refused(tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_unpacks_without_a_bound_is_not_unpacked(tmp_path: Path, method: int) -> None:
    write(tmp_path, header((64, 1024, 256)), zeros=64, method=method)
    assert "compressed in another way than deflate" in refused(tmp_path)


def test_a_file_of_very_many_arrays_is_refused_before_they_are_listed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / FILE_NAME, "w") as file:
        for number in range(21_000):
            file.writestr(f"{number:05}", b"")
    assert "golden.npz has a part of 1,071,000 bytes; at most 1,048,576 are read at once" in refused(tmp_path)


def test_no_file_is_said(tmp_path: Path) -> None:
    assert "golden.npz cannot be read: " in refused(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda golden: golden._replace(inputs={}), "expected arrays for"),
        (lambda golden: Golden({"x": golden.inputs["x"][:0]}, golden.scores[:0]), "no golden examples"),
        (lambda golden: golden._replace(inputs={"x": golden.inputs["x"].astype(str)}), "x: expected shape"),
        (lambda golden: golden._replace(inputs={"x": np.array(3)}), "x: expected shape"),
        (lambda golden: golden._replace(scores=golden.scores[:, :1]), "the scores of its golden examples are"),
    ],
)
def test_examples_of_something_else_are_refused_by_whoever_reads_them(
    tmp_path: Path, change: Callable[[Golden], Golden], why: str
) -> None:
    manifest: Any = SimpleNamespace(tag="two:v1", inputs={"x": Tensor(shape=(3,))}, task=TASK)
    fits = Golden({"x": np.zeros((4, 3), np.float32)}, np.zeros((4, TASK.outputs), np.float32))
    write_golden(tmp_path, fits)
    assert len(golden_of(tmp_path, manifest).scores) == 4
    write_golden(tmp_path, change(fits))
    with pytest.raises(BundleError, match=why):
        golden_of(tmp_path, manifest)


def test_large_rows_are_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_module, "MOST_BYTES", 50_000)
    scores = np.full((100, 2), 0.5, np.float32)
    for row_bytes, rows in ((10, 32), (1000, 25), (10_000, 2), (40_000, 1)):
        golden = choose_golden(TASK, {"x": np.zeros((100, row_bytes), np.uint8)}, scores)
        assert rows // 2 <= len(golden.scores) <= rows
        write_golden(tmp_path, golden)
    with pytest.raises(BundleError, match="golden examples have at most 50,000"):
        write_golden(tmp_path, Golden({"x": np.zeros((6, 10_000), np.uint8)}, scores[:6]))
