"""A small model of sounds, its pipeline of training, and their bundle: is a tone high or low?"""

from __future__ import annotations

import io
import wave
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import nn

from rollout import Answered, Audio, Classification, Labelled, Reference, pack
from rollout.bundle.manifest import Manifest
from rollout.layers import Mfcc
from tests.sounds import in_base64, sound, tone

RATE = 8_000
FIELD = Audio(sample_rate=RATE, longest_s=1)
LABELS = ("low", "high")
BORDER = 700  # Hz


class Pitch(nn.Module):
    """A convolution over MFCCs, averaged over the frames that a row has."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mfcc = Mfcc(RATE, 8, frame=200, hop=80, bands=20)
        self.mix = nn.Conv1d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 2)

    def forward(self, sound: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        return self.classify(*self.mfcc(sound, lengths))

    def classify(self, coefficients: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Returns logits for MFCCs."""
        is_there = torch.arange(coefficients.shape[1], device=frames.device).unsqueeze(0) < frames.unsqueeze(1)
        mixed = torch.relu(self.mix(coefficients.transpose(1, 2))) * is_there.unsqueeze(1)
        logits: torch.Tensor = self.head(mixed.sum(2) / frames.unsqueeze(1))
        return logits


def tones(rows: int, seed: int) -> list[tuple[NDArray[np.float32], int]]:
    """Draws tones with some noise, of 0.02 to 0.9 seconds, and whether each is high."""
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(rows):
        hertz = 100 * 2 ** generator.uniform(0, 5)
        samples = tone(np.exp(generator.uniform(np.log(0.02), np.log(0.9))), RATE, hertz)
        noise = generator.normal(0, 0.01, len(samples)).astype(np.float32)
        drawn.append((samples + noise, int(hertz > BORDER)))
    return drawn


def part(rows: int, seed: int) -> Labelled:
    """Returns tones as a part of a data set."""
    drawn = tones(rows, seed)
    files = [in_base64(sound(samples, RATE)) for samples, _ in drawn]
    return Labelled({"sound": FIELD.encode(files)}, np.array([target for _, target in drawn]))


def trained() -> Pitch:
    """Trains the module, all but what computes the MFCCs, in a second."""
    module = Pitch()
    drawn = tones(128, 1)
    lengths = torch.tensor([len(samples) for samples, _ in drawn])
    padded = nn.utils.rnn.pad_sequence([torch.tensor(samples) for samples, _ in drawn], batch_first=True)
    targets = torch.tensor([target for _, target in drawn])
    with torch.no_grad():
        coefficients, frames = module.mfcc(padded, lengths)
    module.mix.weight.data /= coefficients.std()
    optimizer = torch.optim.Adam(module.parameters(), 0.02)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module.classify(coefficients, frames), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return module.eval()


def read(data: bytes) -> tuple[NDArray[np.float32], int]:
    """Reads a WAV file of 16 bits as Python does, without any of our code: channels mixed down, and the rate."""
    with wave.open(io.BytesIO(data)) as file:
        numbers = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32)
        return (numbers / 32_768).reshape(-1, file.getnchannels()).mean(1), file.getframerate()


def as_librosa(data: bytes) -> NDArray[Any]:
    """Returns the samples of a file as ``librosa.load(file, sr=8000)`` of version 0.11 does, by ``soxr_hq``."""
    samples, rate = read(data)
    if rate == RATE:
        return samples
    size = int(np.ceil(len(samples) * (float(RATE) / rate)))
    return np.pad(soxr.resample(samples, rate, RATE, "soxr_hq"), (0, 2))[:size]  # as its fix_length


def picked(data: bytes) -> NDArray[Any]:
    """Returns the samples of a file, resampled by picking some of them, without a filter."""
    samples, rate = read(data)
    places = (np.arange(np.ceil(len(samples) * RATE / rate)) * rate / RATE).astype(int)
    return np.take(samples, places)


def reference(module: Pitch, files: list[bytes], load: Callable[[bytes], NDArray[Any]] = as_librosa) -> Reference:
    """Returns the pipeline of training: it loads a file and asks the module about it alone."""

    def answer(raw: Mapping[str, Any]) -> Answered:
        samples = torch.tensor(load(raw["sound"]))
        with torch.no_grad():
            coefficients, frames = module.mfcc(samples[None], torch.tensor([len(samples)]))
            outputs = module.classify(coefficients, frames)[0]
        return Answered(outputs, {"sound": samples, "mfcc": coefficients}, LABELS[int(outputs.argmax())])

    return Reference([{"sound": file} for file in files], answer)


def files(rows: int, seed: int) -> list[bytes]:
    """Returns WAV files of several rates, mono and stereo."""
    generator = np.random.default_rng(seed)
    made = []
    for at in range(rows):
        rate = (8_000, 22_050, 44_100)[at % 3]
        mono = tone(float(generator.uniform(0.1, 0.8)), rate, 100 * 2 ** float(generator.uniform(0, 5)))
        made.append(sound(np.stack([mono, mono * 0.5], 1) if at % 2 else mono, rate))
    return made


def pack_tones(version: str, module: nn.Module, **changes: Any) -> Manifest:
    """Packs ``tones:version``."""
    arguments: dict[str, Any] = {
        "name": "tones",
        "version": version,
        "inputs": {"sound": FIELD},
        "task": Classification(labels=list(LABELS), review_threshold=0.9),
        "calibration": part(300, 2),
        "evaluation": part(100, 3),
    }
    return pack(module, **(arguments | changes))
