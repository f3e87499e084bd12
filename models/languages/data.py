"""The data: Django's English messages and their translations, in three parts that are the same everywhere."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rollout.bundle.schema import Labelled
from rollout.bundle.texts import Text
from rollout.errors import ConfigError
from rollout.training.recipe import Dataset

LANGUAGES: tuple[str, ...] = ("de", "en", "es", "fr", "it", "nl", "pl", "pt", "sv")
TEXT = Text(max_bytes=256)
SOURCE = "message catalogues of the PyPI package django"
SPLIT_RULE = "SHA-256 of the English message modulo 5: 0 calibration, 1 evaluation, the rest train"
MIN_WORDS = 2
MIN_LETTERS = 12

# Placeholders such as %(name)s, %d, {count} and HH:MM[:ss], HTML tags and entities.
NO_LANGUAGE = re.compile(r"%\(\w+\)\w|%[a-z]\b|\{[^}]*\}|\S*[\[\]]\S*|<[^>]*>|&\w+;")


class Message(NamedTuple):
    """A text, the letters of the English message that it translates or is, and its language."""

    text: str
    original: str
    language: str


def load() -> Dataset:
    """Loads the messages and splits them; all translations of a message are in the same part."""
    parts: list[list[Message]] = [[], [], []]
    for message in messages():
        parts[part_of(message)].append(message)
    train, calibration, evaluation = map(_to_arrays, parts)
    return Dataset(train, calibration, evaluation, SOURCE, SPLIT_RULE)


def messages() -> list[Message]:
    """Returns once each message that is neither too short nor too long, and found in one language only."""
    found: dict[str, dict[str, Message]] = defaultdict(dict)
    for message in _catalogue_messages():
        letters = _letters(message.text)
        long_enough = len(letters) >= MIN_LETTERS and len(message.text.split()) >= MIN_WORDS
        if long_enough and len(message.text.encode()) <= TEXT.max_bytes:
            found[letters].setdefault(message.language, message)
    return [next(iter(languages.values())) for languages in found.values() if len(languages) == 1]


def part_of(message: Message) -> int:
    """Returns 0 for the training part, 1 for calibration and 2 for evaluation."""
    digest = hashlib.sha256(message.original.encode()).digest()
    return {0: 1, 1: 2}.get(int.from_bytes(digest) % 5, 0)


def _catalogue_messages() -> Iterator[Message]:
    spec = importlib.util.find_spec("django")
    if spec is None or spec.origin is None:
        raise ConfigError("the messages are those of django: pip install 'rollout[demo]'")
    django = Path(spec.origin).parent
    for language in LANGUAGES:
        for catalogue in sorted(django.glob(f"**/locale/{language}/LC_MESSAGES/*.mo")):
            for english, translated in _read_catalogue(catalogue):
                original = _letters(_clean(english[0]))
                yield from (Message(_clean(text), original, "en") for text in english)
                yield from (Message(_clean(text), original, language) for text in translated)


def _read_catalogue(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Yields the forms of each message, singular and plural, in English and translated.

    The format is that of https://www.gnu.org/software/gettext/manual/html_node/MO-Files.html.
    """
    data = path.read_bytes()
    count, *tables = struct.unpack_from("<8x3I", data)
    pairs = (struct.iter_unpack("<2I", data[table : table + 8 * count]) for table in tables)
    for lengths_and_offsets in zip(*pairs, strict=True):
        english, translated = (data[at : at + length].decode() for length, at in lengths_and_offsets)
        if english:  # the empty message carries the headers of the file
            yield english.split("\4")[-1].split("\0"), translated.split("\0")


def _clean(text: str) -> str:
    return " ".join(NO_LANGUAGE.sub(" ", text).split())


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalpha())


def _to_arrays(part: list[Message]) -> Labelled:
    texts = TEXT.encode([message.text for message in part])
    return Labelled({"text": texts}, np.array([LANGUAGES.index(message.language) for message in part]))
