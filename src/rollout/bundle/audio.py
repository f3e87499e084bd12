"""The audio field: a WAV, FLAC, OGG or MP3 file in base64, of any rate and any number of channels."""

from __future__ import annotations

import base64
import io
import math
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from rollout.bundle.apart import Apart, sound
from rollout.bundle.columns import LEAST_WIDTH, bare, cell, flat, lengths
from rollout.bundle.image_file import PixelBudget
from rollout.bundle.wav import wav
from rollout.bundle.wire import LARGEST_ROW, Free, WireField, from_base64
from rollout.errors import BundleError
from rollout.judge.features import Features, number

SAMPLE_RATES = (3_000, 768_000)
MOST_CHANNELS = 16
# Of one file, in all channels, before it is mixed down.
MAX_SAMPLES = 32_000_000
# By what they begin with: libsndfile reads many more formats, which nobody needs and somebody may attack.
# An MP3 begins with a frame of layer III in MPEG 1, 2 or 2.5, with a checksum or without.
BEGINNINGS = (
    b"RIFF",
    b"fLaC",
    b"OggS",
    *(bytes([255, second]) for second in b"\xfb\xfa\xf3\xf2\xe3\xe2"),
)
# Before them a file may have tags (ID3v2.4, section 3.1), behind which libsndfile would read any format.
TAG, TAG_HEAD, TAG_HAS_FOOT = b"ID3", 10, 0x10
MOST_TAGS = 4
# What begins a page of OGG, and how many a file may have: libogg takes long for very many that are none.
PAGE = b"OggS"
PAGES, BYTES_A_PAGE = 1000, 64
# Of those; browsers and operating systems do not agree on what a WAV and a FLAC are called.
MEDIA_TYPES = (
    "audio/wav",
    "audio/x-wav",
    "audio/wave",
    "audio/vnd.wave",
    "audio/flac",
    "audio/x-flac",
    "audio/ogg",
    "audio/mpeg",
)
LOUDEST = 1.0
# Filters ring: beside a loud sample another may well be beyond it, as in training.
LARGEST = 2.0
QUALITY = "HQ"
# Mean square of a sound of -100 dB, below which nothing is heard.
SILENCE = 1e-10
UNKNOWN = 2**63 - 1


