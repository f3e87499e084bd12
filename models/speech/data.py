"""The data: ten words in the voices of espeak-ng, in three parts that are always the same and share no voice."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from rollout import Audio, Dataset, Labelled
from rollout.bundle.columns import ragged

# Ten of the words that Warden's "Speech Commands" (2018) has.
WORDS: tuple[str, ...] = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
RATE = 8_000
SOUND = Audio(sample_rate=RATE, longest_s=3)
FOLDER = Path(__file__).parent
# Made by voices.py.
RECORDINGS, INDEX = "words.flac", "words.csv"
AROUND = RATE // 20
SOURCE = "ten words in the voices of espeak-ng 1.51, models/speech/words.flac"
SPLIT_RULE = (
    "by voice, women's and the others' by themselves: of each five in the order of the SHA-256 of their names, "
    "one calibration, one evaluation, the rest train"
)


class Recording(NamedTuple):
    """A word, who says it, and how it sounds: ``float32`` from -1 to 1, with some silence around it."""

    word: str
    voice: str
    group: str
    samples: NDArray[np.float32]


def load() -> Dataset:
    """Loads the recordings and splits them; all that a voice says is in the same part."""
    said = recordings()
    part_of = parts({recording.voice: recording.group for recording in said})
    train, calibration, evaluation = (
        _to_arrays([one for one in said if part_of[one.voice] == part]) for part in range(3)
    )
    return Dataset(train, calibration, evaluation, SOURCE, SPLIT_RULE)


def recordings(folder: Path = FOLDER) -> list[Recording]:
    """Returns all recordings, in the order in which they lie in the file."""
    samples, _ = soundfile.read(folder / RECORDINGS, dtype="float32")
    with (folder / INDEX).open(newline="") as file:
        lines = list(csv.DictReader(file))
    ends = np.cumsum([int(line["samples"]) for line in lines])
    cut = np.split(samples, ends[:-1])
    return [
        Recording(line["word"], line["voice"], line["group"], np.pad(word, AROUND))
        for line, word in zip(lines, cut, strict=True)
    ]


def parts(group_of: dict[str, str]) -> dict[str, int]:
    """Returns for each voice 0 for the training part, 1 for calibration and 2 for evaluation."""
    part_of: dict[str, int] = {}
    for group in sorted(set(group_of.values())):
        voices = [voice for voice, own in group_of.items() if own == group]
        voices.sort(key=lambda voice: hashlib.sha256(voice.encode()).digest())
        part_of |= {voice: {1: 1, 2: 2}.get(place % 5, 0) for place, voice in enumerate(voices)}
    return part_of


def _to_arrays(part: list[Recording]) -> Labelled:
    words = np.array([WORDS.index(recording.word) for recording in part])
    return Labelled({"sound": ragged(recording.samples for recording in part)}, words)
