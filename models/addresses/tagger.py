"""What both versions share: a network that reads words letter by letter and tells their parts; its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from models.addresses.data import LABELS
from rollout.bundle.schema import Labelled

# Of an address; what comes behind the last of them is outside.
WORDS = 32
BETWEEN = tuple(b" ,;\0")
LEAST = 1e-6


class Tagger(nn.Module):
    """Reads each word letter by letter, lets words look at each other, and tells what each letter is part of.

    All letters of a word are part of the same. What is between two words, spaces and commas, is of a part as far
    as both words are: ``min(p, q)`` of their probabilities, and outside with the rest.

    Args:
        dim: Length of the vector of a byte.
        channels: Length of that of a word.
        convolutions: How many go over the letters.
        context: Takes words, ``float32`` of shape ``(rows, words, channels)``, and 1 where there is one, of shape
            ``(rows, words, 1)``; returns ``(rows, words, size)``.
        size: As the context returns.
        dropout: Share of features that training leaves out.
    """

    def __init__(
        self, dim: int, channels: int, convolutions: int, context: nn.Module, size: int, dropout: float
    ) -> None:
        super().__init__()
        self.bytes = nn.Embedding(256, dim)
        self.letters = nn.ModuleList(
            nn.Conv1d(channels if number else dim, channels, 5, padding=2) for number in range(convolutions)
        )
        self.word = nn.Linear(channels, channels)
        self.context = context
        self.dropout = nn.Dropout(dropout)
        self.part = nn.Linear(size, 1 + len(LABELS))

    def forward(self, text: torch.Tensor) -> dict[str, torch.Tensor]:
        """Tags a text.

        Args:
            text: ``uint8`` of shape ``(rows, bytes)``.

        Returns:
            ``logits`` of outside and of each label for each byte, ``float32`` of shape
            ``(rows, bytes, 1 + labels)``, and the ``text`` itself.
        """
        is_between = torch.zeros_like(text, dtype=torch.bool)
        for byte in BETWEEN:
            is_between = is_between | (text == byte)
        begins = ~is_between & nn.functional.pad(is_between[:, :-1], (1, 0), value=True)
        number = begins.long().cumsum(1)  # of the word that a byte is in, or behind; from 1
        reached = (number.unsqueeze(2) == torch.arange(1, WORDS + 1, device=text.device)).float()
        inside = (~is_between).float().unsqueeze(2)
        words, there = self._words(text, reached * inside)
        logits = self.part(self.dropout(self.context(words, there)))
        # Of the word before and of the one behind, 0 where there is none.
        chances = logits.softmax(2)[:, :, 1:] * there
        both = torch.minimum(reached @ chances, reached @ nn.functional.pad(chances, (0, 0, 0, 1))[:, 1:])
        between = torch.cat([1 - both.sum(2, keepdim=True), both], 2).clamp(min=LEAST).log()
        return {"logits": torch.where(is_between.unsqueeze(2), between, reached @ logits), "text": text}

    def _words(self, text: torch.Tensor, belongs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns words and whether they are there, of which bytes belong to which, ``(rows, bytes, words)``."""
        is_there = (text > 0).unsqueeze(1).float()
        letters = self.bytes(text.long()).transpose(1, 2) * is_there
        for number, convolution in enumerate(self.letters):
            heard = convolution(self.dropout(letters)).relu() * is_there
            letters = letters + heard if number else heard
        count = belongs.sum(1).unsqueeze(2)
        means = (letters @ belongs).transpose(1, 2) / count.clamp(min=1)
        there = count.clamp(max=1)
        return self.word(self.dropout(means)).relu() * there, there


def fit(model: Tagger, part: Labelled, hyperparameters: Mapping[str, Any]) -> Tagger:
    """Trains the network, some addresses in capitals or in small letters, and returns it in eval mode."""
    model.train()
    texts = torch.from_numpy(part.inputs["text"])
    tags = tags_of_bytes(torch.from_numpy(part.targets), texts)
    epochs: int = hyperparameters["epochs"]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=hyperparameters["learning_rate"], weight_decay=hyperparameters["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(texts)).split(hyperparameters["batch"]):
            chosen = _other_case(texts[rows], hyperparameters["other_case"])
            chosen = chosen[:, : int((chosen > 0).sum(1).max())]
            is_there = chosen > 0
            logits = model(chosen)["logits"]
            loss = nn.functional.cross_entropy(logits[is_there], tags[rows, : chosen.shape[1]][is_there])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def tags_of_bytes(tags: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Returns the tag of the character that each byte is of; both of shape ``(rows, bytes)``."""
    begins = (texts & 0b1100_0000) != 0b1000_0000  # UTF-8: other bytes go on with a character
    return tags.gather(1, begins.long().cumsum(1) - 1)


def _other_case(texts: torch.Tensor, share: float) -> torch.Tensor:
    """Writes a share of the texts in capitals, and as many in small letters: ASCII alone, as it keeps places."""
    drawn = torch.rand(len(texts), 1)
    capitals = torch.where((texts >= ord("a")) & (texts <= ord("z")), texts - 32, texts)
    small = torch.where((texts >= ord("A")) & (texts <= ord("Z")), texts + 32, texts)
    return torch.where(drawn < share, capitals, torch.where(drawn < 2 * share, small, texts))