class Audio(WireField, frozen=True, kw_only=True, tag="audio"):
    """A sound: a WAV, FLAC, OGG or MP3 file in base64, of any rate and any number of channels.

    It is mixed down to one channel, the mean of all, and resampled by soxr in quality HQ: a filter of linear
    phase that passes 91 % of the narrower band, with the precision of 20 bits (``soxr.h``, quality recipes). So
    does ``librosa.load(file, sr=sample_rate)``, to the bit; as there, a length that comes out with a fraction is
    rounded up. The module gets samples from -1 to 1, those beside loud ones up to 2, ``float32`` of shape
    ``(rows, samples)``, padded with zeros to the longest row of the batch, and the lengths of the rows, ``int64``
    of shape ``(rows,)``.

    Attributes:
        sample_rate: Samples a second that the module takes.
        longest_s: Longest sound that is taken, in seconds.
    """

    media_types: ClassVar[tuple[str, ...]] = MEDIA_TYPES

    sample_rate: int = 16_000
    longest_s: float = 10.0

    def __post_init__(self) -> None:
        low, high = SAMPLE_RATES
        if not low <= self.sample_rate <= high:
            raise ValueError(f"a sample rate of {self.sample_rate} is not from {low:,} to {high:,} Hz")
        if not LEAST_WIDTH <= self.sample_rate * self.longest_s <= LARGEST_ROW / 4:
            raise ValueError(f"longest_s must come to {LEAST_WIDTH} to {LARGEST_ROW // 4:,} samples")

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Shape of one row, without the batch dimension."""
        return ("samples",)

    @property
    def dtype(self) -> Literal["float32"]:
        """The dtype of the array that the model takes."""
        return "float32"

    @property
    def free(self) -> Free:
        """The samples, of which each row has as many as it lasts; other fields have numbers of their own."""
        return Free("samples", math.ceil(self.sample_rate * self.longest_s), is_shared=False)

    @property
    def wire_type(self) -> Any:
        """The type that ``msgspec`` checks the JSON value against."""
        return Annotated[str, Meta(description=self.expected, extra_json_schema={"contentEncoding": "base64"})]

    @property
    def expected(self) -> str:
        """What would be right, in words."""
        return f"a WAV, FLAC, OGG or MP3 file of at most {self.longest_s:g} s in base64"

    def require(self) -> None:
        """Makes sure that it can be decoded here.

        Raises:
            BundleError: If what decodes it is not installed.
        """
        try:
            import soundfile  # noqa: F401, PLC0415  only where such a field is served
            import soxr  # noqa: F401, PLC0415
        except (ImportError, OSError) as error:
            raise BundleError(
                f"a field of audio needs soundfile and soxr, pip install 'rollout[audio]': {error}"
            ) from None

    def decode(self, value: Any) -> NDArray[Any]:
        """Turns a base64 file into a cell of samples.

        Raises:
            ValueError: If it is not base64, not such a file, damaged, empty or too long.
        """
        return self.decode_file(from_base64(value))

    def sound(self, array: NDArray[Any]) -> tuple[NDArray[Any], int]:
        """Returns the samples and their rate."""
        return array, self.sample_rate

    def keep(self, sent: msgspec.Raw | None, array: NDArray[Any]) -> Any:
        """Returns what is kept of a row for a reviewer: the file as it came, or samples as a WAV file."""
        if sent is None:
            return base64.b64encode(wav(bare(array), self.sample_rate)).decode()
        return super().keep(sent, array)

    def decode_file(self, data: bytes, budget: PixelBudget | None = None) -> NDArray[Any]:
        """Turns a file into a cell of samples.

        Args:
            data: The bytes of the file; what it is they say themselves.
            budget: What its samples take from, those that it has in all channels or those that they are resampled
                to, whichever are more.

        Raises:
            ValueError: If it is not such a file, damaged, empty or too long.
        """
        import soundfile  # noqa: PLC0415
        import soxr  # noqa: PLC0415

        data = _behind_tags(data)
        if not data.startswith(BEGINNINGS):
            raise ValueError("the bytes are neither a WAV, FLAC, OGG nor an MP3 file")
        if data.startswith(PAGE) and data.count(PAGE) > PAGES + len(data) // BYTES_A_PAGE:
            raise ValueError("the OGG file is made of very many pages, which hold next to nothing: save it anew")
        try:
            with soundfile.SoundFile(io.BytesIO(data)) as file:
                rate = file.samplerate
                samples = file.read(self._require_short(file, budget), dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            why = str(getattr(error, "error_string", error)).rstrip(".")  # without the object that was opened
            raise ValueError(f"the sound file is damaged, or of a kind that is not taken: {why}") from None
        if len(samples) > rate * self.longest_s:  # whatever its header says
            raise ValueError(f"the sound lasts longer than {self.longest_s:g} s, which is the most that is taken")
        if not len(samples):
            raise ValueError("the file holds no sound")
        if not np.isfinite(samples).all():
            raise ValueError("every sample must be a finite number")
        mono = samples.mean(1)
        if rate != self.sample_rate:
            resampled = soxr.resample(mono, rate, self.sample_rate, quality=QUALITY)
            if not len(resampled):
                raise ValueError(f"the sound has {len(samples)} samples: too few at {self.sample_rate:,} Hz")
            size = math.ceil(len(mono) * (self.sample_rate / rate))
            mono = np.pad(resampled[:size], (0, max(0, size - len(resampled))))
        return cell(np.clip(mono[: self.free.longest], -LARGEST, LARGEST).astype(np.float32, copy=False))

    def features(self, column: NDArray[Any]) -> Features:
        """Returns length, loudness, the loudest sample, and how often the sign changes, as it does at a pitch."""
        long = lengths(column)
        starts = np.cumsum(long) - long
        samples = flat(column).astype(np.float64) if len(column) else np.zeros(0)
        if not len(column):
            square = loudest = crossings = np.zeros(0)
        else:
            square = np.add.reduceat(samples**2, starts) / long
            loudest = np.maximum.reduceat(np.abs(samples), starts)
            changes = np.append(0.0, np.diff(samples >= 0))
            changes[starts] = 0
            crossings = np.add.reduceat(changes, starts) * self.sample_rate / long
        return {
            "duration": number(long / self.sample_rate, "s"),
            "loudness": number(10 * np.log10(square + SILENCE), "dB"),
            "loudest": number(loudest),
            "crossings": number(crossings, "1/s"),
        }

    def take_apart(self, row: NDArray[Any], background: NDArray[Any]) -> Apart:
        """Takes the sound apart into slices of time."""
        return sound(row, self.sample_rate)

    def _require_short(self, file: Any, budget: PixelBudget | None) -> int:
        """Returns how many frames are to be read at most, by what the header says.

        Raises:
            ValueError: If there are too many, or of too many channels or an odd rate.
        """
        low, high = SAMPLE_RATES
        if not low <= file.samplerate <= high or not 1 <= file.channels <= MOST_CHANNELS:
            raise ValueError(
                f"the sound has {file.channels} channels at {file.samplerate:,} Hz; at most {MOST_CHANNELS} are "
                f"taken, at {low:,} to {high:,} Hz"
            )
        # A FLAC that was streamed does not know its length.
        most = math.floor(file.samplerate * self.longest_s)
        known: int = file.frames if file.frames < UNKNOWN else most
        if known > most:
            raise ValueError(
                f"the sound lasts {known / file.samplerate:,.1f} s; at most {self.longest_s:g} s are taken"
            )
        frames: int = min(known, most) + 1
        if frames * file.channels > MAX_SAMPLES:
            raise ValueError(
                f"the sound has {frames:,} samples in each of {file.channels} channels; at most {MAX_SAMPLES:,} "
                "are taken together"
            )
        if budget is not None:
            resampled = math.ceil(frames * self.sample_rate / file.samplerate)
            budget.take(max(frames * int(file.channels), resampled), "sounds", "samples")
        return frames


def _behind_tags(data: bytes) -> bytes:
    at = 0
    for _ in range(MOST_TAGS):
        head = data[at : at + TAG_HEAD]
        if not head.startswith(TAG) or len(head) < TAG_HEAD:
            break
        size = 0
        for byte in head[6:]:
            size = size << 7 | byte & 0x7F
        at += TAG_HEAD + size + (TAG_HEAD if head[5] & TAG_HAS_FOOT else 0)
    return data[at:] if at else data
