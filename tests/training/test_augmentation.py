"""Augmentation changes what is learnt from, a little, by the seed, and nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from rollout import Image, Labelled, RolloutError, Text
from rollout.bundle.golden import read_golden
from rollout.bundle.schema import Arrays
from rollout.bundle.store import open_bundle
from rollout.training.augmentation import (
    Augmentation,
    CharacterNoise,
    ImageFlip,
    ImageLight,
    ImageShift,
    SoundLevel,
    SoundNoise,
    WordNoise,
)
from rollout.training.build import build_version
from rollout.training.checks import row_keys
from rollout.training.runs import Run
from tests.training.fits import FIELDS, QUICK, load, recipe, rows, same_bits

TEXTS = ["the quick brown fox jumps over the lazy dog", "", "ü", "naïve café à la carte"]


def decoded(column: Any) -> list[str]:
    return [row.tobytes().rstrip(b"\0").decode() for row in column]


def changed(change: Augmentation, column: Any, seed: int = 0) -> Any:
    before = column.copy()
    after = change({"it": column, "other": column}, np.random.default_rng(seed))
    assert after["other"] is column
    assert (column == before).all() if column.dtype != object else True
    assert after["it"].shape == column.shape
    assert after["it"].dtype == column.dtype
    return after["it"]


def test_characters_of_a_text() -> None:
    column = Text(max_bytes=44).encode(TEXTS)
    after = decoded(changed(CharacterNoise(field="it", rate=0.2), column))
    assert after[0] != TEXTS[0]
    assert after[1] == ""
    assert set(after[0]) <= set(TEXTS[0])
    assert 0.6 * len(TEXTS[0]) < len(after[0]) <= 44
    full = Text(max_bytes=6).encode(["üüü"])
    for seed in range(20):
        decoded(changed(CharacterNoise(field="it", rate=1.0), full, seed))  # cut off between characters


def test_words_of_a_text() -> None:
    column = Text(max_bytes=44).encode(TEXTS)
    after = decoded(changed(WordNoise(field="it", rate=0.4), column))
    assert after[0] != TEXTS[0]
    assert set(after[0].split()) <= set(TEXTS[0].split())
    assert after[1:3] == TEXTS[1:3]
    assert decoded(changed(WordNoise(field="it", rate=0.0), column)) == TEXTS


@pytest.mark.parametrize("channels", [1, 3])
def test_images(channels: Any) -> None:
    shape = Image(height=6, width=8, channels=channels).shape
    column = np.random.default_rng(0).integers(0, 256, (50, *shape), np.uint8)
    moved = changed(ImageShift(field="it", pixels=2), column)
    fits = [
        (down, right)
        for down in range(-2, 3)
        for right in range(-2, 3)
        if (moved[0][2:4, 2:6] == column[0][2 - down : 4 - down, 2 - right : 6 - right]).all()
    ]
    assert len(fits) == 1
    flipped = changed(ImageFlip(field="it"), column)
    mirrored = (flipped == column[:, :, ::-1]).reshape(50, -1).all(1)
    assert 10 < mirrored.sum() < 40
    assert (flipped[~mirrored] == column[~mirrored]).all()
    light = changed(ImageLight(field="it"), column)
    means = light.reshape(50, -1).mean(1) - column.reshape(50, -1).mean(1)
    assert -52 < means.min() < -10
    assert 10 < means.max() < 52


@pytest.mark.parametrize("ragged", [False, True])
def test_sounds(ragged: bool) -> None:
    samples = [np.sin(np.arange(800 + 100 * row * ragged, dtype=np.float32)) / 2 for row in range(4)]
    column = np.empty(4, object) if ragged else np.stack(samples)
    if ragged:
        column[:] = samples
    louder = changed(SoundLevel(field="it"), column)
    gains = [float(row.max() / was.max()) for row, was in zip(louder, samples, strict=True)]
    assert len(set(gains)) == 4
    assert all(0.5 <= gain <= 2.01 for gain in gains)
    noisy = changed(SoundNoise(field="it", share=0.5), column)
    moved = [float(np.abs(row - was).max()) for row, was in zip(noisy, samples, strict=True)]
    assert 0 < sum(each > 0 for each in moved) < 4
    assert all(row.dtype == np.float32 for row in noisy)


class Jitter(Augmentation, frozen=True, kw_only=True):
    """Notes which rows it met."""

    def changed(self, column: Any, random: np.random.Generator) -> Any:
        MET.extend(row_keys({"x": column}, FIELDS))
        return (column + random.normal(scale=0.01, size=column.shape)).astype(np.float32)


MET: list[bytes] = []


def more_rows(part: Labelled, random: np.random.Generator) -> Labelled:
    MADE.append(part)
    return rows(100, int(random.integers(1000, 2000)))


MADE: list[Labelled] = []


def test_only_rows_that_are_learnt_from_are_changed_and_the_lineage_says_how() -> None:
    MET.clear()
    MADE.clear()
    fit = msgspec.structs.replace(QUICK, augment=[Jitter(field="x", share=0.9)], synthetic=more_rows)
    build_version(msgspec.structs.replace(recipe(fit), name="jittered"), "v1", lambda _: None)
    dataset = load()
    keys = [set(row_keys(part.inputs, FIELDS)) for part in dataset[:3]]
    synthetic = set(MET) - keys[0]
    assert len(synthetic) == 100
    assert not set(MET) & (keys[1] | keys[2])
    held_back = len(keys[0] - set(MET))
    folder, manifest = open_bundle("jittered:v1")
    assert manifest.lineage["fit"]["validation_rows"] == held_back > 100
    assert manifest.lineage["fit"]["synthetic_rows"] == 100
    assert len(MADE[0].targets) == 2000 - held_back
    described = manifest.lineage["training"]
    assert described["augment"] == [{"kind": "Jitter", "field": "x", "share": 0.9}]
    assert described["synthetic"]["kind"] == "more_rows"
    assert len(described["synthetic"]["code"]) == 64
    golden = row_keys({"x": read_golden(folder).inputs["x"]}, FIELDS)
    assert set(golden) <= keys[2]
    assert manifest.lineage["data"]["rows"] == [2000, 500, 400]


def test_the_same_seed_changes_alike() -> None:
    fit = msgspec.structs.replace(QUICK, augment=[Jitter(field="x")], synthetic=more_rows, epochs=2)
    plain = msgspec.structs.replace(fit, augment=())
    first, second, without = (recipe(each).fit("v1", load().train, 0).module for each in (fit, fit, plain))
    assert same_bits(first, second)
    assert not same_bits(first, without)


def test_what_does_not_fit_is_refused() -> None:
    def wrong(part: Labelled, random: np.random.Generator) -> Labelled:
        return Labelled(part.inputs, part.targets + 7)

    def short(part: Labelled, random: np.random.Generator) -> Labelled:
        return Labelled(part.inputs, part.targets[:5])

    def own(inputs: Arrays, random: np.random.Generator) -> Arrays:
        return {"x": inputs["x"] * 2}

    for settings, why in (
        ({"synthetic": wrong}, "the rows of Fit.* do not fit: targets must be whole numbers"),
        ({"synthetic": short}, "other numbers of inputs and of targets"),
        ({"augment": [own, Jitter(field="y")]}, "Jitter changes y, which is none of x"),
    ):
        with pytest.raises(RolloutError, match=why):
            recipe(msgspec.structs.replace(QUICK, **settings)).fit("v1", load().train, 0, Run())
