"""The text model: its data, its versions and what they are exported to."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from models.languages import data
from models.languages.recipe import RECIPE
from rollout.bundle.schema import Labelled
from rollout.bundle.source import ModuleSource
from rollout.bundle.variants import VARIANTS
from rollout.training.recipe import Dataset

SENTENCE = "Thursday's delivery was late"
LEAST_ACCURACY = {"v1": 0.9, "v2": 0.94}


def confidences(module: torch.nn.Module, texts: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        confidences: torch.Tensor = module(texts).softmax(1)
        return confidences


def accuracy(part: Labelled, answers: torch.Tensor) -> float:
    return float((answers.numpy() == part.targets).mean())


def test_the_translations_of_a_message_are_in_one_part_only() -> None:
    parts_of = defaultdict(set)
    languages_of = defaultdict(set)
    for message in data.messages():
        parts_of[message.original].add(data.part_of(message))
        languages_of[message.original].add(message.language)
    assert {len(parts) for parts in parts_of.values()} == {1}
    assert max(map(len, languages_of.values())) == len(data.LANGUAGES)


def test_no_text_is_in_two_parts_or_in_two_languages(dataset: Dataset) -> None:
    rows = np.concatenate([part.inputs["text"] for part in dataset[:3]])
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_messages_are_clean() -> None:
    for message in data.messages():
        assert not set("%{}<>[]\0\4") & set(message.text), message
        assert len(message.text.split()) >= 2


def test_the_parts_are_large_enough_balanced_and_always_the_same(dataset: Dataset) -> None:
    again = RECIPE.load()
    for part, same in zip(dataset[:3], again[:3], strict=True):
        assert np.array_equal(part.inputs["text"], same.inputs["text"])
        assert np.array_equal(part.targets, same.targets)
        share = np.bincount(part.targets) / len(part.targets)
        assert len(part.targets) >= 600
        assert np.abs(share - 1 / len(data.LANGUAGES)).max() < 0.03


@pytest.mark.parametrize("version", RECIPE.versions)
def test_a_version_is_accurate_and_far_above_the_baseline(
    version: str, dataset: Dataset, modules: dict[str, torch.nn.Module]
) -> None:
    part = dataset.evaluation
    answers = confidences(modules[version], torch.from_numpy(part.inputs["text"])).argmax(1)
    assert accuracy(part, answers) > LEAST_ACCURACY[version]
    baseline = RECIPE.baselines["most_frequent"](dataset.train, part.inputs)
    assert (baseline == part.targets).mean() < 0.2


@pytest.mark.parametrize("version", RECIPE.versions)
def test_a_sentence_that_no_catalogue_has_is_english(version: str, modules: dict[str, torch.nn.Module]) -> None:
    rows = torch.from_numpy(data.TEXT.encode([SENTENCE, SENTENCE.upper()]))
    for confidence in confidences(modules[version], rows):
        assert data.LANGUAGES[int(confidence.argmax())] == "en"
        assert float(confidence.max()) > 0.5


def test_training_again_gives_the_same_weights(dataset: Dataset, modules: dict[str, torch.nn.Module]) -> None:
    again = RECIPE.train("v1", dataset.train, RECIPE.seed).state_dict()
    for name, weights in modules["v1"].state_dict().items():
        assert torch.equal(weights, again[name]), name


@pytest.mark.parametrize("version", RECIPE.versions)
def test_every_exact_variant_agrees(
    version: str, dataset: Dataset, modules: dict[str, torch.nn.Module], tmp_path: Path
) -> None:
    inputs = {"text": dataset.evaluation.inputs["text"][:64]}
    source = ModuleSource(modules[version], RECIPE.version(version).task, {"text": inputs["text"][:2]})
    for variant in VARIANTS.values():
        if variant.is_exact:
            (tmp_path / variant.file).parent.mkdir()
            variant.export(source, inputs, tmp_path)
            scores = variant(tmp_path / variant.file).run(inputs)
            assert np.abs(scores - source.run(inputs)).max() < 1e-5, variant.name
