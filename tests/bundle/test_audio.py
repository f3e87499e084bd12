"""Sound files of every kind: decoded, mixed down and resampled, or refused before they cost much."""

from __future__ import annotations

import sys
import tracemalloc
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from rollout import Audio, InputSchema, RolloutError
from rollout.bundle.codec import Codec
from rollout.bundle.image_file import PixelBudget
from tests.sounds import in_base64, sound, tone

FIELD = Audio(sample_rate=16_000, longest_s=2)
# As players write them before an MP3: 200 bytes of padding; the other says that its head stands behind them again.
TAG = b"ID3\4\0\0\0\0\1\x48" + b"\0" * 200
TAG_WITH_FOOT = b"ID3\4\0\x10\0\0\0\x0a" + b"\0" * 10 + b"3DI\4\0\x10\0\0\0\x0a"


def decode(data: bytes, field: Audio = FIELD, budget: PixelBudget | None = None) -> NDArray[Any]:
    samples: NDArray[Any] = field.decode_file(data, budget)[()]
    return samples


@pytest.mark.parametrize(
    ("kind", "subtype", "bound"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "FLOAT", 1e-7),
        ("FLAC", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 0.1),
    ],
)
def test_every_kind_of_file_has_the_samples_that_were_written(kind: str, subtype: str, bound: float) -> None:
    written = tone(1, 16_000)
    got = decode(sound(written, 16_000, kind, subtype))
    assert got.dtype == np.float32
    assert np.abs(got - written).max() <= bound


def test_mp3_is_about_what_was_written() -> None:
    got = decode(sound(tone(1, 16_000), 16_000, "MP3"))
    assert abs(len(got) - 16_000) < 3_000
    assert np.abs(np.fft.rfft(got[4000:8000])).argmax() == 110, "440 Hz in 4,000 samples"


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_a_tone_of_any_rate_becomes_the_same_tone(rate: int) -> None:
    got = decode(sound(tone(1, rate), rate, subtype="FLOAT"))
    assert len(got) == 16_000
    middle = slice(1_000, -1_000)  # the filter rings where the tone begins and ends
    assert np.abs(got - tone(1, 16_000))[middle].max() < 1e-4


def test_what_the_lower_rate_cannot_hold_is_filtered_out() -> None:
    got = decode(sound(tone(1, 48_000, hertz=12_000), 48_000))
    assert np.abs(got[1_000:-1_000]).max() < 1e-4


def test_channels_are_mixed_down_to_their_mean() -> None:
    channels = np.stack([tone(1, 16_000), np.zeros(16_000), tone(1, 16_000, level=0.25)], 1)
    assert np.abs(decode(sound(channels, 16_000, subtype="FLOAT")) - tone(1, 16_000, level=0.25)).max() < 1e-6


def test_samples_stay_within_what_filters_add_to_the_loudest() -> None:
    square = np.sign(tone(1, 44_100)).astype(np.float32)
    assert 1.1 < np.abs(decode(sound(square, 44_100, subtype="FLOAT"))).max() < 2
    assert decode(sound(square[:99] * 9, 16_000, subtype="FLOAT")).max() == 2


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_samples_are_those_of_librosa(rate: int) -> None:
    """librosa.load(file, sr=16_000) of 0.11: to_mono, soxr_hq, fix_length."""
    generator = np.random.default_rng(rate)
    for size in generator.integers(9, 2_000, 20):
        stereo = generator.uniform(-1, 1, (size, 2)).astype(np.float32)
        wanted = int(np.ceil(size * (16_000.0 / rate)))
        resampled = soxr.resample(np.mean(stereo.T, axis=0), rate, 16_000, "soxr_hq")
        expected = np.pad(resampled, (0, 2))[:wanted]
        assert np.array_equal(decode(sound(stereo, rate, subtype="FLOAT")), expected)


def streamed(data: bytes, samples: int) -> bytes:
    """Says in the head of a FLAC file that it has so many samples (RFC 9639, section 8.2); 0 is unknown."""
    known = int.from_bytes(data[18:26]) >> 36 << 36 | samples
    return data[:18] + known.to_bytes(8) + data[26:]


