"""The data: addresses of the United States and their parts, in three parts of which none share an address."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.bundle.schema import Labelled
from rollout.bundle.texts import Text
from rollout.training.recipe import Dataset

LABELS: tuple[str, ...] = ("number", "street", "unit", "box", "place", "city", "state", "zip")
TEXT = Text(max_bytes=128)
# Made by usaddress.py; who owns it and its licence are in LICENSE.
FILE = Path(__file__).parent / "addresses.jsonl"
SOURCE = "training/labeled.xml of the PyPI package usaddress 0.5.16, models/addresses/addresses.jsonl"
SPLIT_RULE = (
    "SHA-256 of the number and the longest word of the street, or of the whole address where it lacks one, "
    "modulo 5: 0 calibration, 1 evaluation, the rest train"
)


class Span(NamedTuple):
    """A part of an address: what it is, and the characters from ``start`` to before ``end``."""

    label: str
    start: int
    end: int


class Address(NamedTuple):
    """An address as somebody wrote it, and its parts in order; none overlap."""

    text: str
    spans: list[Span]


def load() -> Dataset:
    """Loads the addresses and splits them; those of the same number and street are in the same part."""
    parts: list[list[Address]] = [[], [], []]
    for address in addresses():
        parts[part_of(address)].append(address)
    train, calibration, evaluation = map(_to_arrays, parts)
    return Dataset(train, calibration, evaluation, SOURCE, SPLIT_RULE)


def addresses() -> list[Address]:
    """Returns all addresses, in the order of the file."""
    lines = (json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines())
    return [Address(text, [Span(*span) for span in spans]) for text, spans in lines]


def part_of(address: Address) -> int:
    """Returns 0 for the training part, 1 for calibration and 2 for evaluation."""
    digest = hashlib.sha256(place_of(address).encode()).digest()
    return {0: 1, 1: 2}.get(int.from_bytes(digest) % 5, 0)


def place_of(address: Address) -> str:
    """Returns the number and the longest word of the street, or the whole address where it lacks one of them."""
    written = dict.fromkeys(LABELS, "")
    for span in address.spans:
        written[span.label] += f" {address.text[span.start : span.end]}"
    street = max(written["street"].split(), key=len, default="")
    place = written["number"] + street if written["number"] and street else address.text
    return "".join(character for character in place.casefold() if character.isalnum())


def tags_of(address: Address) -> NDArray[np.int64]:
    """Returns what each character of an address is part of, 0 for outside; shape ``(max_bytes,)``."""
    tags = np.zeros(TEXT.max_bytes, np.int64)
    for span in address.spans:
        tags[span.start : span.end] = 1 + LABELS.index(span.label)
    return tags


def _to_arrays(part: list[Address]) -> Labelled:
    texts = TEXT.encode([address.text for address in part])
    return Labelled({"text": texts}, np.stack([tags_of(address) for address in part]))
