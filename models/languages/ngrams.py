"""What both versions share: a network over hashed n-grams, and how it is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rollout.bundle.schema import Labelled
from rollout.layers import HashedNgrams

SHORTEST_EXCERPT = 8


class NgramClassifier(nn.Module):
    """Adds up the embeddings of a text's n-grams and lets the head tell the language.

    Args:
        sizes: Lengths of the n-grams, in bytes.
        buckets: Number of buckets that they are hashed to.
        dim: Length of an embedding.
        head: Turns ``float32`` of shape ``(rows, dim)`` into logits.
    """

    def __init__(self, sizes: Sequence[int], buckets: int, dim: int, head: nn.Module) -> None:
        super().__init__()
        self.ngrams = HashedNgrams(sizes, buckets)
        self.embedding = nn.Embedding(buckets, dim, padding_idx=0)
        self.head = head
        with torch.no_grad():
            self.embedding.weight.mul_(0.1)  # what training never saw should say little

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Takes ``uint8`` of shape ``(rows, max_bytes)``; returns logits of shape ``(rows, languages)``."""
        ngrams = self.ngrams(text)
        count = (ngrams > 0).sum(1, keepdim=True).clamp(min=1)
        # Between the sum and the mean: more text is more evidence, but n-grams repeat each other.
        logits: torch.Tensor = self.head(self.embedding(ngrams).sum(1) / count.sqrt())
        return logits


def fit(model: NgramClassifier, part: Labelled, hyperparameters: Mapping[str, Any]) -> NgramClassifier:
    """Trains the network on the texts and on excerpts of them, and returns it in eval mode."""
    model.train()
    texts, languages = torch.from_numpy(part.inputs["text"]), torch.from_numpy(part.targets)
    epochs: int = hyperparameters["epochs"]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=hyperparameters["learning_rate"], weight_decay=hyperparameters["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(texts)).split(hyperparameters["batch"]):
            loss = nn.functional.cross_entropy(model(_excerpts(texts[rows])), languages[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def _excerpts(texts: torch.Tensor) -> torch.Tensor:
    """Cuts a run of bytes out of about half the texts, and returns no more columns than the longest needs."""
    lengths = (texts > 0).sum(1, keepdim=True)
    share = (2 * torch.rand(lengths.shape)).clamp(max=1)
    kept = (SHORTEST_EXCERPT + share * (lengths - SHORTEST_EXCERPT)).long()
    starts = (torch.rand(lengths.shape) * (lengths - kept + 1)).long()
    columns = torch.arange(int(kept.max()))
    moved = texts.gather(1, (starts + columns).clamp(max=texts.shape[1] - 1))
    return torch.where(columns < kept, moved, 0)
