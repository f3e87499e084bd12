"""A tiny model that finds names, which are in capitals, and numbers, byte by byte; and texts for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rollout import Labelled, Span, Text, TokenLabels, Truth

WIDTH = 40
TEXT = Text(max_bytes=WIDTH)
HEAD = TokenLabels(labels=["name", "number"], positions=WIDTH, risk=0.05)
WORDS = ["ich", "café", "日本", "😀", "und", "naïve"]
NAMES = ["ANA", "BOB", "ZOÉ", "Q"]
NUMBERS = ["7", "12", "１３"]


class Tagger(nn.Module):
    """Tags each byte by itself: capitals are names, digits are numbers, and of Q it is not sure.

    Of É and of full-width digits the first byte is known by those after it.

    Args:
        wrong: What it does wrong: ``text`` is another one, or ``alone``, without it.
    """

    def __init__(self, wrong: str = "") -> None:
        super().__init__()
        self.wrong = wrong
        characters = [chr(byte) for byte in range(128)]
        names = [8.0 * one.isupper() for one in characters] + [0.0] * 128 + [8.0, 0.0]
        numbers = [8.0 * one.isdigit() for one in characters] + [0.0] * 128 + [0.0, 8.0]
        names[ord("Q")] = 4.5
        outside = [4.0 * (name in (0, 4.5) and not number) for name, number in zip(names, numbers, strict=True)]
        outside[-2:] = [-4.0, -4.0]
        self.tags = nn.Linear(258, 3, bias=False)
        self.tags.weight.data = torch.tensor([outside, names, numbers])

    def forward(self, text: torch.Tensor) -> Any:
        """Returns logits and the text."""
        one, two = (nn.functional.pad(text, (0, step))[:, step:] for step in (1, 2))
        accent = (text == 0xC3) & (one == 0x89)
        wide = (text == 0xEF) & (one == 0xBC) & (two >= 0x90) & (two <= 0x99)
        bytes_of = nn.functional.one_hot(text.long(), 256).float()
        logits = self.tags(torch.cat([bytes_of, torch.stack([accent, wide], 2).float()], 2))
        if self.wrong == "alone":
            return logits
        return logits, torch.where(text > 0, 1 + text % 254, text) if self.wrong == "text" else text


def sentences(rows: int, seed: int) -> tuple[list[str], list[Truth]]:
    """Returns texts and their spans; half of the names Q are none."""
    rng = np.random.default_rng(seed)
    texts, truths = [], []
    for _ in range(rows):
        text, spans = "", []
        for _ in range(rng.integers(1, 5)):
            label, words = [("", WORDS), ("name", NAMES), ("number", NUMBERS)][rng.integers(3)]
            word = words[rng.integers(len(words))]
            if label and (word != "Q" or rng.integers(2)):
                spans.append(Span(len(text), len(text) + len(word), label))
            text += word + " "
        texts.append(text)
        truths.append(Truth(spans=spans))
    return texts, truths


def part(rows: int, seed: int, head: TokenLabels = HEAD) -> Labelled:
    """Returns them as a part."""
    texts, truths = sentences(rows, seed)
    return Labelled({"text": TEXT.encode(texts)}, head.targets(truths))


def outputs(part: Labelled) -> NDArray[np.float32]:
    """Returns what the model gives, side by side as one table."""
    with torch.no_grad():
        given = Tagger()(torch.from_numpy(part.inputs["text"]))
    return np.concatenate([each.numpy().reshape(len(part.targets), -1) for each in given], 1).astype(np.float32)