WAV, FLAC = (sound(tone(1, 16_000), 16_000, kind) for kind in ("WAV", "FLAC"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "neither a WAV"),
        (b"hello", "neither a WAV"),
        (sound(tone(1, 16_000), 16_000, "AIFF"), "neither a WAV"),
        (WAV[:20], "damaged"),
        (FLAC[:60], "damaged"),
        (FLAC[:200] + bytes(400) + FLAC[600:], "damaged|finite|short"),
        (sound(np.zeros(0, np.float32), 16_000), "no sound"),
        (sound(tone(2.01, 16_000), 16_000), r"lasts 2.0 s; at most 2 s"),
        (streamed(sound(np.zeros(40_000), 16_000, "FLAC"), 0), "lasts longer than 2 s"),
        (sound(np.full(100, np.nan, np.float32), 16_000, subtype="FLOAT"), "finite"),
        (sound(np.zeros((9, 17)), 16_000), "17 channels"),
        (sound(np.zeros(9), 100), "at 100 Hz"),
        (sound(np.zeros(1), 48_000), "too few"),
    ],
)
def test_what_is_no_sound_of_this_length_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode(data)


def test_a_string_that_is_no_base64_is_refused() -> None:
    with pytest.raises(ValueError, match="not base64"):
        Codec(FIELD).decode(b'"not base64!"')


def test_a_small_file_that_is_an_hour_of_silence_costs_next_to_nothing() -> None:
    bomb = sound(np.zeros(3600 * 16_000, np.int16), 16_000, "FLAC")
    for data in (bomb, streamed(bomb, 0)):
        tracemalloc.start()
        with pytest.raises(ValueError, match="lasts"):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        tracemalloc.stop()


@pytest.mark.parametrize("place", [58, None], ids=["before the sound", "behind it"])
def test_an_ogg_of_very_many_pages_is_refused_before_it_costs_much(place: int | None) -> None:
    ogg = sound(tone(1, 16_000), 16_000, "OGG", "VORBIS")
    pages = b"OggS" * 100_000  # half a second for libogg, and of 8 MiB twelve
    opened = mock.patch("soundfile.SoundFile", side_effect=AssertionError("it is opened"))
    with opened, pytest.raises(ValueError, match="very many pages"):
        decode(ogg[:place] + pages + (b"" if place is None else ogg[place:]))
    decode(ogg)


@pytest.mark.parametrize("tags", [b"", TAG, TAG * 3, TAG_WITH_FOOT + TAG], ids=["none", "one", "three", "foot"])
def test_behind_tags_no_other_kind_of_file_is_taken(tags: bytes) -> None:
    mp3 = sound(tone(1, 16_000), 16_000, "MP3")
    assert (decode(tags + mp3) == decode(mp3)).all()
    for kind in ("AIFF", "AU", "CAF", "VOC", "NIST", "SDS"):
        data = tags + sound(tone(1, 16_000), 16_000, kind, "PCM_16")
        with (
            mock.patch("soundfile.SoundFile", side_effect=AssertionError("it is opened")),
            pytest.raises(ValueError, match="neither a WAV, FLAC, OGG nor an MP3"),
        ):
            decode(data)
    for cut in (tags[:5], tags[:-1], TAG * 1000):
        with pytest.raises(ValueError, match="neither a WAV, FLAC, OGG nor an MP3"):
            decode(cut)


def test_the_files_of_a_request_have_a_bound_together() -> None:
    budget = PixelBudget(40_000)
    decode(WAV, budget=budget)
    decode(WAV, budget=budget)
    with pytest.raises(ValueError, match="sounds of a request may have 40,000 samples together"):
        decode(WAV, budget=budget)


def test_a_file_of_a_low_rate_pays_for_what_it_is_resampled_to() -> None:
    low = sound(tone(1, 4_000), 4_000)
    decode(low, budget=PixelBudget(16_004))
    with pytest.raises(ValueError, match="samples together"):
        decode(low, budget=PixelBudget(15_999))


def test_files_are_decoded_off_the_event_loop_and_kept_as_they_came() -> None:
    raw = msgspec.json.encode(in_base64(WAV))
    assert Codec(FIELD).is_slow(raw)
    assert len(Codec(FIELD).decode(raw)[()]) == 16_000
    assert FIELD.keep(msgspec.Raw(raw), decode(WAV)) == msgspec.Raw(raw)


def test_two_sounds_in_a_row_may_have_lengths_of_their_own() -> None:
    schema = InputSchema({"left": FIELD, "right": FIELD})
    files = {"left": WAV, "right": sound(tone(0.5, 16_000), 16_000)}
    found = schema.decode(
        {name: msgspec.Raw(msgspec.json.encode(in_base64(file))) for name, file in files.items()}
    )
    assert [len(found[name][()]) for name in files] == [16_000, 8_000]


def test_where_nothing_decodes_sound_the_bundle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(RolloutError, match=r"rollout\[audio\]"):
        InputSchema({"sound": FIELD})


@pytest.mark.parametrize("options", [{"sample_rate": 100}, {"longest_s": 0}, {"longest_s": 1e4}])
def test_a_field_that_no_batch_could_hold_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="sample"):
        Audio(**options)
