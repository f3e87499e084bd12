"""Every check of a training has a fault that it finds, and finds nothing where nothing is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from rollout import Fit, Labelled
from rollout.bundle.evidence import Finding
from rollout.training.runs import Run
from tests.training.fits import QUICK, Net, load, make_net, recipe, rows


def findings(fit: Fit, part: Labelled | None = None, baselines: Mapping[str, Any] = {}) -> dict[str, Finding]:
    run = Run(checks=True, baselines=baselines)
    found = recipe(fit).fit("v1", part or load().train, 0, run).findings
    return {finding.check: finding for finding in found}


def made(module: Any, **settings: Any) -> Fit:
    return msgspec.structs.replace(QUICK, module=lambda *_: module(), **settings)


def most_common(train: Labelled, inputs: Any) -> Any:
    return np.full(len(inputs["x"]), np.bincount(train.targets).argmax())


def knows(train: Labelled, inputs: Any) -> Any:
    return ((inputs["x"][:, :2] ** 2).sum(1) > 1.4).astype(int)


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert findings(QUICK, baselines={"most common": most_common}) == {}


class Deaf(Net):
    """Loses its inputs on the way."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.zeros_like(x))


def test_a_module_that_cannot_learn_a_few_rows_by_heart() -> None:
    finding = findings(made(Deaf))["overfits a small batch"]
    assert "The module cannot learn 16 rows by heart: after 200 steps its error on them is 0." in finding.detail


class Frozen(Net):
    """Nothing of it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(requires_grad=False)


def test_a_module_without_a_weight_that_is_trained() -> None:
    from rollout.training.symptoms import overfits
    from tests.training.fits import FIELDS, YES_OR_NO

    (finding,) = overfits(Frozen(), rows(100, 1), FIELDS, nn.functional.cross_entropy, YES_OR_NO)
    assert "none has requires_grad" in finding.detail


@pytest.mark.parametrize("settings", [{"learning_rate": 0.0}, {"optimizer": lambda _, rate: _nothing(rate)}])
def test_a_loss_that_does_not_move(settings: dict[str, Any]) -> None:
    finding = findings(made(Net, epochs=3, **settings))["the loss moves"]
    assert "no more than it varies from batch to batch" in finding.detail


def _nothing(rate: float) -> torch.optim.Optimizer:
    """An optimizer that got the weights of something else."""
    return torch.optim.SGD(nn.Linear(1, 1).parameters(), rate)


def test_a_loss_that_is_no_number() -> None:
    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs.softmax(1)[:, 0] - 2).log().mean()

    assert "infinite or NaN" in findings(made(Net, loss=loss, epochs=3))["the loss moves"].detail


def in_eval_mode() -> nn.Module:
    return Net().eval()


class Partly(Net):
    """A part that stays in eval mode, frozen or not."""

    def __init__(self, *, frozen: bool) -> None:
        super().__init__()
        self.layers[0].requires_grad_(requires_grad=not frozen)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.1)).eval()
        self.body.requires_grad_(requires_grad=not frozen)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + 0.1 * self.body(x))


def test_layers_that_were_left_in_eval_mode() -> None:
    finding = findings(made(in_eval_mode, epochs=2))["train and eval mode"]
    assert (finding.where, finding.detail) == (
        "training",
        "layers.1, layers.3 are in eval mode in training: dropout and batch statistics do nothing there.",
    )
    assert (
        "body.1, body.2 are in eval" in findings(made(lambda: Partly(frozen=False)))["train and eval mode"].detail
    )
    assert "train and eval mode" not in findings(made(lambda: Partly(frozen=True)))


class Stubborn(Net):
    """Stays in train mode."""

    def train(self, mode: bool = True) -> Stubborn:  # noqa: FBT002
        super().train(True)
        return self


class Always(Net):
    """Drops out in eval mode, too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(x, 0.3, training=True))


def test_layers_that_were_left_in_train_mode() -> None:
    finding = findings(made(Stubborn, epochs=2))["train and eval mode"]
    assert finding.where == "validation"
    assert "in train mode after `eval()` was called" in finding.detail
    always = findings(made(Always, epochs=2))["train and eval mode"]
    assert "the same rows are answered twice in different ways" in always.detail


def deep() -> nn.Module:
    layers = [layer for _ in range(16) for layer in (nn.Linear(8, 8), nn.Sigmoid())]
    return nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), *layers, nn.Linear(8, 2))


class Cut(Net):
    """A branch whose gradient is cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + self.branch(x).detach())


def test_gradients_that_vanish() -> None:
    finding = findings(made(deep, epochs=2))["gradients vanish"]
    assert "The gradient of 0.weight, 2.weight" in finding.detail
    cut = findings(made(Cut, epochs=2))["gradients vanish"]
    assert cut.detail == "No gradient ever reaches branch.weight, branch.bias: nothing is learnt there."


class Loud(Net):
    """Multiplies again and again."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = super().forward(x)
        for _ in range(8):
            out = out * 8
        return out


def test_gradients_that_explode() -> None:
    assert "The norm of the gradients is" in findings(made(Loud, epochs=2))["gradients explode"].detail


def test_validation_that_is_no_better_than_a_baseline() -> None:
    found = findings(msgspec.structs.replace(QUICK, epochs=3), baselines={"knows": knows, "guess": most_common})
    assert found["better than the baselines"].where == "knows"
    assert "it has learnt nothing that knows does not know" in found["better than the baselines"].detail


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 2))


def test_a_module_that_memorises() -> None:
    drawn = rows(400, 1)
    shuffled = Labelled(drawn.inputs, np.random.default_rng(0).permutation(drawn.targets))
    fit = made(wide, epochs=80, learning_rate=3e-3, patience=None, schedule="constant", loss=Rising())
    finding = findings(fit, shuffled)["training and validation"]
    assert "of what the module knows holds for the former alone" in finding.detail
    assert finding.detail.endswith("It memorises.")


class Rising:
    """Makes the last checkpoint that of the best validation loss, as where only the training loss is looked at."""

    def __init__(self) -> None:
        self.checks = 0

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.cross_entropy(outputs, targets)
        if not torch.is_grad_enabled() and outputs.shape[0] != 16:
            self.checks += 1
            return loss * 0 - self.checks
        return loss


def test_the_findings_of_a_fit_are_in_its_bundle() -> None:
    from rollout.bundle.store import open_bundle
    from rollout.training.build import build_version

    said: list[str] = []
    build_version(recipe(made(Cut, epochs=12)), "v1", said.append)
    manifest = open_bundle("ring:v1")[1]
    (finding,) = [finding for finding in manifest.findings if finding.check == "gradients vanish"]
    assert finding.detail in said
    assert manifest.lineage["training"]["batch"] == 50
    assert manifest.lineage["fit"]["best_step"] > 0


def test_hyperparameters_reach_the_module() -> None:
    done = recipe(QUICK, hyperparameters={"hidden": 8, "epochs": 1}).fit("v1", load().train, 0)
    assert make_net(load().train, {"hidden": 8}).state_dict().keys() == done.module.state_dict().keys()
    assert done.module.layers[0].out_features == 8
