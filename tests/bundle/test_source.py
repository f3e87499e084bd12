"""A module that could not be trusted is refused before anything is exported, and the layer is named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from rollout import Classification, Regression, RolloutError, Tensor
from rollout.bundle.source import ModuleSource
from rollout.bundle.store import bundle_exists
from rollout.heads import Head
from tests.bundle.two import TASK, Linear, Two, pack_two, part

THREE = Classification(labels=["a", "b", "c"])
EXAMPLE = {"x": np.array([[1, 2], [3, -4]], np.float32)}


class StuckInTraining(nn.Dropout):
    """A layer that ignores ``eval()``."""

    def train(self, mode: bool = True) -> StuckInTraining:  # noqa: FBT002
        """Stays in training mode."""
        return super().train(True)


class FunctionalDropout(nn.Module):
    """Dropout that no mode switches off."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drops half."""
        return functional.dropout(x, 0.5, training=True)


class Counting(nn.Module):
    """Keeps a mean of what it sees, in eval mode too."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Subtracts the mean so far."""
        self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return x - self.mean


class Remembering(nn.Module):
    """Keeps what no buffer holds."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds the number of calls."""
        self.calls += 1
        return x + self.calls


class OwnStatistics(nn.Module):
    """Normalizes by the statistics of the batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalizes."""
        return functional.batch_norm(x.unsqueeze(2).repeat(1, 1, 2), None, None, training=True)[:, :, 0]


class LeavesTorch(nn.Module):
    """Sorts in NumPy, by what torch has no word for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sorts."""
        return torch.from_numpy(np.partition(x.numpy(), 1))


class FixedRows(nn.Module):
    """Works for whatever number of rows it was captured with."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Goes over the rows one by one."""
        return torch.stack([row * 2 for row in x])


def in_training(layer: nn.Module) -> nn.Module:
    module = nn.Sequential(layer, Linear()).eval()
    layer.train()
    return module


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (lambda: in_training(nn.Dropout(0.5)), r"layer 0 \(Dropout\) is in training mode: call module.eval\(\)"),
        (lambda: in_training(nn.BatchNorm1d(2)), r"layer 0 \(BatchNorm1d\) is in training mode"),
        (
            lambda: nn.Sequential(Two(), StuckInTraining(0.5)).eval(),
            r"layer 1 \(StuckInTraining\).* ignores eval",
        ),
        (Two, r"layer norm \(BatchNorm1d\) is in training mode"),
        (
            lambda: nn.Sequential(Linear(), nn.Sequential(FunctionalDropout())).eval(),
            r"layer 1.0 \(FunctionalDropout\) gives different answers to the same input",
        ),
        (
            lambda: nn.Sequential(Remembering(), Linear()).eval(),
            r"layer 0 \(Remembering\) gives different answers to the same input",
        ),
        (
            lambda: nn.Sequential(Counting(), Linear()).eval(),
            r"layer 0 \(Counting\) changes its mean when it is called: a prediction would depend on those before",
        ),
        (
            lambda: nn.Sequential(Linear(), OwnStatistics()).eval(),
            r"layer 1 \(OwnStatistics\) answers for a row according to the rest of its batch",
        ),
        (
            lambda: nn.Sequential(LeavesTorch(), Linear()).eval(),
            r"not one graph of torch operations; every step of it, preprocessing included.*"
            r"test_source.py, line \d+, `return torch.from_numpy\(.*\): do this step in torch",
        ),
        (
            lambda: nn.Sequential(FixedRows(), Linear()).eval(),
            r"not one graph of torch operations.*torchscript: it cannot be made: a trace would fix a value for all "
            r"rows in test_source.py, line \d+, `return torch.stack.*: work on all rows and steps at once",
        ),
    ],
)
def test_a_module_that_cannot_be_trusted_is_refused(module: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(RolloutError, match=words):
        pack_two("broken", module())
    assert not bundle_exists("two:broken")


def test_the_same_layers_in_order_are_taken() -> None:
    layers = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5), Linear()).eval()
    source = ModuleSource(layers, TASK, EXAMPLE)
    assert source.run(EXAMPLE).sum(1) == pytest.approx([1, 1])
    assert source.run(EXAMPLE).argmax(1).tolist() == [1, 0]


def test_the_source_does_not_change_with_the_module() -> None:
    module = Linear().eval()
    source = ModuleSource(module, TASK, EXAMPLE)
    before = source.run(EXAMPLE)
    nn.init.zeros_(module.layer.weight)
    assert np.array_equal(source.run(EXAMPLE), before)


def test_the_temperature_is_inside() -> None:
    source = ModuleSource(Linear().eval(), TASK, EXAMPLE)
    sharp = source.run(EXAMPLE)
    source.task = Classification(labels=["no", "yes"], temperature=10)
    assert (source.run(EXAMPLE).max(1) < sharp.max(1)).all()


class Columns(nn.Module):
    """Returns its inputs in some shape."""

    def __init__(self, *columns: int) -> None:
        super().__init__()
        self.columns = columns

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns them."""
        return x[:, list(self.columns)] if len(self.columns) != 1 else x[:, self.columns[0]]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [((0,), [[1, 5], [3, 5]]), ((0, 1), [[1, 10], [3, -20]])],
)
def test_a_regression_gives_value_and_half_its_interval(
    columns: tuple[int, ...], expected: list[list[int]]
) -> None:
    source = ModuleSource(Columns(*columns).eval(), Regression(half_width=5), EXAMPLE)
    assert source.run(EXAMPLE).tolist() == expected


@pytest.mark.parametrize(
    ("module", "task", "words"),
    [
        (Columns(0, 1, 1), TASK, r"gives outputs of shape \(2, 3\) for 2 rows; 2 labels need logits of shape"),
        (Columns(0), THREE, r"gives outputs of shape \(2,\) for 2 rows; 3 labels need logits of shape"),
        (Columns(0, 1, 1), Regression(), r"a regression needs values of shape \(rows,\)"),
    ],
)
def test_outputs_that_do_not_fit_the_task_are_refused(module: nn.Module, task: Head, words: str) -> None:
    with pytest.raises(RolloutError, match=words):
        ModuleSource(module.eval(), task, EXAMPLE)


def test_a_graph_takes_any_number_of_rows() -> None:
    program = ModuleSource(Two().eval(), TASK, EXAMPLE).program().module()
    for rows in (1, 2, 7):
        assert program(torch.from_numpy(part(rows, 3).inputs["x"])).shape == (rows, 2)


def test_limits_of_a_field_do_not_enter_the_graph() -> None:
    manifest = pack_two("limits", Linear().eval(), inputs={"x": Tensor(shape=(2,), minimum=-9, maximum=9)})
    assert "onnx" in manifest.variants
