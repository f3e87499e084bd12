"""Augmentation: rows that are changed a little each time they are learnt from, and rows that a function makes.

A change is declared, so that the lineage has it: `Fit(augment=[WordNoise(field="text")])`.
It meets the batches of training and nothing else: no validation, calibration or evaluation row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.bundle.columns import each
from rollout.bundle.schema import Arrays
from rollout.errors import ConfigError

Random = np.random.Generator
Augment = Callable[[Arrays, Random], Arrays]


class Augmentation(msgspec.Struct, frozen=True, kw_only=True):
    """A change of one field; a subclass says in ``changed`` what becomes of its column.

    Attributes:
        field: The name of the input.
        share: Share of the rows of a batch that are changed.
    """

    field: str
    share: float = 1.0

    def __call__(self, inputs: Arrays, random: Random) -> Arrays:
        """Changes the field in a batch, and leaves what it got as it is.

        Args:
            inputs: The columns of the batch.
            random: Where random numbers come from.

        Raises:
            ConfigError: If there is no such field.
        """
        if self.field not in inputs:
            raise ConfigError(f"{type(self).__name__} changes {self.field}, which is none of {', '.join(inputs)}")
        column = inputs[self.field]
        chosen = random.random(len(column)) < self.share
        changed = self.changed(column, random)
        if column.dtype == object:
            rows = column.copy()
            for row in np.flatnonzero(chosen):
                rows[row] = changed[row]
        else:
            rows = np.where(chosen.reshape(-1, *[1] * (column.ndim - 1)), changed, column)
        return {**inputs, self.field: rows}

    def changed(self, column: NDArray[Any], random: Random) -> NDArray[Any]:
        """Returns the column with every row changed, in the same shape and dtype."""
        raise NotImplementedError


class CharacterNoise(Augmentation, frozen=True, kw_only=True):
    """Typing errors in a ``Text``: a character is dropped, doubled, or swapped with the next one.

    Attributes:
        rate: Probability of each character.
    """

    rate: float = 0.03

    def changed(self, column: NDArray[np.uint8], random: Random) -> NDArray[np.uint8]:
        """Returns the texts with errors."""
        return _rewritten(column, lambda text: self._mistyped(text, random))

    def _mistyped(self, text: str, random: Random) -> str:
        characters, kinds = list(text), random.integers(0, 3, len(text))
        for place in np.flatnonzero(random.random(len(text)) < self.rate).tolist():
            if kinds[place] == 0:
                characters[place] = ""
            elif kinds[place] == 1:
                characters[place] *= 2
            elif place + 1 < len(characters):
                characters[place : place + 2] = characters[place : place + 2][::-1]
        return "".join(characters)


class WordNoise(Augmentation, frozen=True, kw_only=True):
    """Words of a ``Text`` that are dropped, or swapped with the next one; the last one is never dropped.

    Attributes:
        rate: Probability of each word.
    """

    rate: float = 0.1

    def changed(self, column: NDArray[np.uint8], random: Random) -> NDArray[np.uint8]:
        """Returns the texts with words that are missing or misplaced."""
        return _rewritten(column, lambda text: self._misplaced(text, random))

    def _misplaced(self, text: str, random: Random) -> str:
        words = text.split(" ")
        kept, kinds = list(words), random.integers(0, 2, len(words))
        for place in np.flatnonzero(random.random(len(words)) < self.rate).tolist():
            if place + 1 < len(kept):
                if kinds[place] == 0:
                    kept[place] = ""
                else:
                    kept[place : place + 2] = kept[place : place + 2][::-1]
        return " ".join(word for word, was in zip(kept, words, strict=True) if word or not was)


class ImageShift(Augmentation, frozen=True, kw_only=True):
    """Moves an image, shape ``(height, width)`` or ``(height, width, 3)``; its edge goes on where nothing was.

    Attributes:
        pixels: How far at most, in each direction.
    """

    pixels: int = 2

    def changed(self, column: NDArray[np.uint8], random: Random) -> NDArray[np.uint8]:
        """Returns the images, each moved by its own way."""
        height, width = column.shape[1:3]
        down, right = random.integers(-self.pixels, self.pixels + 1, (2, len(column), 1))
        rows = np.clip(np.arange(height) - down, 0, height - 1)[:, :, None]
        columns = np.clip(np.arange(width) - right, 0, width - 1)[:, None, :]
        moved: NDArray[np.uint8] = column[np.arange(len(column))[:, None, None], rows, columns]
        return moved


class ImageFlip(Augmentation, frozen=True, kw_only=True):
    """Mirrors an image, left to right; by default one in two."""

    share: float = 0.5

    def changed(self, column: NDArray[np.uint8], random: Random) -> NDArray[np.uint8]:
        """Returns the images mirrored."""
        return column[:, :, ::-1]


class ImageLight(Augmentation, frozen=True, kw_only=True):
    """Another brightness and contrast of an image of ``uint8``.

    Attributes:
        brightness: How much brighter or darker at most, as a part of 255.
        contrast: How much more or less contrast at most, as a part of what there is.
    """

    brightness: float = 0.2
    contrast: float = 0.2

    def changed(self, column: NDArray[np.uint8], random: Random) -> NDArray[np.uint8]:
        """Returns the images, each in its own light."""
        shape = (2, len(column), *[1] * (column.ndim - 1))
        add, factor = random.uniform(-1, 1, shape) * np.array([self.brightness * 255, self.contrast]).reshape(
            2, *[1] * column.ndim
        )
        middle = column.mean(axis=tuple(range(1, column.ndim)), keepdims=True)
        lit = np.clip((column - middle) * (1 + factor) + middle + add, 0, 255)
        return np.asarray(lit.round(), np.uint8)


class SoundLevel(Augmentation, frozen=True, kw_only=True):
    """Another loudness of a sound, whose samples stay within -1 and 1.

    Attributes:
        decibels: How much louder or softer at most.
    """

    decibels: float = 6.0

    def changed(self, column: NDArray[np.float32], random: Random) -> NDArray[np.float32]:
        """Returns the sounds, each in its own loudness."""

        def louder(rows: NDArray[np.float32]) -> NDArray[np.float32]:
            count = 1 if column.dtype == object else len(rows)
            gain = 10 ** (random.uniform(-self.decibels, self.decibels, count) / 20)
            return np.clip(rows * gain.reshape(-1, *[1] * (rows.ndim - 1)), -1, 1).astype(np.float32)

        return each(column, louder)


class SoundNoise(Augmentation, frozen=True, kw_only=True):
    """White noise over a sound.

    Attributes:
        decibels: How loud at most, below the largest loudness that there is.
    """

    decibels: float = -35.0

    def changed(self, column: NDArray[np.float32], random: Random) -> NDArray[np.float32]:
        """Returns the sounds, with noise."""

        def noisier(rows: NDArray[np.float32]) -> NDArray[np.float32]:
            level = 10 ** (self.decibels / 20) * random.random()
            return np.clip(rows + level * random.normal(size=rows.shape), -1, 1).astype(np.float32)

        return each(column, noisier)


def in_turn(changes: Sequence[Augment]) -> Augment | None:
    """Returns what makes all changes, one after the other; ``None`` where there is none."""
    if not changes:
        return None

    def all_of_them(inputs: Arrays, random: Random) -> Arrays:
        for change in changes:
            inputs = change(inputs, random)
        return inputs

    return all_of_them


def _rewritten(column: NDArray[np.uint8], change: Callable[[str], str]) -> NDArray[np.uint8]:
    """Changes texts, which lie in a column as UTF-8 padded with zeros; what no longer fits is cut off."""
    rows = np.zeros_like(column)
    for row, padded in zip(rows, column, strict=True):
        text = change(padded.tobytes().rstrip(b"\0").decode(errors="ignore"))
        data = text.encode()[: len(row)].decode(errors="ignore").encode()
        row[: len(data)] = np.frombuffer(data, np.uint8)
    return rows
