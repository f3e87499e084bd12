"""The speech model: its recordings, its versions, and a sound file that it is asked with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from models.speech import data, voices
from models.speech.recipe import RECIPE
from rollout import Classification, Dataset
from rollout.bundle.columns import arguments, ragged
from rollout.bundle.schema import Arrays
from rollout.bundle.store import open_bundle
from tests.conftest import Service, run_service, set_split
from tests.sounds import sound

LEAST_ACCURACY = {"v1": 0.85, "v2": 0.95}


def ask(module: torch.nn.Module, inputs: Arrays) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = module(*map(torch.from_numpy, arguments(inputs).values()))
        return logits


def test_no_voice_is_in_two_parts_and_each_says_every_word_twice() -> None:
    said = data.recordings()
    part_of = data.parts({recording.voice: recording.group for recording in said})
    assert np.bincount(list(part_of.values())).tolist() == [45, 15, 15]
    women = {recording.voice for recording in said if recording.group == "women"}
    assert np.bincount([part_of[voice] for voice in women]).tolist() == [9, 3, 3]
    for voice in part_of:
        words = [recording.word for recording in said if recording.voice == voice]
        assert sorted(words) == sorted(data.WORDS * voices.TAKES)


def test_the_recordings_are_whole(dataset: Dataset) -> None:
    assert [len(part.targets) for part in dataset[:3]] == [900, 300, 300]
    for part in dataset[:3]:
        assert np.bincount(part.targets).tolist() == [len(part.targets) // len(data.WORDS)] * len(data.WORDS)
        for samples in part.inputs["sound"]:
            inside = samples[data.AROUND : -data.AROUND]
            assert 0.1 < len(inside) / data.RATE < data.SOUND.longest_s
            assert np.abs(inside).max() * 128 == voices.LOUDEST
            assert inside[0] != 0 != inside[-1], "a word begins and ends where it was cut"


def test_what_is_said_anew_is_loaded_as_it_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tones = {word: 200 * (2 + number) for number, word in enumerate(data.WORDS)}
    asked: list[list[str]] = []

    class Said:
        def __init__(self, command: list[str], **_: object) -> None:
            asked.append(command)
            waves = np.sin(2 * np.pi * tones[command[-1]] * np.arange(11_025) / 22_050)
            self.stdout = sound(np.pad(0.3 * waves, 2_000).astype(np.float32), 22_050)

    monkeypatch.setattr("models.speech.voices.subprocess.run", Said)
    takes = list(voices.takes())
    chosen = takes[:: voices.TAKES][: len(data.WORDS)]
    voices.write(tmp_path, [(take, voices.say(take)) for take in chosen])
    found = data.recordings(tmp_path)
    assert [(one.word, one.voice) for one in found] == [(take.word, take.voice) for take in chosen]
    assert asked[0][:3] == ["espeak-ng", "-v", f"{chosen[0].accent}+{chosen[0].voice}"]
    for recording in found:
        middle = recording.samples[1_000:3_000]
        assert np.abs(np.fft.rfft(middle)).argmax() == tones[recording.word] / 4, "2,000 samples are 0.25 s"
        assert len(recording.samples) == pytest.approx(data.RATE / 2 + 2 * data.AROUND, abs=40)
    with (data.FOLDER / data.INDEX).open() as file:
        index = [line.rpartition(",")[0] for line in file.read().splitlines()[1:]]
    assert index == [",".join(map(str, take)) for take in takes], "words.csv is of other takes: run voices.py"


@pytest.mark.parametrize("version", RECIPE.versions)
def test_a_version_knows_words_in_voices_that_it_never_heard(
    version: str, dataset: Dataset, modules: dict[str, torch.nn.Module]
) -> None:
    part = dataset.evaluation
    assert (ask(modules[version], part.inputs).argmax(1).numpy() == part.targets).mean() > LEAST_ACCURACY[version]
    (baseline,) = RECIPE.baselines.values()
    assert (baseline(dataset.train, part.inputs) == part.targets).mean() < 0.3


@pytest.mark.parametrize("version", RECIPE.versions)
def test_loudness_and_silence_around_a_word_change_nothing(
    version: str, dataset: Dataset, modules: dict[str, torch.nn.Module]
) -> None:
    sounds = dataset.evaluation.inputs["sound"][:60]
    quiet = ragged(np.pad(samples / 8, (1_600, 4_000)) for samples in sounds)  # whole frames
    apart = ask(modules[version], {"sound": quiet}) - ask(modules[version], {"sound": sounds})
    assert float(apart.abs().max()) < 1e-3
    silence = ask(modules[version], {"sound": ragged([np.zeros(1, np.float32), np.zeros(9_000, np.float32)])})
    assert torch.isfinite(silence).all()
    assert torch.allclose(silence[0], silence[1], atol=1e-5)


def test_the_second_version_knows_words_in_noise(dataset: Dataset, modules: dict[str, torch.nn.Module]) -> None:
    part, chance = dataset.evaluation, np.random.default_rng(0)
    longer = [np.pad(samples, (2_000, 4_000)) for samples in part.inputs["sound"]]
    noisy = ragged(
        (samples + chance.normal(0, 0.01 * np.abs(samples).max(), len(samples))).astype(np.float32)
        for samples in longer
    )
    first, second = (
        (ask(module, {"sound": noisy}).argmax(1).numpy() == part.targets).mean() for module in modules.values()
    )
    assert second > 0.9
    assert first < 0.7


@pytest.fixture(scope="module")
def service(packed: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp(packed)
    set_split(home, "--champion", "v2", model=packed)
    with run_service(home, ROLLOUT_WORKERS="1", ROLLOUT_VARIANT="onnx") as running:
        yield running


def test_a_file_as_the_body_is_answered_as_by_the_module_that_was_trained_here(
    service: Service, dataset: Dataset, modules: dict[str, torch.nn.Module]
) -> None:
    sounds = dataset.evaluation.inputs["sound"][::10]
    kinds = (("WAV", "audio/wav"), ("FLAC", "audio/flac"))
    answers = []
    with service.client() as client:
        for number, samples in enumerate(sounds):
            kind, media_type = kinds[number % 2]
            answer = client.post(
                f"/v1/models/speech/predict?client_id=c-{number}",
                content=sound(samples, data.RATE, kind),
                headers={"Content-Type": media_type},
            )
            assert answer.status_code == 200, answer.text
            answers.append(answer.json())
    task = open_bundle("speech:v2")[1].task
    assert isinstance(task, Classification)
    expected = (ask(modules["v2"], {"sound": sounds}) / task.temperature).softmax(1).numpy()
    got = [[answer["scores"][word] for word in data.WORDS] for answer in answers]
    assert np.abs(np.array(got) - expected).max() < 1e-3
    assert [answer["label"] for answer in answers] == [data.WORDS[at] for at in expected.argmax(1)]


@pytest.mark.parametrize("version", RECIPE.versions)
def test_a_bundle_decides_from_the_file_as_its_author(service: Service, version: str) -> None:
    manifest = open_bundle(f"speech:{version}")[1]
    found = manifest.reference
    assert found is not None
    assert isinstance(manifest.task, Classification)
    assert found.by.startswith("models.speech.reference.")
    assert (found.rows, found.flipped, found.largest_difference < 1e-3) == (48, 0, True)
    assert [stage.differ for stage in found.stages if stage.where == "decoded"] == [0]
    assert "onnx" in manifest.variants
    assert manifest.task.review_limit < 1, "the surest are answered without a person"
