"""The reference: from a string to tags in plain Python, word by word, as if there were no bundle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from models.addresses.data import LABELS, TEXT
from models.addresses.tagger import LEAST, WORDS, Tagger
from rollout import Answered, Dataset, Reference

ROWS = 48
WORD = re.compile(rb"[^ ,;]+")


def from_strings(module: torch.nn.Module, dataset: Dataset) -> Reference:
    """Returns addresses of the evaluation part, some written otherwise, and their way to the logits."""
    assert isinstance(module, Tagger)  # noqa: S101

    def answer(raw: Mapping[str, Any]) -> Answered:
        data = raw["text"].encode()
        letters = module.bytes.weight[list(data)].T
        for number, convolution in enumerate(module.letters):
            heard = convolution(letters).relu()
            letters = letters + heard if number else heard
        places = [word.span() for word in WORD.finditer(data)]
        means = [letters[:, start:end].mean(1) for start, end in places]
        words = torch.zeros(WORDS, letters.shape[0])
        words[: len(means)] = module.word(torch.stack(means)).relu()
        there = (torch.arange(WORDS) < len(means)).float().unsqueeze(1)
        of_words = module.part(module.context(words[None], there[None])[0])[: len(means)]
        chances = of_words.softmax(1)
        outside = torch.tensor([1.0] + [LEAST] * len(LABELS)).log()
        logits = outside.repeat(TEXT.max_bytes, 1)
        for number, (start, end) in enumerate(places):
            logits[start:end] = of_words[number]
            if number:
                both = torch.minimum(chances[number - 1], chances[number])[1:].clamp(min=LEAST)
                logits[places[number - 1][1] : start] = torch.cat([1 - both.sum(0, keepdim=True), both]).log()
        text = torch.zeros(TEXT.max_bytes)
        text[: len(data)] = torch.tensor(list(data))
        return Answered(torch.cat([logits.flatten(), text]))

    texts = dataset.evaluation.inputs["text"]
    chosen = texts[np.linspace(0, len(texts) - 1, ROWS).astype(int)]
    strings = [row.tobytes().rstrip(b"\0").decode() for row in chosen]
    written = (str, str.upper, lambda text: f" {text.replace(' ', '  ', 2)}")
    return Reference([{"text": written[number % 3](text)} for number, text in enumerate(strings)], answer)
