"""A tiny model of each kind, packed by ``pack``, and one service that answers with all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rollout import (
    Classification,
    Embedding,
    Heads,
    Labelled,
    MultiLabel,
    Quantiles,
    Score,
    Targets,
    Tensor,
    pack,
    targets_of,
)
from rollout.bundle.fields import Field
from rollout.bundle.manifest import Manifest
from rollout.bundle.store import bundle_exists, open_bundle
from rollout.config import Settings
from rollout.embedded import running_redis
from rollout.heads import Head
from rollout.review.policy import ReviewPolicy, write_policy
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.store import connect
from tests.conftest import Service, free_port, run_service

WIDTH = 4
HOST = "127.0.0.1"
LETTERS = ["a", "b", "c", "d"]


class Columns(torch.nn.Module):
    """Gives some columns of ``x`` as they are, times a factor."""

    def __init__(self, *columns: int, scale: float = 1.0) -> None:
        super().__init__()
        weights = torch.zeros(len(columns), WIDTH)
        weights[range(len(columns)), list(columns)] = scale
        self.linear = torch.nn.Linear(WIDTH, len(columns), bias=False)
        self.linear.weight = torch.nn.Parameter(weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns ``(rows, columns)``."""
        given: torch.Tensor = self.linear(x)
        return given


class Around(torch.nn.Module):
    """Gives the third column of ``x`` and what lies around it."""

    offsets: torch.Tensor

    def __init__(self, *offsets: float) -> None:
        super().__init__()
        self.register_buffer("offsets", torch.tensor(offsets))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns ``(rows, offsets)``."""
        return x[:, 2:3] + self.offsets


class Several(torch.nn.Module):
    """Gives what several modules give."""

    def __init__(self, *modules: torch.nn.Module) -> None:
        super().__init__()
        self.each = torch.nn.ModuleList(modules)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns a tensor of each."""
        return tuple(module(x) for module in self.each)


class Tiny(NamedTuple):
    """A tiny model.

    Attributes:
        head: What it answers with.
        module: What is packed.
        rows: Makes so many rows, with their targets.
        truth: What people say of an answer of it; nothing where it is never right or wrong.
        inputs: Its input schema.
    """

    head: Head
    module: Callable[[], torch.nn.Module]
    rows: Callable[[np.random.Generator, int], Labelled]
    truth: Mapping[str, Any]
    inputs: Mapping[str, Field] = {"x": Tensor(shape=(WIDTH,))}


class Running(NamedTuple):
    """A service with all tiny models.

    Attributes:
        service: It.
        http: Host and port for clients of the Open Inference Protocol.
        grpc: Likewise over gRPC.
        manifests: By model.
    """

    service: Service
    http: str
    grpc: str
    manifests: Mapping[str, Manifest]


def noise(generator: np.random.Generator, rows: int) -> NDArray[np.float32]:
    """Returns normal numbers of shape ``(rows, WIDTH)``."""
    return generator.normal(size=(rows, WIDTH)).astype(np.float32)


def tags(generator: np.random.Generator, rows: int) -> Labelled:
    """Labels of which each holds the more likely the larger its column is."""
    x = noise(generator, rows)
    return Labelled({"x": x}, generator.random((rows, 3)) < 1 / (1 + np.exp(-6 * x[:, :3])))


def letters(generator: np.random.Generator, rows: int) -> Labelled:
    """One of four classes, with the probabilities that the module gives."""
    x = noise(generator, rows)
    return Labelled({"x": x}, (3 * x + generator.gumbel(size=x.shape)).argmax(1))


def pairs(generator: np.random.Generator, rows: int) -> Labelled:
    """Two numbers a row, with noise."""
    x = noise(generator, rows)
    return Labelled({"x": x}, x[:, :2] + generator.normal(size=(rows, 2)) * [0.1, 1.0])


def sums(generator: np.random.Generator, rows: int) -> Labelled:
    """A number a row, with noise."""
    x = noise(generator, rows)
    return Labelled({"x": x}, x[:, 2] + generator.normal(size=rows) * 0.5)


def vectors(generator: np.random.Generator, rows: int) -> Labelled:
    """Vectors with noise."""
    x = noise(generator, rows)
    return Labelled({"x": x}, x[:, :3] + generator.normal(size=(rows, 3)).astype(np.float32))


