"""Preprocessing as layers: text, categories, times and sounds, for modules that are exported with it inside.

They take what the fields hand to a module. All but those for sounds, and ``FillMissing``, which passes numbers
on, compute in whole numbers only: torch, TorchScript and ONNX agree to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

# Divide by these with //: torch.div(…, rounding_mode="floor") reaches ONNX as a division of float32, too coarse.
HOUR = 3600
DAY = 24 * HOUR

HASH_BASE = 1_000_003
HASH_PRIME = 2**31 - 1  # its product with the base is far below 2**63


class CategoryIndex(nn.Module):
    """The index of a category among its values.

    Args:
        values: The values of the field ``Category``, in its order; where it may be missing, an empty text
            further on stands for that.

    Example:
        >>> CategoryIndex(("EWR", "JFK", "LGA"))(torch.tensor([list(b"LGA"), list(b"EWR")], dtype=torch.uint8))
        tensor([2, 0])
    """

    values: torch.Tensor
    indexes: torch.Tensor

    def __init__(self, values: Sequence[str]) -> None:
        super().__init__()
        encoded = [value.encode() for value in values]
        width = max(map(len, encoded))
        self.register_buffer("values", torch.tensor([list(value.ljust(width, b"\0")) for value in encoded]))
        self.register_buffer("indexes", torch.arange(len(encoded)))

    def forward(self, category: torch.Tensor) -> torch.Tensor:
        """Takes ``uint8`` of shape ``(rows, width)``; returns ``int64`` of shape ``(rows,)``; 0 for others."""
        found = (category.long().unsqueeze(1) == self.values).all(-1)
        return (found * self.indexes).sum(-1)


class FillMissing(nn.Module):
    """Puts a number in the place of each that is missing, and says which those are.

    Missing is what the fields hand to a module for it: NaN of ``Number``, ``Table`` and ``Tensor``, the smallest
    ``int64`` of ``Time``.

    Args:
        fill: What to put in its place: a number, or one for each column of the last dimension, such as the
            medians.
        learn: Whether training moves it.

    Example:
        >>> FillMissing(2.0)(torch.tensor([1, torch.nan]))
        (tensor([1., 2.]), tensor([False,  True]))
    """

    def __init__(self, fill: float | Sequence[float] = 0.0, *, learn: bool = False) -> None:
        super().__init__()
        values = torch.as_tensor(fill)
        if learn:
            self.fill = nn.Parameter(values.float())
        else:
            self.register_buffer("fill", values)

    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes ``float32`` or ``int64``; returns the same with nothing missing, and ``bool`` of that shape."""
        is_missing = values.isnan() if values.is_floating_point() else values == torch.iinfo(torch.int64).min
        return torch.where(is_missing, self.fill.to(values.dtype), values), is_missing


