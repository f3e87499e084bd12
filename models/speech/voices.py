"""Makes the recordings of this folder anew: ``python -m models.speech.voices``, where espeak-ng is installed.

Each voice says each word twice, in an accent, at a speed and at a pitch that are drawn for it. The model needs
what is in the repository; only who wants other words or voices needs espeak-ng. Those here are of version 1.51,
and another one may pronounce them otherwise.
"""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from models.speech.data import FOLDER, INDEX, RATE, RECORDINGS, WORDS

ACCENTS = (
    "en-gb", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp", "en-029", "en-us-nyc",
)  # fmt: skip
# Of the variants that espeak-ng has, those that are people: no robots, and one of those that differ in little.
WOMEN = (
    "Alicia", "Andrea", "Annie", "anika", "aunty", "belinda", "f1", "f2", "f3", "f4", "f5", "grandma", "linda",
    "steph", "whisperf",
)  # fmt: skip
OTHERS = (
    "Alex", "Andy", "AnxiousAndy", "Denis", "Diogo", "Gene", "Henrique", "Hugo", "Jacky", "Lee", "Marco", "Mario",
    "Michael", "Mike", "Mr serious", "Nguyen", "RicishayMax", "Storm", "Tweaky", "adam", "announcer", "antonio",
    "benjamin", "boris", "caleb", "croak", "david", "ed", "edward", "grandpa", "gustave", "iven", "john",
    "kaukovalta", "klatt", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "marcelo", "max", "michel", "miguel",
    "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby", "travis", "victor",
    "whisper", "zac",
)  # fmt: skip
TAKES = 2
SLOWEST, FASTEST = 120, 220  # words a minute; espeak-ng speaks 175
LOWEST, HIGHEST = 30, 70  # of 0 to 99; espeak-ng speaks at 50
# All are as loud as each other, and of 8 bits: what is finer weighs more than it tells.
LOUDEST = 48


class Take(NamedTuple):
    """A word as a voice is to say it."""

    voice: str
    group: str
    accent: str
    speed: int
    pitch: int
    word: str


def main() -> None:
    """Write the recordings and their index."""
    write(FOLDER, [(take, say(take)) for take in takes()])


def takes() -> Iterator[Take]:
    """Yields what is to be said; a hash draws accent, speed and pitch, the same ones each time."""
    for group, voices in (("women", WOMEN), ("others", OTHERS)):
        for voice in voices:
            for word in WORDS:
                for take in range(TAKES):
                    drawn = hashlib.sha256(f"{voice} {word} {take}".encode()).digest()
                    accent = ACCENTS[drawn[0] % len(ACCENTS)]
                    speed = SLOWEST + drawn[1] * (FASTEST - SLOWEST) // 255
                    pitch = LOWEST + drawn[2] * (HIGHEST - LOWEST) // 255
                    yield Take(voice, group, accent, speed, pitch, word)


def say(take: Take) -> NDArray[np.int8]:
    """Returns the samples of a word without the silence around it."""
    command = ["espeak-ng", "-v", f"{take.accent}+{take.voice}", "-s", str(take.speed), "-p", str(take.pitch)]
    file = subprocess.run([*command, "--stdout", take.word], capture_output=True, check=True).stdout
    samples, rate = soundfile.read(io.BytesIO(file), dtype="float32")
    samples = soxr.resample(samples, rate, RATE, quality="HQ")
    levels: NDArray[np.int8] = np.rint(samples / np.abs(samples).max() * LOUDEST).astype(np.int8)
    heard = np.flatnonzero(levels)
    return levels[heard[0] : heard[-1] + 1]


def write(folder: Path, recordings: list[tuple[Take, NDArray[np.int8]]]) -> None:
    """Writes all recordings one after another as one FLAC file of 8 bits, and a line for each of them."""
    samples = np.concatenate([samples for _, samples in recordings])
    soundfile.write(
        folder / RECORDINGS,
        samples.astype(np.int16) << 8,
        RATE,
        format="FLAC",
        subtype="PCM_S8",
        compression_level=1,
    )
    with (folder / INDEX).open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow([*Take._fields, "samples"])
        lines.writerows([*take, len(samples)] for take, samples in recordings)


if __name__ == "__main__":
    main()
