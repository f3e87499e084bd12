"""The reference: from a time and an airport to an answer with ``datetime``, as if there were no bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import torch

from models.departures.data import ORIGIN
from models.departures.network import SMALLEST_SPREAD, Departures
from rollout import Answered, Dataset, Reference

ROWS = 48
NEW_YORK = timezone(timedelta(hours=-5))


def from_times(
    day_of: Callable[[datetime], int],
) -> Callable[[torch.nn.Module, Dataset], Reference]:
    """Returns what makes the reference of a version.

    Args:
        day_of: What the version knows of a day.
    """

    def make(module: torch.nn.Module, dataset: Dataset) -> Reference:
        assert isinstance(module, Departures)  # noqa: S101

        def answer(raw: Mapping[str, Any]) -> Answered:
            moment = datetime.fromisoformat(raw["at"]).astimezone(UTC)
            origin = ORIGIN.values.index(raw["origin"])
            parts = [
                module.days.weight[day_of(moment)],
                module.hours.weight[moment.hour],
                module.origins.weight[origin],
            ]
            value, spread = module.layers(torch.cat(parts))
            positive = torch.nn.functional.softplus(spread) + SMALLEST_SPREAD
            return Answered(torch.stack([module.mean + module.scale * value, module.scale * positive]))

        inputs = dataset.evaluation.inputs
        chosen = np.linspace(0, len(inputs["at"]) - 1, ROWS).astype(int)
        rows = [
            {
                "at": datetime.fromtimestamp(int(inputs["at"][row]), (UTC, NEW_YORK)[row % 2]).isoformat(),
                "origin": inputs["origin"][row].tobytes().decode(),
            }
            for row in chosen
        ]
        return Reference(rows, answer)

    return make
