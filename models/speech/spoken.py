"""What both versions share: a word as it is heard, however loud it is, and however long the silence around it."""

from __future__ import annotations

import math

import torch
from torch import nn

from models.speech.data import RATE
from rollout.layers import Mfcc

FRAME, HOP, BANDS, COEFFICIENTS = 200, 80, 26, 13  # 25 ms, each 10 ms
# Of the energy in a band, where the loudest sample is 1.
FLOOR = 1e-3
# The first coefficient of a frame that is heard is above that of silence by more than this.
AUDIBLE = 2.0
LEAST_PEAK = 1e-4
LEAST_DEVIATION = 0.1


class Spoken(nn.Module):
    """The MFCCs of a word, standardised over it.

    The samples are scaled to the same peak. The word lasts from the first frame that is heard to the last one.
    Each coefficient is standardised over it: less is left of the microphone and the voice, and all that changes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mfcc = Mfcc(RATE, COEFFICIENTS, frame=FRAME, hop=HOP, bands=BANDS, floor=FLOOR)
        self.silence = math.log(FLOOR) * math.sqrt(BANDS)

    def forward(
        self, samples: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Finds the word.

        Args:
            samples: ``float32`` of shape ``(rows, samples)``.
            lengths: ``int64`` of shape ``(rows,)``.

        Returns:
            Coefficients, ``float32`` of shape ``(rows, frames, coefficients)``, 0 beside the word; the number of
            each frame in its word, ``int64`` of shape ``(rows, frames)``, below 0 before the word; and how many
            frames each word has, ``int64`` of shape ``(rows, 1)``.
        """
        peak = samples.abs().amax(1, keepdim=True).clamp(min=LEAST_PEAK)
        coefficients, frames = self.mfcc(samples / peak, lengths)
        number = torch.arange(coefficients.shape[1], device=lengths.device).unsqueeze(0)
        is_heard = (coefficients[:, :, 0] > self.silence + AUDIBLE) & (number < frames.unsqueeze(1))
        last = torch.where(is_heard, number, 0).amax(1, keepdim=True)
        first = torch.where(is_heard, number, last).amin(1, keepdim=True)
        place, count = number - first, last - first + 1
        inside = within(place, count)
        centred = (coefficients - (coefficients * inside).sum(1, keepdim=True) / count.unsqueeze(2)) * inside
        deviation = (centred.square().sum(1, keepdim=True) / count.unsqueeze(2)).sqrt()
        return centred / (deviation + LEAST_DEVIATION), place, count


def within(place: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Returns 1 for the frames of a word and 0 for others, shape ``(rows, frames, 1)``."""
    return ((place >= 0) & (place < count)).unsqueeze(2).float()
