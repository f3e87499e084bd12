"""Fits of several answers: each head by its own loss, on the rows of which its target is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rollout import (
    Classification,
    Dataset,
    Fit,
    Heads,
    Labelled,
    MultiLabel,
    Recipe,
    Regression,
    Targets,
    Tensor,
    TokenLabels,
    Version,
    targets_of,
)
from rollout.errors import ConfigError
from rollout.heads.structured import known
from rollout.training.again import trained_again
from rollout.training.batches import OfHeads
from rollout.training.labels import add_labels, name_exports
from rollout.training.losses import loss_of
from rollout.training.runs import Run
from tests.training.taught import row, write

FIELDS = {"x": Tensor(shape=(4,))}
HEADS = Heads(heads={"late": Classification(labels=["no", "yes"], risk=0.2), "hours": Regression()})


def rows(count: int, seed: int, share: float = 1.0) -> Labelled:
    """Rows of which a share says how many hours it took."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 4)).astype(np.float32)
    hours = 3 * x[:, 2] - x[:, 3] + rng.normal(0, 0.1, count)
    hidden = np.ma.masked_array(hours, mask=rng.random(count) >= share) if share < 1 else hours
    return Labelled({"x": x}, targets_of(late=(x[:, 0] > 0).astype(int), hours=hidden))


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.late, self.hours = nn.Linear(4, 2), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the outputs of both heads."""
        return {"late": self.late(x), "hours": self.hours(x)}


def make(part: Labelled, hyperparameters: Mapping[str, Any]) -> nn.Module:
    return Both()


FIT = Fit(module=make, epochs=20, batch=50, learning_rate=3e-2)


def recipe(fit: Fit, task: Any = HEADS, load: Any = None) -> Recipe:
    def both() -> Dataset:
        return Dataset(rows(1000, 1, 0.4), rows(500, 2), rows(400, 3), "drawn", "by seed")

    return Recipe(name="sums", inputs=FIELDS, load=load or both, versions={"v1": Version(fit, task, {})})


def test_heads_learn_together_and_each_from_the_rows_that_it_knows() -> None:
    part = rows(1000, 1, 0.3)
    fitted = recipe(FIT).fit("v1", part, 0, Run(checks=True))
    found = fitted.module(torch.from_numpy(rows(300, 4).inputs["x"]))
    true = rows(300, 4).targets
    assert (found["late"].argmax(1).numpy() == true["late"]).mean() > 0.95
    assert np.abs(found["hours"].detach().numpy()[:, 0] - true["hours"]).mean() < 0.3
    assert [one.detail for one in fitted.findings] == []


def test_what_is_not_known_teaches_nothing() -> None:
    """Were the 0 in its place learnt, other numbers there would give other weights."""
    part = rows(400, 1, 0.5)
    other = part.targets.copy()
    other["hours"][~known(part.targets, "hours")] = 1e6
    first, second = (
        recipe(FIT).fit("v1", Labelled(part.inputs, targets), 0).module for targets in (part.targets, other)
    )
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), second.parameters(), strict=True))


def test_a_loss_of_the_authors_for_one_head_or_for_all() -> None:
    seen: list[Any] = []

    def hours(returned: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append((returned.shape, targets.shape))
        return 0 * returned.sum()

    part = rows(200, 1, 0.5)
    recipe(Fit(module=make, loss={"hours": hours}, steps=5)).fit("v1", part, 0)
    assert all(returned == (len_of[0], 1) for returned, len_of in seen)
    assert any(len_of[0] < 128 for _, len_of in seen)

    def both(returned: Any, targets: OfHeads) -> torch.Tensor:
        far: torch.Tensor = (returned["hours"][:, 0] - targets.targets["hours"]).abs()
        return (
            nn.functional.cross_entropy(returned["late"], targets.targets["late"])
            + (far * targets.known["hours"]).mean()
        )

    fitted = recipe(Fit(module=make, loss=both, epochs=20, batch=50, learning_rate=3e-2)).fit("v1", part, 0)
    assert fitted.figures["validation_error"] < 0.2


def test_a_head_without_a_loss_and_a_loss_without_a_head_are_refused() -> None:
    spans = Heads(heads={"late": HEADS.heads["late"], "names": TokenLabels(labels=["a"], positions=4)})
    targets = targets_of(late=[0, 1], names=np.zeros((2, 4), int))
    with pytest.raises(ConfigError, match=r"no usual loss for TokenLabels: name one in Fit\(loss={'names': …}\)"):
        loss_of(None, spans, targets)
    with pytest.raises(ConfigError, match="has one for minutes, and there are late, hours to learn"):
        loss_of({"minutes": torch.nn.functional.l1_loss}, HEADS, rows(5, 1).targets)
    with pytest.raises(ConfigError, match="has one for late, and there are no heads with names to learn"):
        loss_of({"late": torch.nn.functional.l1_loss}, Regression(), np.zeros(3))


@pytest.mark.parametrize("spreads", [False, True])
def test_several_targets_are_learnt_whatever_their_units(spreads: bool) -> None:
    """Were they learnt in their own units, one of 1e4 would leave nothing to one of 1."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(1500, 4)).astype(np.float32)
    targets = np.stack([x[:, 0] - x[:, 1], 1e4 * x[:, 2]], axis=1)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value, self.spread = nn.Linear(4, 2), nn.Linear(4, 2) if spreads else None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            units = torch.tensor([1.0, 1e4])
            value: torch.Tensor = self.value(x) * units
            if self.spread is None:
                return value
            return torch.cat([value, (nn.functional.softplus(self.spread(x)) + 0.01) * units], 1)

    fit = Fit(module=lambda *_: Two(), epochs=15, batch=50, learning_rate=3e-2)
    task = Targets(names=["rate", "price"], spreads=spreads)
    fitted = recipe(fit, task).fit("v1", Labelled({"x": x}, targets), 0, Run(checks=True))
    with torch.no_grad():
        found = fitted.module(torch.from_numpy(x)).numpy()[:, :2]
    assert (np.abs(found - targets).mean(0) < [0.1, 1e3]).all()
    assert fitted.findings == []
    rows_of = torch.from_numpy(targets[:1].astype(np.float32))
    loss = loss_of(None, task, targets)
    ones = torch.from_numpy(targets.std(0, keepdims=True).astype(np.float32)) if spreads else rows_of[:, :0]
    by_one = [
        float(
            loss(
                torch.cat(
                    [rows_of + torch.diag(torch.from_numpy(targets.std(0).astype(np.float32)))[place], ones], 1
                ),
                rows_of,
            )
        )
        for place in (0, 1)
    ]
    assert by_one == pytest.approx([0.5, 0.5], rel=1e-4)