def everything(generator: np.random.Generator, rows: int) -> Labelled:
    """Targets of all heads."""
    x = noise(generator, rows)
    return Labelled(
        {"x": x},
        targets_of(
            letter=(3 * x + generator.gumbel(size=x.shape)).argmax(1),
            topics=generator.random((rows, 3)) < 1 / (1 + np.exp(-6 * x[:, :3])),
            prices=x[:, :2] + generator.normal(size=(rows, 2)),
            size=x[:, 2] + generator.normal(size=rows) * 0.5,
            rank=x[:, 2],
        ),
    )


TINY: dict[str, Tiny] = {
    "tiny-topics": Tiny(
        MultiLabel(labels=["food", "sport", "travel"], risk=0.2, thresholds={"sport": 0.4}),
        lambda: Columns(0, 1, 2, scale=6),
        tags,
        {"labels": ["food", "travel"]},
    ),
    "tiny-best": Tiny(
        Classification(labels=LETTERS, risk=0.5, best=2, alpha=0.2),
        lambda: Columns(0, 1, 2, 3, scale=3),
        letters,
        {"label": "b"},
    ),
    "tiny-targets": Tiny(
        Targets(names=["low", "high"], joint=True, widest={"high": 9.0}),
        lambda: Columns(0, 1),
        pairs,
        {"values": {"low": 0.5, "high": 2.0}},
    ),
    "tiny-quantiles": Tiny(
        Quantiles(levels=[0.1, 0.5, 0.9], widest=9.0),
        lambda: Around(-1.0, 0.0, 1.0),
        sums,
        {"value": 0.5},
    ),
    "tiny-embedding": Tiny(
        Embedding(size=3, encoding="base64"), lambda: Columns(0, 1, 2), vectors, {"vector": [0.5, 1.0, 0.0]}
    ),
    "tiny-heads": Tiny(
        Heads(
            heads={
                "letter": Classification(labels=LETTERS, risk=0.5, alpha=0.2),
                "topics": MultiLabel(labels=["food", "sport", "travel"], risk=0.2),
                "prices": Targets(names=["low", "high"]),
                "size": Quantiles(levels=[0.1, 0.5, 0.9]),
                "rank": Score(),
            },
            judged_by="topics",
        ),
        lambda: Several(
            Columns(0, 1, 2, 3, scale=3),
            Columns(0, 1, 2, scale=6),
            Columns(0, 1),
            Around(-1.0, 0.0, 1.0),
            Columns(2),
        ),
        everything,
        {"heads": {"prices": {"values": {"low": 0.5, "high": 2.0}}, "topics": {"labels": ["sport"]}}},
    ),
    "tiny-score": Tiny(Score(), lambda: Columns(2), sums, {"value": 3.0}),
}


def pack_tiny(name: str, rows: int = 300) -> Manifest:
    """Packs one of them as ``v1``, unless other tests of this process did."""
    if bundle_exists(f"{name}:v1"):
        return open_bundle(f"{name}:v1")[1]
    tiny = TINY[name]
    calibration, evaluation = (tiny.rows(np.random.default_rng(seed), rows) for seed in (0, 1))
    return pack(
        tiny.module().eval(),
        name=name,
        version="v1",
        inputs=dict(tiny.inputs),
        task=tiny.head,
        calibration=calibration,
        evaluation=evaluation,
    )


@contextmanager
def running_tiny(home: Path) -> Iterator[Running]:
    """Packs all, and serves them; every answer goes to review."""
    manifests = {name: pack_tiny(name) for name in TINY}
    port = free_port()
    with running_redis(Settings(home=home / "valkey")) as url:

        async def prepare() -> None:
            redis = await connect(url)
            for name in TINY:
                await write_split(redis, name, Split(revision=0, champion="v1"))
                await write_policy(redis, name, ReviewPolicy(audit=1))
            await redis.aclose()

        asyncio.run(prepare())
        options = {"ROLLOUT_REDIS_URL": url, "ROLLOUT_WORKERS": "1", "ROLLOUT_GRPC_PORT": str(port)}
        with run_service(home / "service", None, **options) as service:
            yield Running(service, service.base.removeprefix("http://"), f"{HOST}:{port}", manifests)
