"""The reference: from a flight in the timetable to both answers with ``datetime``, as if there were no bundle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import torch

from models.arrivals.data import CARRIER, DESTINATION, LABELS, ORIGIN
from models.arrivals.network import EARLIEST, LONG, SHORT, SMALLEST_SPREAD, Arrivals
from rollout import Answered, Dataset, Reference

ROWS = 48
NEW_YORK = timezone(timedelta(hours=-5))


def from_timetable(module: torch.nn.Module, dataset: Dataset) -> Reference:
    """Returns flights of the evaluation part, some of them before they left, and their way to both answers."""
    assert isinstance(module, Arrivals)  # noqa: S101
    timetable = module.timetable

    def answer(raw: Mapping[str, Any]) -> Answered:
        moment = datetime.fromisoformat(raw["at"]).astimezone(UTC)
        angle = 2 * math.pi * (moment.date() - date(1970, 1, 1)).days / 365.25
        features = [
            torch.tensor([math.sin(angle), math.cos(angle)], dtype=torch.float32),
            timetable.hours.weight[moment.hour],
            timetable.origins.weight[ORIGIN.values.index(raw["origin"])],
            timetable.destinations.weight[DESTINATION.values.index(raw["destination"])],
            timetable.carriers.weight[CARRIER.values.index(raw["carrier"])],
        ]
        if module.delay.size:
            has_left, minutes = raw["delay"] is not None, raw["delay"] or 0
            scaled = [min(max(minutes, EARLIEST), latest) / latest for latest in (SHORT, LONG)]
            features.append(torch.tensor([not has_left, *scaled], dtype=torch.float32))
        outputs = module.layers(torch.cat(features))
        value, spread = outputs[len(LABELS) :]
        spread = torch.nn.functional.softplus(spread) + SMALLEST_SPREAD
        minutes = torch.stack([module.mean + module.scale * value, module.scale * spread])
        return Answered(torch.cat([outputs[: len(LABELS)], minutes]))

    inputs = dataset.evaluation.inputs
    chosen = np.linspace(0, len(inputs["at"]) - 1, ROWS).astype(int)
    rows = [
        {
            "at": datetime.fromtimestamp(int(inputs["at"][row]), (UTC, NEW_YORK)[number % 2]).isoformat(),
            "delay": None if np.isnan(inputs["delay"][row]) else float(inputs["delay"][row]),
        }
        | {name: inputs[name][row].tobytes().decode() for name in ("origin", "destination", "carrier")}
        for number, row in enumerate(chosen)
    ]
    return Reference(rows, answer)
