"""Packing and serving the kinds, and asking for their answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.special
from numpy.typing import NDArray

from rollout import Classification, Labelled, Regression, pack
from rollout.bundle.manifest import Manifest
from rollout.bundle.store import bundle_path
from rollout.config import Settings
from rollout.embedded import running_redis
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.store import connect
from tests.conftest import Service, run_service
from tests.kinds.kinds import Kind, encode, raw_rows

ROWS = 100


class Packed(NamedTuple):
    """What became of a kind.

    Attributes:
        manifest: Of its bundle.
        seconds: How long packing took the processor.
        sizes: Bytes of each variant.
        answer: What answers raw rows in Python, made anew and not from what was packed.
    """

    manifest: Manifest
    seconds: float
    sizes: dict[str, int]
    answer: Callable[[list[dict[str, Any]]], NDArray[np.float32]]


def pack_kind(name: str, kind: Kind) -> Packed:
    """Packs a kind as ``name:v1``, on rows whose targets are what it answers itself."""
    parts, answer = [], kind.model()
    for seed in (0, 1):
        rows = raw_rows(kind.inputs, ROWS, seed)
        given, inputs = answer(rows), encode(kind.inputs, rows)
        noise = np.random.default_rng(seed).normal(size=len(given)) * 0.1
        targets = given.argmax(1) if kind.labels else given.reshape(len(given), -1)[:, 0] + noise
        parts.append(Labelled(inputs, targets))
    task = Classification(labels=[f"label-{index}" for index in range(kind.labels)], risk=0.1)
    module, estimator = (kind.module(), None) if kind.fit is None else (None, kind.estimator())
    started = time.process_time()
    manifest = pack(
        module,
        artefact=estimator,
        name=name,
        version="v1",
        inputs=kind.inputs,
        task=task if kind.labels else Regression(),
        calibration=parts[0],
        evaluation=parts[1],
    )
    seconds = time.process_time() - started
    folder = bundle_path(manifest.tag)
    sizes = {variant: (folder / one.file).stat().st_size for variant, one in manifest.variants.items()}
    return Packed(manifest, seconds, sizes, answer)


def expected(packed: Packed, rows: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Returns the scores, or the values, that the model in Python stands for."""
    given, task = packed.answer(rows).astype(np.float64), packed.manifest.task
    if isinstance(task, Classification):
        return np.asarray(scipy.special.softmax(given / task.temperature, axis=1))
    return given.reshape(len(given), -1)[:, :1]


@contextlib.contextmanager
def serving(names: Iterable[str], home: Path, **environment: str) -> Iterator[Service]:
    """Serves ``v1`` of models, side by side."""
    with running_redis(Settings(home=home / "valkey")) as url:
        _set_splits(names, url)
        with run_service(home / "service", None, ROLLOUT_REDIS_URL=url, **environment) as service:
            yield service


def _set_splits(names: Iterable[str], url: str) -> None:
    async def set_all() -> None:
        redis = await connect(url)
        for name in names:
            await write_split(redis, name, Split(revision=0, champion="v1"))
        await redis.aclose()

    asyncio.run(set_all())


def ask(service: Service, name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the predictions on raw rows, asked for in one request."""
    instances = [{"client_id": "c-1", "inputs": row} for row in rows]
    with service.client() as client:
        response = client.post(
            f"/v1/models/{name}/predict", json={"instances": instances}, headers={"X-Request-Timeout": "20000"}
        )
    assert response.status_code == 200, response.text
    predictions: list[dict[str, Any]] = response.json()["predictions"]
    return predictions
