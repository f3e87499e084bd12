"""A tabular model of which much may be missing, packed in a second, and what it makes of raw rows by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from rollout import Category, Classification, Labelled, Number, Table, Tensor, Time, pack
from rollout.bundle.fields import Field
from rollout.bundle.manifest import Manifest
from rollout.bundle.schema import Arrays
from rollout.bundle.source import to_tensors
from rollout.bundle.store import bundle_exists, open_bundle
from rollout.layers import CategoryIndex, FillMissing

DECKS = ("A", "B", "C")
PORTS = ("Cherbourg", "Queenstown", "Southampton", "elsewhere")
FIELDS: dict[str, Field] = {
    "row": Table(
        columns={
            "age": Number(minimum=0, maximum=120, optional=True),
            "class": Number(minimum=1, maximum=3),
            "sex": Category(values=("female", "male")),
            "port": Category(values=PORTS, other="elsewhere", optional=True),
        }
    ),
    "fare": Number(minimum=0, maximum=600, default=14.5),
    "deck": Category(values=DECKS, optional=True),
    "boarded": Time(optional=True),
    "past": Tensor(shape=(2,), nan=True, minimum=-9, maximum=9),
}
# As a file has them, a column each; what is missing is None.
RAW: list[dict[str, Any]] = [
    {"age": 36, "class": 1, "sex": "female", "port": "Southampton", "fare": 70.5, "deck": "B",
     "boarded": "1912-04-10T12:00:00Z", "past": [0.5, -2]},
    {"age": None, "class": 3, "sex": "male", "port": None, "fare": None, "deck": None, "boarded": None,
     "past": [None, 1]},
    {"age": 0.75, "class": 2, "sex": "male", "port": "Belfast, Titanic's own", "fare": 0, "deck": "C",
     "boarded": None, "past": [None, None]},
    {"age": None, "class": 1, "sex": "female", "port": "elsewhere", "fare": 512.25, "deck": None,
     "boarded": "1912-04-11T09:30:00+01:00", "past": [-9, 9]},
]  # fmt: skip


class Passengers(nn.Module):
    """Weighs what is there and what is missing; nobody has trained it."""

    def __init__(self) -> None:
        super().__init__()
        self.fill = FillMissing([29.0, 1.0, 0.0, float(len(PORTS))])
        self.time, self.past = FillMissing(-1_821_355_200), FillMissing([0.5, -0.5], learn=True)
        self.deck = CategoryIndex((*DECKS, ""))
        self.ports, self.decks = nn.Embedding(len(PORTS) + 1, 3), nn.Embedding(len(DECKS) + 1, 2)
        self.head = nn.Linear(19, 2)

    def forward(
        self, row: torch.Tensor, fare: torch.Tensor, deck: torch.Tensor, boarded: torch.Tensor, past: torch.Tensor
    ) -> torch.Tensor:
        """Returns logits."""
        row, no_cell = self.fill(row)
        boarded, no_time = self.time(boarded)
        past, no_past = self.past(past)
        hour = (boarded % 86_400).float() / 86_400
        known = [row[:, :3] / 30, fare[:, None] / 100, hour[:, None], past, self.ports(row[:, 3].long())]
        masks = [no_cell.float(), no_time[:, None].float(), no_past.float()]
        logits: torch.Tensor = self.head(torch.cat([*known, self.decks(self.deck(deck)), *masks], 1))
        return logits


def passengers() -> Passengers:
    """Makes the model, the same each time."""
    torch.manual_seed(1912)
    return Passengers().eval()


def inputs_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a row of a file."""
    table = FIELDS["row"].parts
    return {"row": {name: raw[name] for name in table}, **{name: raw[name] for name in FIELDS if name != "row"}}


def encode(rows: Sequence[Mapping[str, Any]]) -> Arrays:
    """What training code makes of rows of a file."""
    inputs = [inputs_of(row) for row in rows]
    return {name: field.encode([row[name] for row in inputs]) for name, field in FIELDS.items()}


def draw(rows: int, seed: int) -> Labelled:
    """Draws rows with gaps, with what the model says of them as the truth."""
    pick = np.random.default_rng(seed)

    def maybe(value: Any) -> Any:
        return None if pick.random() < 0.3 else value

    raw = [
        {
            "age": maybe(float(pick.uniform(0, 90))),
            "class": int(pick.integers(1, 4)),
            "sex": str(pick.choice(["female", "male"])),
            "port": maybe(str(pick.choice([*PORTS, "Belfast"]))),
            "fare": maybe(float(pick.gamma(1, 30))),
            "deck": maybe(str(pick.choice(DECKS))),
            "boarded": maybe(f"1912-04-10T{pick.integers(24):02}:00:00Z"),
            "past": [maybe(float(one)) for one in pick.normal(size=2)],
        }
        for _ in range(rows)
    ]
    inputs = encode(raw)
    with torch.inference_mode():
        return Labelled(inputs, passengers()(*to_tensors(inputs)).argmax(-1).numpy())


def pack_passengers(module: nn.Module | None = None, **changes: Any) -> Manifest:
    """Packs ``passengers:v1``, unless other tests of this process did."""
    arguments: dict[str, Any] = {
        "name": "passengers",
        "version": "v1",
        "inputs": FIELDS,
        "task": Classification(labels=["lost", "saved"]),
        "calibration": draw(500, 1),
        "evaluation": draw(200, 2),
    }
    arguments |= changes
    if bundle_exists(tag := f"{arguments['name']}:{arguments['version']}"):
        return open_bundle(tag)[1]
    return pack(module or passengers(), **arguments)


def scores_by_itself(manifest: Manifest, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """What the module itself says of rows, at the temperature of its bundle."""
    assert isinstance(manifest.task, Classification)
    with torch.inference_mode():
        logits = passengers()(*to_tensors(encode(rows)))
    scores = torch.softmax(logits / manifest.task.temperature, -1)
    return [dict(zip(manifest.task.labels, row, strict=True)) for row in scores.tolist()]
