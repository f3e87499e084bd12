"""A new kind of answer is one class, and nothing else changes: packed, verified, served, reviewed, fed back."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rollout import Labelled, Tensor, pack
from rollout.bundle.store import bundle_exists, open_bundle
from rollout.bundle.verify import verify_bundle
from rollout.config import Settings
from rollout.heads import Flags, Head, Scores, Truth, read_head
from rollout.heads.head import Declared, Row
from rollout.heads.parts import Part
from rollout.http.openapi import build_openapi
from rollout.inference.engine import Engine
from rollout.inference.pending_outcomes import pending_outcomes
from rollout.inference.rows import Rows, make_predictions
from rollout.job.sink import columns_of
from rollout.review import actions
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.store import Redis, connect


class StarsAnswer(NamedTuple):
    """From one star to five."""

    stars: int


class Stars(msgspec.Struct, Head, frozen=True, kw_only=True, tag="stars", tag_field="kind"):
    """From one star to five: a number that is rounded, and unsure in the middle of two."""

    form: ClassVar[str] = "value"
    measure: ClassVar[str] = "stars"

    @property
    def parts(self) -> Part:
        return Part((), (None,))

    @property
    def needs(self) -> str:
        return "stars need a number, shape (rows,)"

    @property
    def summary(self) -> str:
        return "Answers with one star to five."

    def _stars(self, scores: Scores) -> NDArray[np.float64]:
        return np.clip(scores[:, 0].round(), 1, 5).astype(np.float64)

    def check_targets(self, targets: NDArray[Any]) -> None:
        assert targets.ndim == 1

    def flipped(self, expected: Scores, got: Scores) -> Flags:
        return np.asarray(self._stars(expected) != self._stars(got))

    def needs_review(self, scores: Scores) -> Flags:
        return np.asarray(np.abs(scores[:, 0] % 1 - 0.5) < 0.1)

    def losses(self, scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(np.abs(self._stars(scores) - targets) / 4)

    def in_words(self, scores: Scores) -> str:
        return f"{scores[0]:.2f} stars"

    def numbers(self, scores: Scores) -> NDArray[np.float64]:
        return self._stars(scores)[:, None]

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        return StarsAnswer

    def answer(self, row: Row) -> Any:
        return StarsAnswer(int(row[0]))

    def declared(self) -> dict[str, Declared]:
        return {"stars": Declared("INT64")}

    def tensor(self, name: str, numbers: NDArray[np.float64]) -> NDArray[Any]:
        return numbers[:, 0].astype(np.int64)

    def agree(self, ours: Row, theirs: Row) -> bool:
        return ours[0] == theirs[0]

    def form_faults(self, truth: Truth) -> Iterator[tuple[str, str]]:
        if truth.value not in (1, 2, 3, 4, 5):
            yield "/value", "must be a number of stars from 1 to 5"

    def loss(self, answer: Mapping[str, Any], truth: Truth) -> float | None:
        return float(abs(answer["stars"] - (truth.value or math.nan)) / 4)

    def says(self, answer: Mapping[str, Any]) -> str:
        return f"{answer['stars']} stars"


class Sum(torch.nn.Module):
    """Adds up numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns stars."""
        return x.sum(1)


def rows(count: int) -> Labelled:
    x = np.random.default_rng(count).uniform(0.4, 2.6, (count, 2)).astype(np.float32)
    return Labelled({"x": x}, np.clip(x.sum(1).round(), 1, 5))


@pytest.fixture
async def engine(bundles: str, redis: Redis, valkey_url: str, tmp_path: Path) -> AsyncIterator[Engine]:
    if not bundle_exists("stars:v1"):
        pack(
            Sum().eval(),
            name="stars",
            version="v1",
            inputs={"x": Tensor(shape=(2,))},
            task=Stars(),
            calibration=rows(50),
            evaluation=rows(60),
        )
    await write_split(redis, "stars", Split(champion="v1", experiment="stars", by="ada"))
    loaded = await Engine.load(Settings(home=tmp_path), await connect(valkey_url))
    yield loaded
    await loaded.close()


async def test_a_kind_is_one_class(engine: Engine, redis: Redis) -> None:
    folder, manifest = open_bundle("stars:v1")
    verify_bundle(folder, manifest)
    assert manifest.task == read_head(msgspec.to_builtins(manifest.task)) == Stars()
    assert {"onnx", "torchscript", "export"} <= manifest.variants.keys()
    assert manifest.metrics["mean_loss"] == 0

    model = engine.model("stars")
    x = np.array([[1.2, 1.9], [1.5, 2.02]], np.float32)
    sent = [{"x": msgspec.Raw(msgspec.json.encode(one.tolist()))} for one in x]
    asked = Rows(["ada", "bob"], ["k-1", "k-2"], {"x": x}, sent, time.monotonic() + 10)
    answers = await engine.predict(model, asked)
    said = msgspec.to_builtins(make_predictions("stars", asked, answers))
    assert [(one["stars"], one["review"]) for one in said] == [(3, None), (4, "queued")]
    assert list(pending_outcomes(asked, answers)) == [], "there is no trial"
    assert "stars" in columns_of(model.task)
    described = build_openapi({"stars": model.schema}, {"stars": model.task})
    assert "stars" in described["components"]["schemas"]["StarsPrediction"]["properties"]

    (leased,) = (await actions.claim(redis, "stars", "eve")).items
    assert leased.item.head.says(leased.item.answer) == "4 stars"
    with pytest.raises(Exception, match="value must be a number of stars from 1 to 5"):
        await actions.resolve(redis, "stars", leased.item.id, leased.token, Truth(value=6))
    work = await actions.resolve(redis, "stars", leased.item.id, leased.token, Truth(value=3))
    assert leased.item.head.loss(leased.item.answer, work.truth) == 0.25
