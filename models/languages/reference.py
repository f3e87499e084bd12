"""The reference: from a string to an answer in plain Python, byte by byte, as if there were no bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from models.languages.data import LANGUAGES
from models.languages.ngrams import NgramClassifier
from rollout import Answered, Dataset, Reference
from rollout.layers import HASH_BASE, HASH_PRIME

ROWS = 48


def from_strings(module: torch.nn.Module, dataset: Dataset) -> Reference:
    """Returns texts of the evaluation part, some in capitals, and their way to the logits."""
    assert isinstance(module, NgramClassifier)  # noqa: S101
    weight = module.embedding.weight
    sizes, buckets = module.ngrams.sizes, module.ngrams.buckets

    def answer(raw: Mapping[str, Any]) -> Answered:
        found = list(_ngrams(raw["text"], sizes, buckets))
        logits = module.head(weight[found].sum(0) / max(1, len(found)) ** 0.5)
        return Answered(logits, label=LANGUAGES[int(logits.argmax())])

    texts = dataset.evaluation.inputs["text"]
    chosen = texts[np.linspace(0, len(texts) - 1, ROWS).astype(int)]
    strings = [row.tobytes().rstrip(b"\0").decode() for row in chosen]
    rows = [
        {"text": text.upper() if not number % 4 and text.isascii() else text}
        for number, text in enumerate(strings)
    ]
    return Reference(rows, answer)


def _ngrams(text: str, sizes: Sequence[int], buckets: int) -> Iterator[int]:
    """Yields the bucket of every n-gram of a text; ``bytes.lower`` leaves all but ASCII alone."""
    data = text.encode().lower()
    for size in sizes:
        for start in range(len(data) - size + 1):
            hashed = size
            for byte in data[start : start + size]:
                hashed = (hashed * HASH_BASE + byte) % HASH_PRIME
            yield 1 + hashed % (buckets - 1)
