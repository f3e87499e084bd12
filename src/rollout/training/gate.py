"""The gate: is a candidate better than the champion, or was it a lucky seed or a lucky choice of rows?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from rollout.bundle.artefact import open_source
from rollout.bundle.evidence import Decision, GateResult, Metric, PValues, Spread
from rollout.bundle.fields import Field
from rollout.bundle.machine import user_name
from rollout.bundle.parity import run_in_batches
from rollout.bundle.schema import Labelled
from rollout.bundle.task import Classification, Task
from rollout.clock import utc_now
from rollout.errors import BundleError, ConfigError
from rollout.training.labels import add_labels
from rollout.training.recipe import Recipe

Losses = NDArray[np.float64]

BATCH = 256
MARGIN = 0.01
RESAMPLES = 4096  # up to 12 differences, every choice of signs is counted


class Judgement(NamedTuple):
    """A decision.

    Attributes:
        decision: The claim that holds.
        p_values: For each of the claims ``better``, ``worse`` and ``not worse`` its p-values.
        why: The reason, in a sentence.
    """

    decision: Decision
    p_values: dict[str, PValues]
    why: str


def run_gate(
    recipe: Recipe,
    candidate: str,
    champion: str,
    *,
    seeds: int,
    margin: float | None = None,
    on_step: Callable[[str], None] = lambda _: None,
    labels: Mapping[str, Mapping[str, Path]] = {},
) -> GateResult:
    """Trains two versions with the same seeds, and decides between them on the evaluation part.

    Args:
        recipe: The model.
        candidate: The version on trial.
        champion: The version that it has to beat.
        seeds: Each is trained with this many, the first of them ``recipe.seed``.
        margin: The largest loss that still counts as not worse. By default one point of the error rate, or 1 %
            of the champion's mean absolute error.
        on_step: Called with a line for each step.
        labels: For each version that learns from reviewed labels its exports, by name.

    Raises:
        ConfigError: If there is no such version, one is a classifier and the other a regression, or reviewed
            labels cannot be used.
        BundleError: If a trained module could not be packed, or its outputs are not finite.
    """
    tasks = {name: recipe.version(name).task for name in (candidate, champion)}
    if type(tasks[candidate]) is not type(tasks[champion]):
        raise ConfigError(f"{candidate} and {champion} answer different kinds of questions: nothing to compare")
    dataset = recipe.load()
    evaluation = Labelled(
        {name: dataset.evaluation.inputs[name] for name in recipe.inputs}, dataset.evaluation.targets
    )
    losses: dict[str, Losses] = {}
    for name, task in tasks.items():
        train = add_labels(dataset, recipe, name, labels.get(name, {})).train
        runs = []
        for seed in range(recipe.seed, recipe.seed + seeds):
            on_step(f"training {name} with seed {seed}")
            runs.append(evaluation_losses(recipe.train(name, train, seed), task, recipe.inputs, evaluation))
        losses[name] = np.stack(runs)
    classifies = isinstance(tasks[champion], Classification)
    metric: Metric = "error rate" if classifies else "mean absolute error"
    if margin is None:
        margin = MARGIN if classifies else MARGIN * float(losses[champion].mean())
    judgement = decide(losses[candidate], losses[champion], margin=margin, metric=metric)
    baselines = {
        name: _mean_loss(baseline(dataset.train, evaluation.inputs), evaluation.targets, metric)
        for name, baseline in recipe.baselines.items()
    }
    return GateResult(
        against=champion,
        seeds=seeds,
        margin=margin,
        metric=metric,
        candidate=_spread(losses[candidate]),
        champion=_spread(losses[champion]),
        baselines=baselines,
        p_values=judgement.p_values,
        decision=judgement.decision,
        why=judgement.why,
        at=utc_now(),
        by=user_name(),
    )


def decide(
    candidate: Losses, champion: Losses, *, margin: float, metric: Metric, alpha: float = 0.05
) -> Judgement:
    """Decides between two versions whose losses are paired by seed and by row; less is better.

    A claim holds where both p-values are below ``alpha``: one over the seeds, so that no lucky seed decides, and
    one over the rows, so that no lucky choice of evaluation rows does.

    Args:
        candidate: Losses, shape ``(seeds, rows)``: 0 or 1 for an error rate.
        champion: Losses of the version that it has to beat, same shape.
        margin: The largest mean loss that still counts as not worse.
        metric: What the losses are.
        alpha: Probability with which a claim may hold by chance.
    """
    differences = champion - candidate
    p_values = {
        "better": _p_values(differences, 0.0, metric),
        "worse": _p_values(-differences, 0.0, metric),
        "not worse": _p_values(differences, margin, metric),
    }
    claims: tuple[Decision, ...] = ("better", "worse", "not worse")
    held = [claim for claim in claims if max(p_values[claim].seeds, p_values[claim].rows) < alpha]
    decision = held[0] if held else "cannot decide"
    return Judgement(decision, p_values, _why(decision, p_values, candidate, champion, margin, metric, alpha))


def paired_p_value(differences: NDArray[Any], *, margin: float = 0.0) -> float:
    """Returns the one-sided p-value of a mean above ``-margin``, by flipping signs.

    Were the mean ``-margin`` and the distribution symmetric, then each difference would as likely have the other
    sign: Fisher's randomization test ("The Design of Experiments", 1935, section 21). All choices of signs are
    counted, or a fixed random sample of them where there are too many; ``n`` differences thus never give less
    than ``2**-n``.

    Args:
        differences: Paired differences, shape ``(n,)``.
        margin: How far below zero the mean may be.

    Returns:
        The p-value; 1 where a difference is not finite.
    """
    shifted = differences + margin
    shifted = shifted[shifted != 0]  # a zero is the same under either sign
    if not np.isfinite(shifted).all():
        return 1.0
    if len(shifted) < 2:  # which SciPy does not take
        return 0.5 if shifted.sum() > 0 else 1.0
    test = scipy.stats.permutation_test(
        (shifted,),
        np.sum,
        permutation_type="samples",
        alternative="greater",
        n_resamples=RESAMPLES,
        batch=256,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def evaluation_losses(trained: Any, task: Task, inputs: Mapping[str, Field], evaluation: Labelled) -> Losses:
    """Returns the loss of each row, shape ``(rows,)``.

    Args:
        trained: The trained module, in eval mode, or an artefact.
        task: What it answers.
        inputs: The input schema.
        evaluation: The rows, their inputs in the order of the schema.

    Raises:
        BundleError: If it could not be packed, or its outputs are not finite.
    """
    source = open_source(trained, task, inputs, {"evaluation": evaluation}, flip_rate=1.0)
    scores = run_in_batches(source.run, evaluation.inputs, BATCH)
    if not (finite := np.isfinite(scores).all(-1)).all():
        raise BundleError(f"the module gives no finite number for {(~finite).sum()} of {len(scores)} rows")
    return task.losses(scores, evaluation.targets)


def _p_values(differences: Losses, margin: float, metric: Metric) -> PValues:
    # Sums, since whole errors add up exactly where their means would not.
    seeds, rows = differences.shape
    over_seeds = paired_p_value(differences.sum(1), margin=margin * rows)
    if metric == "mean absolute error":
        return PValues(seeds=over_seeds, rows=paired_p_value(differences.sum(0), margin=margin * seeds))
    # Errors are rare and whole. A little on every row would let a handful of rows without an error pass for
    # proof, so the margin is granted as whole rows instead, which only the champion got wrong.
    granted = np.full(int(margin * rows), float(seeds))
    return PValues(seeds=over_seeds, rows=paired_p_value(np.append(differences.sum(0), granted)))


def _why(
    decision: Decision,
    p_values: dict[str, PValues],
    candidate: Losses,
    champion: Losses,
    margin: float,
    metric: Metric,
    alpha: float,
) -> str:
    seeds, rows = candidate.shape
    needed = math.floor(-math.log2(alpha)) + 1
    if seeds < needed:
        number, they = ("1 seed", "it") if seeds == 1 else (f"{seeds} seeds", "they")
        return (
            f"{number} can never be significant: the smallest p-value {they} can give is {2.0**-seeds:g}; "
            f"run at least {needed}."
        )
    ours, theirs = _figure(candidate.mean(), metric), _figure(champion.mean(), metric)
    if decision != "cannot decide":
        p = p_values[decision]
        claim = f"not worse by more than {_figure(margin, metric)}" if decision == "not worse" else decision
        return (
            f"The candidate is {claim}: its {metric} is {ours}, the champion's {theirs}, and neither the {seeds} "
            f"seeds (p = {p.seeds:.2g}) nor the {rows} evaluation rows (p = {p.rows:.2g}) leave that to chance."
        )
    p = p_values["better" if candidate.mean() < champion.mean() else "worse"]
    if p.seeds < alpha:
        obstacle = f"{rows} evaluation rows are too few to tell this from chance (p = {p.rows:.2g})"
    elif p.rows < alpha:
        obstacle = f"it depends on the seed, and over {seeds} of them this may be chance (p = {p.seeds:.2g})"
    else:
        obstacle = (
            f"neither the {seeds} seeds (p = {p.seeds:.2g}) nor the {rows} evaluation rows (p = {p.rows:.2g}) "
            "tell them apart"
        )
    return (
        f"It cannot be decided: the candidate's {metric} is {ours}, the champion's {theirs}, but {obstacle}; nor "
        f"is it ruled out that the candidate is worse by more than {_figure(margin, metric)}."
    )


def _figure(value: float, metric: Metric) -> str:
    return f"{value:.2%}" if metric == "error rate" else f"{value:.4g}"


def _mean_loss(answers: NDArray[Any], targets: NDArray[Any], metric: Metric) -> float:
    return float(np.mean(answers != targets if metric == "error rate" else np.abs(answers - targets)))


def _spread(losses: Losses) -> Spread:
    means = losses.mean(1)
    return Spread(mean=float(means.mean()), deviation=float(means.std(ddof=1)) if len(means) > 1 else 0.0)
