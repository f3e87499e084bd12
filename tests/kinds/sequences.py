"""Networks that read: measurements over time, sound, texts."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rollout.layers import HashedNgrams, Mfcc

STEPS, CHANNELS = 8, 3
SAMPLES = 256
RATE = 8_000
BYTES = 12
LABELS = 3


class LastOfLstm(nn.Module):
    """An LSTM, of which the last step answers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.linear = nn.LSTM(CHANNELS, 12, num_layers=2, batch_first=True), nn.Linear(12, LABELS)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """Takes ``(rows, steps, channels)``; returns logits."""
        steps, _ = self.lstm(series)
        logits: torch.Tensor = self.linear(steps[:, -1]) * 20
        return logits


class BothWays(nn.Module):
    """A GRU in both directions; its states answer."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(CHANNELS, 8, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(16, LABELS)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """Takes ``(rows, steps, channels)``; returns logits."""
        _, states = self.gru(series)
        logits: torch.Tensor = self.linear(states.transpose(0, 1).flatten(1)) * 20
        return logits


class AnyLengthAttention(nn.Module):
    """A transformer over rows of any length, whose padding is masked."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(CHANNELS, 16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1)
        self.linear = nn.Linear(16, LABELS)

    def forward(self, series: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Takes ``(rows, steps, channels)`` and ``(rows,)``; returns logits."""
        is_there = torch.arange(series.shape[1]).unsqueeze(0) < lengths.unsqueeze(1)
        steps = self.encoder(self.up(series), src_key_padding_mask=~is_there) * is_there.unsqueeze(2)
        logits: torch.Tensor = self.linear(steps.sum(1) / lengths.unsqueeze(1))
        return logits


class AnyLengthBothWays(nn.Module):
    """A GRU in both directions over rows of any length, packed so that none goes through padding."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(CHANNELS, 8, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(16, LABELS)

    def forward(self, series: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Takes ``(rows, steps, channels)`` and ``(rows,)``; returns logits."""
        packed = pack_padded_sequence(series, lengths, batch_first=True, enforce_sorted=False)
        steps, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        logits: torch.Tensor = self.linear(steps.sum(1) / lengths.unsqueeze(1))
        return logits


class Speech(nn.Module):
    """MFCCs and a GRU, which answers after the last frame."""

    def __init__(self) -> None:
        super().__init__()
        self.mfcc = Mfcc(RATE, 13, frame=200, hop=80, bands=24)
        self.gru, self.linear = nn.GRU(13, 16, batch_first=True), nn.Linear(16, LABELS)

    def forward(self, sound: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Takes ``(rows, samples)`` and ``(rows,)``; returns logits."""
        coefficients, frames = self.mfcc(sound, lengths)
        states, _ = self.gru(coefficients / 10)
        last = (frames - 1).view(-1, 1, 1).expand(-1, 1, states.shape[2])
        logits: torch.Tensor = self.linear(states.gather(1, last).squeeze(1))
        return logits


class Dilated(nn.Module):
    """Causal convolutions with growing gaps (van den Oord et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Conv1d(CHANNELS if gap == 1 else 8, 8, 2, dilation=gap) for gap in (1, 2, 4)]
        )
        self.linear = nn.Linear(8, LABELS)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """Takes ``(rows, steps, channels)``; returns logits."""
        x = series.transpose(1, 2)
        for gap, layer in zip((1, 2, 4), self.layers, strict=True):
            x = torch.tanh(layer(nn.functional.pad(x, (gap, 0))))
        logits: torch.Tensor = self.linear(x[:, :, -1]) * 20
        return logits


class AttentionPooling(nn.Module):
    """Steps weighted by attention, the weights by a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.score = nn.Linear(CHANNELS, 12), nn.Linear(12, 1)
        self.linear = nn.Linear(12, LABELS)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """Takes ``(rows, steps, channels)``; returns logits."""
        x = torch.tanh(self.embed(series))
        weights = torch.softmax(self.score(x), 1)
        logits: torch.Tensor = self.linear((weights * x).sum(1)) * 20
        return logits


class Forecast(nn.Module):
    """The next value of a series: what the last one was, and what a small network adds."""

    def __init__(self) -> None:
        super().__init__()
        self.add = nn.Sequential(nn.Flatten(), nn.Linear(STEPS * CHANNELS, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """Takes ``(rows, steps, channels)``; returns values of shape ``(rows,)``."""
        added: torch.Tensor = self.add(series)
        return series[:, -1, 0] + added[:, 0]


class Rebuilt(nn.Module):
    """How badly an autoencoder rebuilds a series: what is unusual has a large error."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.widen = nn.Linear(STEPS * CHANNELS, 6), nn.Linear(6, STEPS * CHANNELS)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """Takes ``(rows, steps, channels)``; returns mean squared errors of shape ``(rows,)``."""
        flat = series.flatten(1)
        rebuilt: torch.Tensor = self.widen(torch.relu(self.narrow(flat)))
        return ((rebuilt - flat) ** 2).mean(1)


class Spectrum(nn.Module):
    """The power in bands of a windowed discrete Fourier transform, as a matrix product."""

    real: torch.Tensor
    imaginary: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        window = torch.hann_window(SAMPLES)
        angles = 2 * math.pi * torch.outer(torch.arange(SAMPLES), torch.arange(SAMPLES // 4)) / SAMPLES
        self.register_buffer("real", window[:, None] * angles.cos())
        self.register_buffer("imaginary", window[:, None] * angles.sin())
        self.linear = nn.Linear(SAMPLES // 4, LABELS)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        """Takes ``(rows, samples)``; returns logits."""
        power = (sound @ self.real) ** 2 + (sound @ self.imaginary) ** 2
        logits: torch.Tensor = self.linear(torch.log1p(power)) * 10
        return logits


class Ngrams(nn.Module):
    """The mean of the embeddings of hashed n-grams (Joulin et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.ngrams = HashedNgrams(sizes=(1, 2, 3), buckets=512)
        self.embed, self.linear = nn.Embedding(512, 16, padding_idx=0), nn.Linear(16, LABELS)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Takes ``uint8`` of shape ``(rows, bytes)``; returns logits."""
        found = self.ngrams(text)
        mean = self.embed(found).sum(1) / (found > 0).sum(1, keepdim=True).clamp(min=1)
        logits: torch.Tensor = self.linear(mean) * 20
        return logits


class CharacterCnn(nn.Module):
    """Convolutions over the embeddings of bytes, and the largest of each (Zhang et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, 8)
        self.convolve, self.linear = nn.Conv1d(8, 16, 3, padding=1), nn.Linear(16, LABELS)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Takes ``uint8`` of shape ``(rows, bytes)``; returns logits."""
        x = torch.relu(self.convolve(self.embed(text.long()).transpose(1, 2)))
        logits: torch.Tensor = self.linear(x.amax(2)) * 8
        return logits


class CharacterGru(nn.Module):
    """A GRU over bytes, of which the step of the last byte answers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gru = nn.Embedding(256, 8), nn.GRU(8, 12, batch_first=True)
        self.linear = nn.Linear(12, LABELS)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Takes ``uint8`` of shape ``(rows, bytes)``; returns logits."""
        steps, _ = self.gru(self.embed(text.long()))
        last = ((text > 0).sum(1) - 1).clamp(min=0)
        chosen = steps.gather(1, last[:, None, None].expand(-1, 1, steps.shape[2]))[:, 0]
        logits: torch.Tensor = self.linear(chosen) * 20
        return logits


class MaskedTransformer(nn.Module):
    """A transformer that leaves padding out, by a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(256, 16), nn.Parameter(torch.randn(1, BYTES, 16) * 0.1)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.linear = nn.Linear(16, LABELS)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Takes ``uint8`` of shape ``(rows, bytes)``; returns logits."""
        padding = text == 0
        padding = padding & ~padding.all(1, keepdim=True)
        x = self.encoder(self.embed(text.long()) + self.position, src_key_padding_mask=padding)
        kept = (~padding).unsqueeze(2)
        logits: torch.Tensor = self.linear((x * kept).sum(1) / kept.sum(1)) * 8
        return logits
