"""Checks of a module before and while it is trained: what looks wrong, in a sentence each."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rollout.bundle.evidence import Finding
from rollout.bundle.fields import Field
from rollout.bundle.schema import Labelled
from rollout.heads import Head
from rollout.heads.structured import as_numbers
from rollout.training.batches import take, tensors
from rollout.training.checks import row_keys
from rollout.training.fit import Loss
from rollout.training.measuring import Measured, evaluating, measure, on_device

FEW = 16  # rows that any module that learns can learn by heart
TRIES, RATES, AT_MOST_S = 200, (1e-2, 1e-3), 30.0
BY_HEART = 0.1
VANISHED, EXPLODED = 1e-5, 1e4
COMPARED_ROWS, SHUFFLES = 2000, 2000
UNLIKELY, MEMORISED = 0.01, 0.5
SHOWN = 5
MODED = (
    torch.nn.modules.dropout._DropoutNd,
    torch.nn.modules.batchnorm._BatchNorm,
    torch.nn.MultiheadAttention,
    torch.nn.RNNBase,
)


class Watched(NamedTuple):
    """What was seen of a training.

    Attributes:
        losses: Loss of each of the first steps.
        gradients: For some steps, the root mean square of the gradient of each weight that is trained.
        checks: For each validation its figures.
        modes: What is wrong with the modes of the layers: in training, and in eval mode; empty where nothing is.
    """

    losses: list[float]
    gradients: list[list[float]]
    checks: list[dict[str, float]]
    modes: list[str]

    @classmethod
    def nothing(cls) -> Watched:
        """Returns what was seen before the first step."""
        return cls([], [], [], [])


def trained(module: torch.nn.Module) -> list[str]:
    """Returns the names of the weights that are trained."""
    return [name for name, weight in module.named_parameters() if weight.requires_grad]


def overfits(
    module: torch.nn.Module, part: Labelled, fields: Mapping[str, Field], loss: Loss, task: Head
) -> Iterator[Finding]:
    """Tries whether a copy of the module learns a few rows by heart, which any module can that learns at all."""
    _, rows = np.unique(row_keys(part.inputs, fields), return_index=True)
    rows = rows[np.lexsort(as_numbers(part.targets[rows]).T[::-1])]
    few = take(part, rows[np.linspace(0, len(rows) - 1, min(FEW, len(rows))).astype(int)])
    start, measured = time.monotonic(), None
    for rate in RATES:
        learner = copy.deepcopy(module)
        weights = [weight for weight in learner.parameters() if weight.requires_grad]
        if not weights:
            yield Finding(
                check="overfits a small batch",
                where="module",
                detail="No weight of the module can be trained: none has requires_grad.",
            )
            return
        optimizer = torch.optim.Adam(weights, rate)
        batch = on_device(tensors(few), learner)
        for step in range(1, TRIES + 1):
            found = loss(learner(*batch.inputs), batch.targets)
            if not found.requires_grad:
                break  # what is measured below says that nothing was learnt
            optimizer.zero_grad()
            found.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step % 25 == 0 or step == TRIES:
                measured = measure(learner, few, loss, task)
                chance = float(
                    task.losses(measured.scores, np.roll(few.targets, len(few.targets) // 2, axis=0)).mean()
                )
                if measured.errors.mean() <= BY_HEART * chance:
                    return
                if time.monotonic() - start > AT_MOST_S:
                    return  # too slow to tell
    measured = measured or measure(module, few, loss, task)
    yield Finding(
        check="overfits a small batch",
        where="module",
        detail=f"The module cannot learn {len(few.targets)} rows by heart: after {TRIES} steps its error on them "
        f"is {measured.errors.mean():.3g}; look for a layer that is cut off, a loss that does not fit the "
        "output, or inputs that are lost on the way.",
    )


def training_fault(module: torch.nn.Module) -> str:
    """Says which layers that act otherwise in eval mode are in it while they are trained; empty if none is.

    A layer of a part that is frozen as a whole may be.
    """
    layers = dict(module.named_modules())
    wrong = [
        name or "the module"
        for name, layer in layers.items()
        if isinstance(layer, MODED) and not layer.training and not _is_frozen(name, layers)
    ]
    if not wrong:
        return ""
    return f"{_some(wrong)} {_be(wrong)} in eval mode in training: dropout and batch statistics do nothing there."


def answering_fault(module: torch.nn.Module, part: Labelled) -> str:
    """Says why the module is not in eval mode when it is told to be; empty if it is."""
    batch = on_device(tensors(take(part, slice(0, 32))), module)
    with evaluating(module):
        first, second = (_flat(module(*batch.inputs)) for _ in range(2))
        wrong = [name or "the module" for name, layer in module.named_modules() if layer.training]
    if wrong:
        return f"{_some(wrong)} {_be(wrong)} in train mode after `eval()` was called."
    if not torch.equal(first, second) and not (first.isnan() & second.isnan()).any():
        moved = float((first - second).abs().max())
        return f"In eval mode, the same rows are answered twice in different ways, by up to {moved:.2g}."
    return ""


def judge_training(watched: Watched, module: torch.nn.Module) -> Iterator[Finding]:
    """Looks at what was seen while a module was trained: the loss, the modes and the gradients."""
    yield from _loss_moves(watched)
    for where, fault in zip(("training", "validation"), watched.modes, strict=False):
        if fault:
            yield Finding(check="train and eval mode", where=where, detail=fault)
    yield from _gradients(watched, module)


def judge_validation(
    module: torch.nn.Module,
    learnt: Labelled,
    validation: Labelled,
    baselines: Mapping[str, Any],
    loss: Loss,
    task: Head,
) -> Iterator[Finding]:
    """Compares the trained module on validation rows with baselines, and with the rows that it learnt from."""
    rng = np.random.default_rng(0)
    held = measure(module, validation, loss, task)
    for name, baseline in baselines.items():
        given = baseline(learnt, validation.inputs)
        error = _error(given, validation.targets, task)
        if held.errors.mean() >= error:
            yield Finding(
                check="better than the baselines",
                where=name,
                detail=f"On the validation rows, the error of the module is {held.errors.mean():.4g} and that of "
                f"{name} {error:.4g}: it has learnt nothing that {name} does not know.",
            )
    rows = rng.permutation(len(learnt.targets))[:COMPARED_ROWS]
    yield from memorised(measure(module, few := take(learnt, rows), loss, task), held, few.targets, task)


def memorised(learnt: Measured, held: Measured, targets: NDArray[Any], task: Head) -> Iterator[Finding]:
    """Compares errors on rows that were learnt from with those on others.

    Shuffling which rows were learnt from tells whether the difference is chance (Fisher's randomization test).
    Shuffling the targets tells what is right by chance: what the module knows of the rows that it learnt from is
    the way down from there.
    """
    rng = np.random.default_rng(0)
    ours, others = learnt.errors, held.errors
    gap = float(others.mean() - ours.mean())
    chance = float(np.mean([task.losses(learnt.scores, rng.permutation(targets)).mean() for _ in range(10)]))
    known = chance - float(ours.mean())
    if gap <= 0 or known <= 0 or gap / known <= MEMORISED:
        return
    pooled = np.concatenate([ours, others])
    shuffled = [rng.permutation(pooled) for _ in range(SHUFFLES)]
    as_far = sum(each[len(ours) :].mean() - each[: len(ours)].mean() >= gap for each in shuffled)
    if (p := (1 + as_far) / (1 + SHUFFLES)) < UNLIKELY:
        yield Finding(
            check="training and validation",
            where="validation",
            detail=f"The error is {ours.mean():.4g} on rows that were learnt from, {others.mean():.4g} on "
            f"validation rows and {chance:.4g} with shuffled labels: {min(1.0, gap / known):.0%} of what the "
            f"module knows holds for the former alone (p = {p:.2g} that this is chance). It memorises.",
        )


def _loss_moves(watched: Watched) -> Iterator[Finding]:
    if not watched.losses or not watched.checks:
        return
    first, after = watched.losses, [check["training_loss"] for check in watched.checks]
    if not np.isfinite(first + after).all():
        yield Finding(
            check="the loss moves",
            where="training",
            detail="The loss became infinite or NaN: look for a learning rate that is too large, a logarithm or "
            "a root of 0, or NaN in the inputs.",
        )
        return
    start, end = float(np.mean(first[:3])), min(after)
    jumps = np.abs(np.diff(first)) if len(first) > 1 else np.zeros(1)
    noise = float(np.median(jumps)) / 0.954 / np.sqrt(3)  # of the mean of three, were they drawn from one normal
    if start - end <= 3 * noise:
        yield Finding(
            check="the loss moves",
            where="training",
            detail=f"The loss was {start:.4g} at first and {end:.4g} at best, which is no more than it varies "
            "from batch to batch: look at the learning rate, at what the optimizer got, and at what is frozen.",
        )


def _gradients(watched: Watched, module: torch.nn.Module) -> Iterator[Finding]:
    weights = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    sizes = np.array(watched.gradients, float)
    if not sizes.size or sizes.shape[1] != len(weights):
        return
    names, counts = list(weights), np.array([weight.numel() for weight in weights.values()])
    if not np.isfinite(sizes).all():
        wrong = [name for name, finite in zip(names, np.isfinite(sizes).all(0), strict=True) if not finite]
        yield _finding("explode", f"The gradient of {_some(wrong)} is infinite or NaN in some steps.")
        return
    norms = np.sqrt((sizes**2 * counts).sum(1))
    if (largest := float(np.median(norms))) > EXPLODED or norms.max() > EXPLODED * largest > 0:
        yield _finding(
            "explode",
            f"The norm of the gradients is {largest:.2g} in most steps and {norms.max():.2g} at most: scale the "
            "inputs and targets, or look at what is multiplied again and again.",
        )
    usual = np.median(sizes, axis=0)
    never = [name for name, column in zip(names, sizes.T, strict=True) if not column.any()]
    if never:
        yield _finding("vanish", f"No gradient ever reaches {_some(never)}: nothing is learnt there.")
    # A bias before a normalization has none by right.
    few = [
        name
        for name, size in zip(names, usual, strict=True)
        if name not in never and weights[name].ndim > 1 and size < VANISHED * usual.max()
    ]
    if few:
        yield _finding(
            "vanish",
            f"The gradient of {_some(few)} is less than {VANISHED:g} of the largest one: hardly anything is "
            "learnt there; residual connections, normalization or another activation let it through.",
        )


def _finding(verb: str, detail: str) -> Finding:
    return Finding(check=f"gradients {verb}", where="training", detail=detail)


def _error(given: NDArray[Any], targets: NDArray[Any], task: Head) -> float:
    return float(task.answer_losses(given, targets).mean())


def _is_frozen(name: str, layers: Mapping[str, torch.nn.Module]) -> bool:
    """Whether the innermost part around a layer that has weights has only frozen ones."""
    while True:
        weights = list(layers[name].parameters())
        if weights or not name:
            return bool(weights) and not any(weight.requires_grad for weight in weights)
        name = name.rpartition(".")[0]


def _flat(returned: Any) -> torch.Tensor:
    """Returns the first tensor of what a module returned."""
    if isinstance(returned, torch.Tensor):
        return returned
    values = returned.values() if isinstance(returned, Mapping) else returned
    return next(each for each in values if isinstance(each, torch.Tensor))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _be(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