class HashedNgrams(nn.Module):
    r"""The n-grams of a text's bytes, each hashed to a bucket; ASCII letters count as lower case.

    Bucket 0 stands for padding, so that ``nn.Embedding(buckets, dim, padding_idx=0)`` leaves it out. The hash is
    a polynomial in the bytes: the same on every machine and in every version of Python.

    Args:
        sizes: Lengths of the n-grams, in bytes.
        buckets: Number of buckets, with that of padding.

    Example:
        >>> HashedNgrams(sizes=(1, 2), buckets=1000)(torch.tensor([list(b"Aa\0")], dtype=torch.uint8))
        tensor([[102, 102,   0, 577,   0,   0]])
    """

    def __init__(self, sizes: Sequence[int] = (1, 2, 3), buckets: int = 4096) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.buckets = buckets

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Takes ``uint8`` of shape ``(rows, width)``; returns ``int64``, ``(rows, len(sizes) * width)``."""
        width = text.shape[1]
        codes = text.long()
        codes = torch.where((codes >= ord("A")) & (codes <= ord("Z")), codes + 32, codes)
        codes = nn.functional.pad(codes, (0, max(self.sizes) - 1))
        buckets = []
        for size in self.sizes:
            hashed = torch.full_like(text, size, dtype=torch.int64)
            for offset in range(size):
                hashed = (hashed * HASH_BASE + codes[:, offset : offset + width]) % HASH_PRIME
            whole = codes[:, size - 1 : size - 1 + width] > 0
            buckets.append(torch.where(whole, 1 + hashed % (self.buckets - 1), 0))
        return torch.cat(buckets, dim=1)


class Weekday(nn.Module):
    """The day of the week in UTC, Monday 0 to Sunday 6.

    Example:
        >>> Weekday()(torch.tensor([0, -1]))  # 1970 began on a Thursday
        tensor([3, 2])
    """

    def forward(self, seconds: torch.Tensor) -> torch.Tensor:
        """Takes seconds since 1970, ``int64`` of any shape; returns ``int64`` of that shape."""
        return (seconds // DAY + 3) % 7


class HourOfDay(nn.Module):
    """The hour in UTC, 0 to 23.

    Example:
        >>> HourOfDay()(torch.tensor([3600, -1]))
        tensor([ 1, 23])
    """

    def forward(self, seconds: torch.Tensor) -> torch.Tensor:
        """Takes seconds since 1970, ``int64`` of any shape; returns ``int64`` of that shape."""
        return seconds % DAY // HOUR


class DayOfMonth(nn.Module):
    """The day of the month in UTC, 1 to 31, in the Gregorian calendar.

    Howard Hinnant's ``civil_from_days``: http://howardhinnant.github.io/date_algorithms.html. Its years begin in
    March, so that a leap day comes last, and its eras are the 400 years after which the calendar repeats.

    Example:
        >>> DayOfMonth()(torch.tensor([0, -1]))
        tensor([ 1, 31])
    """

    def forward(self, seconds: torch.Tensor) -> torch.Tensor:
        """Takes seconds since 1970, ``int64`` of any shape; returns ``int64`` of that shape."""
        day_of_era = (seconds // DAY + 719_468) % 146_097
        year = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
        day_of_year = day_of_era - (365 * year + year // 4 - year // 100)
        month = (5 * day_of_year + 2) // 153
        return day_of_year - (153 * month + 2) // 5 + 1


class LogMel(nn.Module):
    """The logarithm of a sound's energy in bands that are even on the mel scale, frame by frame.

    A frame begins at every ``hop``-th sample of a row, and the last ones reach over its end into zeros: a row of
    ``n`` samples has ``ceil(n / hop)`` frames, however far it is padded. Each is weighed with a periodic Hann
    window and transformed by a product with the matrix of the discrete Fourier transform, which exports
    everywhere. The bands are triangles over ``mel(f) = 2595 log10(1 + f / 700)`` (O'Shaughnessy, "Speech
    Communication", 1987), not normalized.

    Args:
        sample_rate: Samples a second.
        frame: Samples of a frame.
        hop: Samples from the beginning of a frame to that of the next.
        bands: How many.
        lowest: Where the first band begins, in Hz.
        highest: Where the last band ends, in Hz; by default half the sample rate.
        floor: Least energy that counts. Below it lies what single precision makes of silence.

    Example:
        >>> mel, frames = LogMel(16_000)(torch.zeros(2, 1600), torch.tensor([1600, 161]))
        >>> mel.shape, frames
        (torch.Size([2, 12, 40]), tensor([10,  2]))
    """

    waves: torch.Tensor
    triangles: torch.Tensor

    def __init__(
        self,
        sample_rate: int,
        *,
        frame: int = 400,
        hop: int = 160,
        bands: int = 40,
        lowest: float = 0.0,
        highest: float | None = None,
        floor: float = 1e-6,
    ) -> None:
        super().__init__()
        self.hop, self.frame, self.floor = hop, frame, floor
        angles = 2 * math.pi * torch.outer(torch.arange(frame // 2 + 1), torch.arange(frame)).double() / frame
        window = torch.hann_window(frame, periodic=True, dtype=torch.float64)
        waves = torch.cat([torch.cos(angles), torch.sin(angles)]) * window
        self.register_buffer("waves", waves.float().unsqueeze(1))
        self.register_buffer(
            "triangles", _triangles(sample_rate, frame, bands, lowest, highest or sample_rate / 2)
        )

    def forward(self, samples: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns bands and how many frames each row has.

        Args:
            samples: ``float32`` of shape ``(rows, samples)``.
            lengths: ``int64`` of shape ``(rows,)``.

        Returns:
            ``float32`` of shape ``(rows, frames, bands)``, 0 in frames that a row does not have; and ``int64`` of
            shape ``(rows,)``.
        """
        # One frame more than any row has: a graph for any number of frames is captured for two or more.
        padded = nn.functional.pad(samples, (0, self.frame + self.hop)).unsqueeze(1)
        real, imaginary = nn.functional.conv1d(padded, self.waves, stride=self.hop).chunk(2, dim=1)
        energy = (real**2 + imaginary**2).transpose(1, 2) @ self.triangles
        frames = (lengths + self.hop - 1) // self.hop
        is_there = torch.arange(energy.shape[1], device=lengths.device).unsqueeze(0) < frames.unsqueeze(1)
        return energy.clamp(min=self.floor).log() * is_there.unsqueeze(2), frames


class Mfcc(nn.Module):
    """Mel frequency cepstral coefficients: the discrete cosine transform, type II and orthonormal, of ``LogMel``.

    Davis and Mermelstein, "Comparison of parametric representations for monosyllabic word recognition", 1980.

    Args:
        sample_rate: Samples a second.
        coefficients: How many, from the lowest on.
        options: As of ``LogMel``.

    Example:
        >>> Mfcc(16_000, 13)(torch.zeros(1, 1600), torch.tensor([1600]))[0].shape
        torch.Size([1, 12, 13])
    """

    cosines: torch.Tensor

    def __init__(self, sample_rate: int, coefficients: int = 13, **options: Any) -> None:
        super().__init__()
        self.mel = LogMel(sample_rate, **options)
        bands = self.mel.triangles.shape[1]
        steps = (torch.arange(bands).double() + 0.5).unsqueeze(1) * torch.arange(coefficients)
        cosines = torch.cos(math.pi / bands * steps) * math.sqrt(2 / bands)
        cosines[:, 0] /= math.sqrt(2)
        self.register_buffer("cosines", cosines.float())

    def forward(self, samples: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``LogMel``, with ``(rows, frames, coefficients)``."""
        mel, frames = self.mel(samples, lengths)
        return mel @ self.cosines, frames


def _triangles(sample_rate: int, frame: int, bands: int, lowest: float, highest: float) -> torch.Tensor:
    """Returns how much of each frequency goes into each band, shape ``(frame // 2 + 1, bands)``."""
    ends = 2595 * torch.log10(1 + torch.tensor([lowest, highest], dtype=torch.float64) / 700)
    corners = 700 * (
        10 ** (torch.linspace(float(ends[0]), float(ends[1]), bands + 2, dtype=torch.float64) / 2595) - 1
    )
    hertz = torch.arange(frame // 2 + 1).double().unsqueeze(1) * sample_rate / frame
    rising = (hertz - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - hertz) / (corners[2:] - corners[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()
