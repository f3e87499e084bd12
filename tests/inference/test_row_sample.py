"""The sample of the rows that pass by."""

from __future__ import annotations

import random

import numpy as np
import pytest

from rollout.bundle.columns import ragged
from rollout.inference import row_sample
from rollout.inference.row_sample import RowSample


def pass_by(sample: RowSample, rows: int, batch: int) -> None:
    for start in range(0, rows, batch):
        x = np.arange(start, min(start + batch, rows), dtype=np.float32)[:, None]
        sample.offer({"x": x}, x.astype(np.float64), [f"c-{one:.0f}" for one in x[:, 0]], range(len(x)))


def test_few_rows_are_all_there() -> None:
    sample = RowSample(10)
    assert sample.take() is None
    pass_by(sample, 7, 3)
    taken = sample.take()
    assert taken is not None
    assert taken.arrays["x"][:, 0].tolist() == list(range(7))
    assert taken.numbers[:, 0].tolist() == list(range(7))
    assert taken.clients == [f"c-{number}" for number in range(7)]
    assert taken.seen == 7
    assert sample.take() is None, "it begins anew"


@pytest.mark.parametrize("batch", [1, 7, 400])
def test_each_row_is_as_likely_as_any_other(batch: int) -> None:
    sample = RowSample(20, random.Random(1))
    drawn = np.zeros(200)
    for _ in range(2000):
        pass_by(sample, 200, batch)
        taken = sample.take()
        assert taken is not None
        assert (len(taken.numbers), taken.seen) == (20, 200)
        assert len(set(taken.numbers[:, 0])) == 20, "none twice"
        drawn[taken.arrays["x"][:, 0].astype(int)] += 1
    # 200 of each expected; variance of a hypergeometric draw, 2000 × 0.1 × 0.9.
    statistic = ((drawn - 200) ** 2 / 180).sum()
    assert 140 < statistic < 270, statistic
    assert np.abs(drawn - 200).max() < 5 * 180**0.5


def test_some_rows_of_a_batch() -> None:
    sample = RowSample(10)
    x = np.arange(6, dtype=np.float32)
    sample.offer({"x": x}, x.astype(np.float64)[:, None], "abcdef", [1, 4])
    taken = sample.take()
    assert taken is not None
    assert taken.arrays["x"].tolist() == [1, 4]
    assert taken.clients == ["b", "e"]


def test_large_rows_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_sample, "MOST_BYTES", 1000)
    sample = RowSample(100, random.Random(2))
    for number in range(500):
        row = ragged([np.full(25, number, np.float32)])  # 100 bytes
        sample.offer({"x": row}, np.array([[float(number)]]), ["c"], range(1))
    taken = sample.take()
    assert taken is not None
    assert len(taken.numbers) == 10
    assert taken.numbers.max() > 100, "later ones are in it, too"
    pass_by(sample, 50, 1)
    taken = sample.take()
    assert taken is not None
    assert len(taken.numbers) == 50, "small ones are as many as ever"


def test_it_holds_on_to_no_batch() -> None:
    sample = RowSample(2)
    x = np.zeros((1000, 100), np.float32)
    sample.offer({"x": x}, np.zeros((1000, 1)), ["c"] * 1000, range(1000))
    assert all(row["x"].base is None and numbers.base is None for row, numbers, _ in sample._rows)


def test_large_rows_behind_small_ones_take_no_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_sample, "MOST_BYTES", 1000)
    sample = RowSample(100, random.Random(2))
    pass_by(sample, 100, 1)
    for number in range(500):
        row = ragged([np.full(25, number, np.float32)])  # 100 bytes
        sample.offer({"x": row}, np.array([[float(number)]]), ["c"], range(1))
        assert sum(row_sample._size(row) for row, *_ in sample._rows) <= 1000
    assert 5 <= len(sample._rows) <= 12