def test_labels_of_which_several_hold_have_a_usual_loss() -> None:
    x = np.random.default_rng(6).normal(size=(600, 4)).astype(np.float32)
    fit = Fit(module=lambda *_: nn.Linear(4, 2), epochs=15, batch=50, learning_rate=3e-2)
    fitted = recipe(fit, MultiLabel(labels=["a", "b"])).fit("v1", Labelled({"x": x}, x[:, :2] > 0), 0)
    with torch.no_grad():
        assert (((fitted.module(torch.from_numpy(x)) > 0).numpy()) == (x[:, :2] > 0)).mean() > 0.95


def test_reviewed_rows_that_lack_a_head_teach_the_others(tmp_path: Path) -> None:
    late = {"late": {"label": "yes"}}
    given = [
        row("a", [9, 0, 0, 0], None, heads=late),
        row("b", [0, 0, 9, 0], None, heads={**late, "hours": {"value": 27}}),
    ]
    exports = name_exports([write(tmp_path / "labels.jsonl", *given)])
    again = trained_again(recipe(FIT), "v1.1", "v1")
    taught = add_labels(again.load(), again, "v1.1", exports)
    assert taught.train.targets["late"][-2:].tolist() == [1, 1]
    assert known(taught.train.targets, "hours")[-2:].tolist() == [False, True]
    assert taught.labels is not None
    assert taught.labels.used == 2
    by_function = trained_again(recipe(lambda *_: Both()), "v1.1", "v1")  # type: ignore[arg-type]
    taught = add_labels(by_function.load(), by_function, "v1.1", exports)
    assert taught.labels is not None
    assert (taught.labels.used, taught.labels.left_out["incomplete"]) == (1, 1)
