"""The reference: from a sound file to an answer with soundfile, soxr and SciPy, as if there were no bundle."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.fft
import scipy.signal
import soundfile
import soxr
import torch
from numpy.typing import NDArray

from models.speech.data import RATE, WORDS
from models.speech.spoken import AUDIBLE, BANDS, COEFFICIENTS, FLOOR, FRAME, HOP, LEAST_DEVIATION
from rollout import Answered, Dataset, Reference

ROWS = 48
# How recordings arrive: format, rate, whether in two channels.
KINDS = (("WAV", RATE, False), ("WAV", 16_000, False), ("FLAC", 44_100, True), ("OGG", 22_050, False))
SILENCE_S = 0.2


def from_files(module: torch.nn.Module, dataset: Dataset) -> Reference:
    """Returns recordings of the evaluation part as files of several kinds, and their way to the logits."""

    def answer(raw: Mapping[str, Any]) -> Answered:
        samples = _read(raw["sound"])
        word = _spoken(_mfcc(samples / np.abs(samples).max())).astype(np.float32)
        frames = len(word)
        logits = module.classify(  # type: ignore[operator]
            torch.from_numpy(word)[None], torch.arange(frames)[None], torch.tensor([[frames]])
        )
        return Answered(logits, {"sound": samples}, label=WORDS[int(logits.argmax())])

    sounds = dataset.evaluation.inputs["sound"]
    chosen = sounds[np.linspace(0, len(sounds) - 1, ROWS).astype(int)]
    return Reference([{"sound": _to_file(sound, number)} for number, sound in enumerate(chosen)], answer)


def _read(data: bytes) -> NDArray[np.float32]:
    """Returns samples as ``librosa.load`` does: a length that comes out with a fraction is rounded up."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    mono: NDArray[np.float32] = soxr.resample(samples.mean(1), rate, RATE, quality="HQ")
    return np.pad(mono, (0, 2))[: math.ceil(len(samples) * (RATE / rate))]


def _mfcc(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the coefficients of each frame, shape ``(frames, coefficients)``."""
    starts = np.arange(0, len(samples), HOP)
    padded = np.pad(samples.astype(np.float64), (0, FRAME))
    frames = padded[starts[:, None] + np.arange(FRAME)] * scipy.signal.get_window("hann", FRAME)
    energy = np.abs(scipy.fft.rfft(frames)) ** 2
    mel = np.linspace(0, _to_mel(RATE / 2), BANDS + 2)
    hertz = scipy.fft.rfftfreq(FRAME, 1 / RATE)
    bands = [np.interp(hertz, 700 * (10 ** (mel[at : at + 3] / 2595) - 1), (0, 1, 0)) for at in range(BANDS)]
    logarithms = np.log(np.maximum(energy @ np.transpose(bands), FLOOR))
    coefficients: NDArray[np.float64] = scipy.fft.dct(logarithms, norm="ortho")[:, :COEFFICIENTS]
    return coefficients


def _to_mel(hertz: float) -> float:
    return 2595 * float(np.log10(1 + hertz / 700))


def _spoken(coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cuts the word out of the silence, and standardises it."""
    silence = np.log(FLOOR) * np.sqrt(BANDS)
    heard = np.flatnonzero(coefficients[:, 0] > silence + AUDIBLE)
    word = coefficients[heard[0] : heard[-1] + 1]
    standardised: NDArray[np.float64] = (word - word.mean(0)) / (word.std(0) + LEAST_DEVIATION)
    return standardised


def _to_file(sound: NDArray[np.float32], number: int) -> bytes:
    """Saves a recording as it may arrive, every other one quieter and with silence around it."""
    kind, rate, is_stereo = KINDS[number % len(KINDS)]
    if number % 2:
        sound = np.pad(sound / 2, round(SILENCE_S * RATE))
    samples = soxr.resample(sound, RATE, rate, quality="HQ")
    if is_stereo:
        samples = np.stack([samples, samples / 2], 1)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind)
    return file.getvalue()
