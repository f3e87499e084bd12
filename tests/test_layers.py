"""The layers: against plain Python, and the same in every form that they are exported to."""

from __future__ import annotations

import doctest
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import nn

from rollout import layers
from rollout.bundle.numbers import Time
from rollout.bundle.texts import Category, Text
from rollout.layers import (
    CategoryIndex,
    DayOfMonth,
    FillMissing,
    HashedNgrams,
    HourOfDay,
    LogMel,
    Mfcc,
    Weekday,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
TEXTS = [
    "", "a", "Ab", "Straße 7", "¿Dónde está?", "ÀÉ are not ASCII", "日本語のテキスト", "@AZ[`az{", "x" * 64,
]  # fmt: skip
MAYBE = Time(optional=True)
VALUES = ("EWR", "JFK", "LGA", "a", "Ewr", "Zürich")


def moments() -> list[datetime]:
    """The ends of time, the days around the end of a February, and random moments between them."""
    years = (4, 400, 1600, 1900, 1972, 2000, 2024, 2100, 9996)
    around = [
        datetime(year, 3, 1, tzinfo=UTC) + timedelta(days=days, seconds=seconds)
        for year in years
        for days in (-2, -1, 0)
        for seconds in (-1, 0)
    ]
    pick = random.Random(0)
    whole = int((LAST - FIRST).total_seconds())
    return [FIRST, LAST, EPOCH, EPOCH - timedelta(seconds=1), *around] + [
        FIRST + timedelta(seconds=pick.randint(0, whole)) for _ in range(5000)
    ]


def seconds() -> torch.Tensor:
    return torch.from_numpy(Time().encode([moment.isoformat() for moment in moments()]))


def texts() -> torch.Tensor:
    pick = random.Random(0)
    alphabet = "abcxyzABCXYZ éßłЖ.'"
    made = ["".join(pick.choices(alphabet, k=pick.randint(0, 30))) for _ in range(50)]
    return torch.from_numpy(Text(max_bytes=64).encode(TEXTS + made))


def categories() -> torch.Tensor:
    return torch.from_numpy(Category(values=VALUES, optional=True).encode([*VALUES, *reversed(VALUES)]))


def numbers() -> torch.Tensor:
    return torch.tensor([[1.5, torch.nan], [torch.nan, torch.nan], [-2, 0], [torch.nan, 3e38]])


class Both(nn.Module):
    """What a layer makes of missing numbers, and which those are, as one tensor."""

    def __init__(self, layer: FillMissing) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Returns both, the latter as 0 and 1."""
        filled, is_missing = self.layer(values)
        return torch.stack([filled, is_missing.to(filled.dtype)], -1)


def plain_ngrams(text: bytes, sizes: tuple[int, ...], buckets: int) -> list[int]:
    """What ``HashedNgrams`` computes, written down once more in Python's integers of any size."""
    found = []
    lower = text.lower()  # of bytes: the ASCII letters
    for size in sizes:
        for start in range(len(text)):
            ngram = lower[start : start + size]
            if len(ngram) < size or ngram[-1] == 0:
                found.append(0)
                continue
            terms = [size, *ngram]
            hashed = sum(term * 1_000_003 ** (size - place) for place, term in enumerate(terms)) % (2**31 - 1)
            found.append(1 + hashed % (buckets - 1))
    return found


def test_the_examples_in_the_docstrings_hold() -> None:
    found = doctest.testmod(layers)
    assert found.attempted == 9
    assert not found.failed


def test_the_calendar_is_that_of_datetime() -> None:
    assert Weekday()(seconds()).tolist() == [moment.weekday() for moment in moments()]
    assert HourOfDay()(seconds()).tolist() == [moment.hour for moment in moments()]
    assert DayOfMonth()(seconds()).tolist() == [moment.day for moment in moments()]


def test_a_category_gets_its_index_and_what_is_none_gets_0() -> None:
    indexes = [*range(len(VALUES)), *reversed(range(len(VALUES)))]
    assert CategoryIndex(VALUES)(categories()).tolist() == indexes
    assert CategoryIndex(VALUES)(torch.full((1, 7), 255, dtype=torch.uint8)).tolist() == [0]


def test_a_missing_category_is_the_empty_text_among_the_values() -> None:
    rows = torch.from_numpy(Category(values=VALUES, optional=True).encode(["JFK", None]))
    assert CategoryIndex((*VALUES, ""))(rows).tolist() == [1, len(VALUES)]


def test_what_is_missing_is_filled_and_named() -> None:
    filled, is_missing = FillMissing([0.5, -1.0])(numbers())
    assert torch.equal(filled, torch.tensor([[1.5, -1], [0.5, -1], [-2, 0], [0.5, 3e38]]))
    assert is_missing.tolist() == [[False, True], [True, True], [False, False], [True, False]]
    filled, is_missing = FillMissing(7)(torch.from_numpy(MAYBE.encode(["1970-01-01T00:01:00Z", None])))
    assert (filled.tolist(), is_missing.tolist()) == ([60, 7], [False, True])
    layer = FillMissing(2.0, learn=True)
    layer(numbers())[0].nansum().backward()
    assert layer.fill.grad == 4


@pytest.mark.parametrize(("sizes", "buckets"), [((1,), 300), ((1, 2, 3), 4096), ((2, 5), 2**20)])
def test_ngrams_are_those_of_plain_python(sizes: tuple[int, ...], buckets: int) -> None:
    layer = HashedNgrams(sizes, buckets)
    rows = layer(texts())
    assert rows.dtype == torch.int64
    assert int(rows.max()) < buckets
    for text, row in zip(texts(), rows.tolist(), strict=True):
        assert row == plain_ngrams(bytes(text.tolist()), sizes, buckets)


def test_ascii_case_and_what_follows_a_text_make_no_difference() -> None:
    layer = HashedNgrams()
    short, long = (torch.from_numpy(Text(max_bytes=size).encode(["MiXed", "mixed"])) for size in (8, 20))
    assert layer(short)[0].tolist() == layer(short)[1].tolist()
    assert [row[row > 0].tolist() for row in layer(short)] == [row[row > 0].tolist() for row in layer(long)]
    assert int((layer(long)[0] > 0).sum()) == 5 + 4 + 3


@pytest.mark.parametrize(
    ("layer", "rows"),
    [
        (Weekday(), seconds()),
        (HourOfDay(), seconds()),
        (DayOfMonth(), seconds()),
        (CategoryIndex(VALUES), categories()),
        (CategoryIndex((*VALUES, "")), categories()),
        (HashedNgrams(), texts()),
        (Both(FillMissing([0.5, -1.0])), numbers()),
        (Both(FillMissing(learn=True)), numbers()),
        (Both(FillMissing(7)), torch.from_numpy(MAYBE.encode([None, "2026-11-05T10:00:00Z", None]))),
    ],
    ids=[
        "Weekday",
        "HourOfDay",
        "DayOfMonth",
        "CategoryIndex",
        "missing categories",
        "HashedNgrams",
        "FillMissing",
        "learnt",
        "missing times",
    ],
)
@pytest.mark.filterwarnings("ignore")  # exporters warn of themselves
def test_every_exported_form_agrees_to_the_last_bit(layer: nn.Module, rows: torch.Tensor, tmp_path: Path) -> None:
    expected = layer(rows)
    example = (rows[:2],)

    program = torch.export.export(layer, example, dynamic_shapes=({0: torch.export.Dim("rows")},))
    assert torch.equal(program.module()(rows), expected)
    assert torch.equal(program.module()(rows[:1]), expected[:1])

    traced = torch.jit.trace(layer.eval(), example)  # type: ignore[no-untyped-call]
    torch.jit.freeze(traced).save(str(tmp_path / "layer.pt"))
    script = torch.jit.load(str(tmp_path / "layer.pt"))  # type: ignore[no-untyped-call]
    assert torch.equal(script(rows), expected)

    onnx = torch.onnx.export(program, dynamo=True, verbose=False)
    assert onnx is not None
    onnx.save(tmp_path / "layer.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "layer.onnx", providers=["CPUExecutionProvider"])
    (name,) = [entry.name for entry in session.get_inputs()]
    assert session.run(None, {name: rows.numpy()})[0].tolist() == expected.tolist()


def log_mel(samples: NDArray[Any], rate: int, frame: int, hop: int, bands: int) -> NDArray[Any]:
    """The same by numpy's own Fourier transform, in double precision."""
    frames = -(-len(samples) // hop)
    padded = np.concatenate([samples, np.zeros(frame)]).astype(np.float64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
    power = np.abs(np.fft.rfft([padded[at * hop : at * hop + frame] * window for at in range(frames)])) ** 2
    corners = 700 * (10 ** (np.linspace(0, np.log10(1 + rate / 2 / 700), bands + 2)) - 1)
    hertz = np.arange(frame // 2 + 1) * rate / frame
    triangles = [np.interp(hertz, corners[band : band + 3], [0, 1, 0]) for band in range(bands)]
    return np.asarray(np.log(np.maximum(power @ np.transpose(triangles), 1e-6)))


@pytest.mark.parametrize(("frame", "hop", "bands"), [(400, 160, 40), (512, 512, 20), (101, 37, 8)])
def test_mel_bands_and_cepstra_are_those_of_their_formulas(frame: int, hop: int, bands: int) -> None:
    generator = np.random.default_rng(0)
    rows = [generator.normal(0, 0.2, 3000), 0.5 * np.sin(0.3 * np.arange(1234)), np.zeros(1), np.ones(hop)]
    samples = torch.zeros(len(rows), 3000)
    for row, sound in enumerate(rows):
        samples[row, : len(sound)] = torch.tensor(sound)
    lengths = torch.tensor([len(sound) for sound in rows])
    options = {"frame": frame, "hop": hop, "bands": bands}
    mel, frames = LogMel(16_000, **options)(samples, lengths)
    cepstra, _ = Mfcc(16_000, 7, **options)(samples, lengths)
    for row, sound in enumerate(rows):
        expected = log_mel(sound, 16_000, **options)
        assert frames[row] == len(expected)
        assert np.abs(mel[row, : frames[row]].numpy() - expected).max() < 2e-3
        assert not mel[row, frames[row] :].any()
        cosines = scipy.fft.dct(expected, axis=1, norm="ortho")[:, :7]
        assert np.abs(cepstra[row, : frames[row]].numpy() - cosines).max() < 2e-3
