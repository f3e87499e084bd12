"""A Fit trains by Lightning: its checkpoints, its schedule, and going on after a kill to the same bits."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import pytorch_lightning
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rollout import Embedding, Fit, Labelled, Regression, RolloutError, Tensor
from rollout.training.batches import Batches, set_aside
from rollout.training.fit import height
from rollout.training.fitting import fit_module, lowest
from rollout.training.losses import default_loss
from rollout.training.runs import Progress, Run
from tests import commands
from tests.training.fits import (
    FIELDS,
    QUICK,
    YES_OR_NO,
    Net,
    load,
    make_net,
    recipe,
    rows,
    same_bits,
    train_slowly,
)


def fitted(fit: Fit, run: Run | None = None, seed: int = 0) -> Any:
    return recipe(fit).fit("v1", load().train, seed, run or Run())


def changed(**settings: Any) -> Fit:
    return msgspec.structs.replace(QUICK, **settings)


def test_it_learns_and_comes_back_in_eval_mode_with_the_best_weights(tmp_path: Path) -> None:
    done = fitted(QUICK, Run(folder=tmp_path))
    assert not any(layer.training for layer in done.module.modules())
    assert done.figures["validation_error"] < 0.12
    assert done.figures["learning_rate"] == 1e-2
    kept = sorted(path.name for path in tmp_path.glob("*.ckpt"))
    assert len(kept) == 4
    assert "last.ckpt" in kept
    best = torch.load(tmp_path / f"best-step={done.figures['best_step']}.ckpt")["state_dict"]
    for name, tensor in done.module.state_dict().items():
        assert torch.equal(tensor, best[f"module.{name}"])


def test_a_training_that_was_killed_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = fitted(QUICK, Run(folder=tmp_path / "whole"))
    rng, started, deadline = random.Random(0), 0, time.monotonic() + 240
    while not (tmp_path / "killed" / "done.json").exists() and time.monotonic() < deadline:
        process = commands.forked(train_slowly, tmp_path / "killed")
        started += 1
        before = _step(tmp_path / "killed")
        while process.exitcode is None and _step(tmp_path / "killed") < before + 100:
            time.sleep(0.05)
        if started <= 2:
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
        process.join()
    assert started >= 3
    again = fitted(QUICK, Run(folder=tmp_path / "killed"))
    assert again.figures == whole.figures
    assert same_bits(again.module, whole.module)
    assert (tmp_path / "killed" / "last.ckpt").exists()
    last, other = (torch.load(tmp_path / name / "last.ckpt")["state_dict"] for name in ("whole", "killed"))
    assert all(torch.equal(last[name], other[name]) for name in last)
    steps = [event.step for event in _curves(tmp_path / "killed").Scalars("validation_loss")]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("patience", [None, 1])
def test_one_that_was_killed_at_its_very_end_is_at_its_end(patience: int | None, tmp_path: Path) -> None:
    fit = changed(patience=patience, schedule="constant", epochs=4 if patience is None else 400)
    whole = fitted(fit, Run(folder=tmp_path, checks=True))
    last = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "done.json").unlink()
    again = fitted(fit, Run(folder=tmp_path, checks=True))
    assert again.figures == whole.figures
    assert same_bits(again.module, whole.module)
    assert (tmp_path / "last.ckpt").read_bytes() == last


def _step(folder: Path) -> int:
    try:
        return int(torch.load(folder / "last.ckpt")["global_step"])
    except (OSError, RuntimeError, EOFError):
        return 0


def _curves(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder / "curves"))
    events.Reload()
    return events


def test_the_same_seed_gives_the_same_bits_and_another_one_others() -> None:
    first, second, third = (fitted(changed(epochs=2), seed=seed).module for seed in (0, 0, 1))
    assert same_bits(first, second)
    assert not same_bits(first, third)


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    said: list[str] = []
    first = fitted(changed(epochs=2), Run(folder=tmp_path))
    second = fitted(changed(epochs=2), Run(folder=tmp_path, on_step=said.append))
    assert same_bits(first.module, second.module)
    assert second.figures == first.figures
    assert said == ["it was trained before, to the end"]


def test_a_checkpoint_that_is_broken_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"half of it")
    said: list[str] = []
    done = fitted(changed(epochs=2), Run(folder=tmp_path, on_step=said.append))
    assert any("cannot be read: training starts anew" in line for line in said)
    assert same_bits(done.module, fitted(changed(epochs=2)).module)


def test_mixed_precision_learns_too() -> None:
    assert fitted(changed(precision="bf16-mixed")).figures["validation_error"] < 0.15


def test_virtual_epochs_do_not_depend_on_how_much_data_there_is() -> None:
    fit = changed(epochs=None, steps=60, check_every=1000)
    for count in (800, 2000):
        done = recipe(fit).fit("v1", rows(count, 1), 0)
        assert (done.figures["steps"], done.figures["checks"]) == (60, 3)


def test_it_ends_early_where_validation_does_not_improve() -> None:
    fit = changed(epochs=400, learning_rate=1e-2, patience=2, schedule="constant")
    figures = fitted(fit).figures
    assert figures["steps"] < figures["most_steps"]
    assert figures["steps"] == figures["best_step"] + 20


def test_a_learning_rate_is_found_drawn_and_kept(tmp_path: Path) -> None:
    first = fitted(changed(learning_rate="find", epochs=3), Run(folder=tmp_path))
    assert 1e-5 < first.figures["learning_rate"] < 1
    assert (tmp_path / "learning_rate.png").read_bytes().startswith(b"\x89PNG")
    second = fitted(changed(learning_rate="find", epochs=3))
    assert second.figures["learning_rate"] == first.figures["learning_rate"]
    assert same_bits(first.module, second.module)


def test_nothing_is_said_and_progress_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[Progress] = []
    fitted(changed(epochs=3, learning_rate="find"), Run(folder=tmp_path, on_progress=told.append))
    assert capfd.readouterr() == ("", "")
    assert told
    assert told[-1].steps > 50


def test_the_curves_are_for_tensorboard(tmp_path: Path) -> None:
    figures = fitted(changed(epochs=2), Run(folder=tmp_path)).figures
    events = _curves(tmp_path)
    names = {"training_loss", "validation_loss", "validation_error", "learning_rate"}
    assert names <= set(events.Tags()["scalars"])
    assert len(events.Scalars("validation_loss")) == figures["checks"]


def test_the_lowest_loss_is_found_behind_the_average_of_the_finder() -> None:
    rates = np.geomspace(1e-6, 1, 100)
    losses = 1 + 0.1 * np.random.default_rng(0).normal(size=100) - np.exp(-((np.arange(100) - 70) ** 2) / 200)
    average, averages = 0.0, []
    for step, loss in enumerate(losses):
        average = 0.98 * average + 0.02 * loss
        averages.append(average / (1 - 0.98 ** (step + 1)))
    found = lowest(list(rates), averages)
    assert found is not None
    assert abs(np.log10(found / rates[70])) < 0.4
    assert lowest([1e-6], [1.0]) is None


class Own(pytorch_lightning.LightningModule):
    """A module of somebody who knows Lightning."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.validated = Net(), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(x)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        inputs, targets = batch
        loss = torch.nn.functional.cross_entropy(self(*inputs), targets)
        self.log("own", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated += len(batch.targets)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


def test_a_lightning_module_is_trained_as_it_says(tmp_path: Path) -> None:
    fit = changed(module=lambda *_: Own(), epochs=5)
    done = fitted(fit, Run(folder=tmp_path, checks=True))
    assert done.findings == []
    assert done.figures["validation_error"] < 0.2
    assert done.module.validated > 0
    assert same_bits(done.module, fitted(fit).module)
    with pytest.raises(RolloutError, match="the learning rate of a LightningModule is its own"):
        fitted(msgspec.structs.replace(fit, learning_rate="find"))


def test_loss_optimizer_schedule_and_clipping_are_the_authors() -> None:
    rates: list[float] = []

    class Sgd(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            result = super().step(closure)
            norm = torch.cat([each.grad.flatten() for each in self.param_groups[0]["params"]]).norm()
            rates.append(self.param_groups[0]["lr"])
            assert norm <= 1e-3 * 1.001
            return result

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.multi_margin_loss(outputs, targets)

    fit = changed(
        loss=loss, optimizer=Sgd, epochs=None, steps=20, schedule="linear", warmup=4, learning_rate=1.0, clip=1e-3
    )
    fitted(fit)
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, *(1 - step / 16 for step in range(16))])
    assert [height("cosine", 0, 10)(step) for step in (0, 5, 10)] == pytest.approx([1, 0.5, 0])

    def made(optimizer: torch.optim.Optimizer, steps: int) -> Any:
        assert steps == 20
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    rates.clear()
    fitted(msgspec.structs.replace(fit, schedule=made))
    assert rates[:3] == [1, 0.5, 0.25]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"epochs": None}, "either epochs or steps"),
        ({"steps": 5}, "either epochs or steps"),
        ({"batch": 0}, "above 0"),
        ({"validation": 1.0}, "between 0 and 1"),
        ({"learning_rate": "fast"}, "not 'fast'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], why: str) -> None:
    options = {name: getattr(QUICK, name) for name in QUICK.__struct_fields__} | settings
    with pytest.raises(RolloutError, match=why):
        Fit(**options)


def test_validation_rows_stay_where_they_are_when_data_grow() -> None:
    few, more = rows(500, 1), rows(500, 2)
    both = Labelled({"x": np.concatenate([few.inputs["x"], more.inputs["x"]])}, np.concatenate([few.targets] * 2))
    (learnt, held), (_, of_both) = (set_aside(part, FIELDS, 0.2) for part in (few, both))
    assert 60 < len(held.targets) < 140
    assert len(learnt.targets) + len(held.targets) == 500
    assert (of_both.inputs["x"][: len(held.targets)] == held.inputs["x"]).all()
    with pytest.raises(RolloutError, match="has to leave rows on both sides"):
        set_aside(few, FIELDS, lambda part: np.ones(len(part.targets), bool))
    with pytest.raises(RolloutError, match=r"tells for \(3,\) of \(500,\) rows"):
        set_aside(few, FIELDS, lambda _: np.ones(3, bool))


def test_a_pass_shows_every_row_once_and_the_next_in_another_order() -> None:
    batches = Batches(rows(90, 1), 20, 3, seed=5)
    seen = np.concatenate([batches.rows(step) for step in range(9)])
    assert sorted(seen[:90]) == sorted(seen[90:]) == list(range(90))
    assert list(seen[:90]) != list(seen[90:])
    batches.epoch = 2
    later = Batches(rows(90, 1), 20, 3, seed=5)
    assert (later.rows(6) == batches.rows(6)).all()


def test_a_value_and_a_value_with_its_spread_have_a_loss() -> None:
    part = Labelled({"x": (x := rows(1500, 1).inputs["x"])}, (3 * x[:, 0]).astype(np.float32))
    for outputs in (1, 2):

        def make(part: Labelled, hyperparameters: Any, outputs: int = outputs) -> torch.nn.Module:
            net = torch.nn.Linear(4, outputs)
            return net if outputs == 1 else Shifted(net)

        fit = Fit(module=make, epochs=20, batch=50, learning_rate=3e-2)
        done = fit_module(fit, Regression(), {"x": Tensor(shape=(4,))}, part, {}, 0, Run())
        assert done.figures["validation_error"] < 0.5
    with pytest.raises(RolloutError, match="no usual loss for Embedding"):
        default_loss(Embedding(size=2))


class Shifted(torch.nn.Module):
    """A value of any sign beside a positive spread."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.net(x)
        return torch.stack([out[:, 0], torch.nn.functional.softplus(out[:, 1]) + 0.01], 1)


def test_one_logit_speaks_for_two_labels() -> None:
    def make(part: Labelled, hyperparameters: Any) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))

    done = fit_module(changed(module=make), YES_OR_NO, FIELDS, load().train, {}, 0, Run())
    assert done.figures["validation_error"] < 0.15


def test_what_is_called_is_named_with_its_code() -> None:
    class Maker:
        def __call__(self, part: Labelled, hyperparameters: Mapping[str, Any]) -> torch.nn.Module:
            return make_net(part, hyperparameters)

    names = {
        "make_net": make_net,
        "fitted": functools.partial(fitted, run=None),
        "test_what_is_called_is_named_with_its_code.<locals>.Maker": Maker(),
    }
    codes = set()
    for name, module in names.items():
        described = changed(module=module).described()
        assert described["module"]["kind"] == name
        assert described["optimizer"] == {"kind": "AdamW", "code": None}
        codes.add(described["module"]["code"])
    assert len(codes) == 1
    assert None not in codes


def test_hyperparameters_that_are_settings_take_their_place() -> None:
    made: list[Any] = []

    def make(part: Labelled, hyperparameters: Mapping[str, Any]) -> torch.nn.Module:
        made.append(hyperparameters["hidden"])
        return make_net(part, hyperparameters)

    done = recipe(changed(module=make), hyperparameters={"hidden": 8, "epochs": 1}).fit("v1", load().train, 0)
    assert made == [8]
    assert done.figures["most_steps"] == pytest.approx(36, abs=2)
