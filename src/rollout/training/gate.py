"""The gate: is a candidate better than the champion, or was it a lucky seed or a lucky choice of rows?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.bundle.evidence import Decision, GateResult, PValues, Spread
from rollout.bundle.fields import Field
from rollout.bundle.machine import user_name
from rollout.bundle.schema import Labelled
from rollout.clock import utc_now
from rollout.errors import ConfigError
from rollout.heads import Head
from rollout.training.answered import score
from rollout.training.kept_losses import KeptLosses
from rollout.training.labels import add_labels
from rollout.training.recipe import Recipe
from rollout.training.sign_flips import Look, look

Losses = NDArray[np.float64]

MARGIN = 0.01
ALPHA = 0.05
CLAIMS: tuple[Decision, ...] = ("better", "worse", "not worse")  # the first of those that hold is decided on


class Judgement(NamedTuple):
    """A decision.

    Attributes:
        decision: The claim that holds.
        p_values: For each of the claims ``better``, ``worse`` and ``not worse`` its p-values.
        why: The reason, in a sentence.
        is_final: Whether no further seed would lead to another one.
    """

    decision: Decision
    p_values: dict[str, PValues]
    why: str
    is_final: bool = True


class _Tested(NamedTuple):
    """What both tests say of a claim, at the last look at which it holds, or else at the last one."""

    seeds: Look
    rows: Look

    @property
    def holds(self) -> bool:
        return self.seeds.holds and self.rows.holds


def run_gate(
    recipe: Recipe,
    candidate: str,
    champion: str,
    *,
    seeds: int,
    margin: float | None = None,
    on_step: Callable[[str], None] = lambda _: None,
    labels: Mapping[str, Mapping[str, Path]] = {},
    home: Path | None = None,
) -> GateResult:
    """Trains two versions with the same seeds until it is decided between them on the evaluation part.

    Args:
        recipe: The model.
        candidate: The version on trial.
        champion: The version that it has to beat.
        seeds: Each is trained with at most this many, the first of them ``recipe.seed``; with fewer than
            ``first_look`` needs, with all of them.
        margin: The largest loss that still counts as not worse. By default one point of the error rate, or 1 %
            of the champion's mean absolute error with the first seed.
        on_step: Called with a line for each training.
        labels: For each version that learns from reviewed labels its exports, by name.
        home: ``ROLLOUT_HOME``, where the losses of each training are kept, for a gate that was interrupted to
            go on; ``None`` keeps none.

    Raises:
        ConfigError: If there is no such version, one is a classifier and the other a regression, or reviewed
            labels cannot be used.
        BundleError: If a trained module could not be packed, or its outputs are not finite.
    """
    tasks = {name: recipe.version(name).task for name in (candidate, champion)}
    if type(tasks[candidate]) is not type(tasks[champion]):
        raise ConfigError(f"{candidate} and {champion} answer different kinds of questions: nothing to compare")
    dataset = recipe.load()
    evaluation = dataset.evaluation.only(recipe.inputs)
    learnt = {name: add_labels(dataset, recipe, name, labels.get(name, {})) for name in tasks}
    kept = {name: KeptLosses(recipe, name, learnt[name], home) for name in tasks}
    head = tasks[champion]
    runs: dict[str, list[Losses]] = {name: [] for name in tasks}
    for seed in range(recipe.seed, recipe.seed + seeds):
        for name, task in tasks.items():
            losses = kept[name].read(seed)
            if losses is None:
                on_step(f"training {name} with seed {seed}")
                trained = recipe.train(name, learnt[name].train, seed)
                losses = evaluation_losses(trained, task, recipe.inputs, evaluation)
                if not isinstance(trained, str | Path):  # of a file, the code does not say what is in it
                    kept[name].write(seed, losses)
            else:
                on_step(f"{name} was trained with seed {seed} before")
            runs[name].append(losses)
        allowed = _margin(head, runs[champion][0]) if margin is None else margin
        ours, theirs = np.stack(runs[candidate]), np.stack(runs[champion])
        judgement = decide(ours, theirs, margin=allowed, head=head, most=seeds)
        if judgement.is_final:
            break
    baselines = {
        name: float(head.answer_losses(baseline(dataset.train, evaluation.inputs), evaluation.targets).mean())
        for name, baseline in recipe.baselines.items()
    }
    return GateResult(
        against=champion,
        seeds=len(ours),
        most_seeds=seeds,
        margin=allowed,
        metric=head.metric,
        candidate=_spread(ours),
        champion=_spread(theirs),
        baselines=baselines,
        p_values=judgement.p_values,
        decision=judgement.decision,
        why=judgement.why,
        at=utc_now(),
        by=user_name(),
    )


def first_look(most: int, alpha: float = ALPHA) -> int | None:
    """Returns after how many seeds the gate can first decide; ``None`` where it never can.

    A claim may be wrong with ``alpha / 2``, since the candidate may be better or worse. Of that, as large a part
    is spent as seeds are through: a spending function that Lan & DeMets (1983) propose. ``n`` seeds that all
    speak for a claim have a p-value of ``2**-n``; so with ``alpha = 0.05`` fewer than six prove nothing.

    Example:
        >>> [first_look(most) for most in (5, 6, 8, 20, 40)]
        [None, 6, 6, 7, 8]
    """
    return next((seeds for seeds in range(1, most + 1) if 2.0**-seeds <= _spent(seeds, most, alpha)), None)


def decide(
    candidate: Losses,
    champion: Losses,
    *,
    margin: float,
    head: Head,
    most: int | None = None,
    alpha: float = ALPHA,
) -> Judgement:
    """Decides between two versions whose losses are paired by seed and by row; less is better.

    A claim holds where two tests agree at one of the looks: one over the seeds, so that no lucky seed decides,
    and one over the rows, so that no lucky choice of evaluation rows does; see ``sign_flips.look``. It is final
    where no claim that goes before it would come to hold even if each of the remaining seeds came out as the
    most favourable one so far.

    Args:
        candidate: Losses, shape ``(seeds, rows)``: 0 or 1 for an error rate.
        champion: Losses of the version that it has to beat, same shape.
        margin: The largest mean loss that still counts as not worse.
        head: Whose losses they are.
        most: Seeds after which it is decided in any case; by default those that there are. After each of them,
            from ``first_look`` on, it was looked whether a claim holds.
        alpha: Probability with which ``better`` or ``worse`` may hold by chance at any look, half of it each.
    """
    differences = champion - candidate
    seeds = len(differences)
    most = max(most or seeds, seeds)
    tested = _test(differences, margin, head, most, alpha)
    decision: Decision = next((claim for claim in CLAIMS if tested[claim].holds), "cannot decide")
    first = first_look(most, alpha)
    is_final = seeds == most or (first is not None and seeds >= first)
    if is_final and seeds < most:
        by_seed = differences.sum(1)
        favourable, other = (
            _test(
                np.vstack([differences, np.repeat(differences[[best]], most - seeds, 0)]),
                margin,
                head,
                most,
                alpha,
            )
            for best in (by_seed.argmax(), by_seed.argmin())
        )
        reachable = {"better": favourable, "worse": other, "not worse": favourable}
        before = CLAIMS[: CLAIMS.index(decision)] if decision in CLAIMS[1:] else CLAIMS
        is_final = decision == "better" or not any(reachable[claim][claim].holds for claim in before)
    return Judgement(
        decision,
        {claim: PValues(seeds=each.seeds.p_value, rows=each.rows.p_value) for claim, each in tested.items()},
        _why(decision, tested, candidate, champion, margin, head, most, alpha),
        is_final,
    )


def evaluation_losses(trained: Any, task: Head, inputs: Mapping[str, Field], evaluation: Labelled) -> Losses:
    """Returns the loss of each row, shape ``(rows,)``.

    Args:
        trained: The trained module, in eval mode, or an artefact.
        task: What it answers.
        inputs: The input schema.
        evaluation: The rows, their inputs in the order of the schema.

    Raises:
        BundleError: If it could not be packed, or its outputs are not finite.
    """
    return task.losses(score(trained, task, inputs, evaluation), evaluation.targets)


def _test(differences: Losses, margin: float, head: Head, most: int, alpha: float) -> dict[Decision, _Tested]:
    return {
        "better": _test_claim(differences, 0.0, head, most, alpha),
        "worse": _test_claim(-differences, 0.0, head, most, alpha),
        "not worse": _test_claim(differences, margin, head, most, alpha),
    }


def _test_claim(differences: Losses, margin: float, head: Head, most: int, alpha: float) -> _Tested:
    # Sums, since whole errors add up exactly where their means would not.
    seeds, rows = differences.shape
    by_seed = np.diag(differences.sum(1) + margin * rows)
    if head.is_rate:
        # Errors are rare and whole. A little on every row would let a handful of rows without an error pass for
        # proof, so the margin is granted as whole rows instead, which only the champion got wrong.
        by_row = np.hstack([differences, np.ones((seeds, int(margin * rows)))])
    else:
        by_row = differences + margin
    first = min(first_look(most, alpha) or seeds, seeds)
    spent = [_spent(each, most, alpha) for each in range(first, seeds + 1)]
    looks = [
        _Tested(*both)
        for both in zip(
            *(look(values.cumsum(0)[first - 1 :], spent) for values in (by_seed, by_row)), strict=True
        )
    ]
    return next((each for each in reversed(looks) if each.holds), looks[-1])


def _margin(head: Head, losses: Losses) -> float:
    return MARGIN if head.is_rate else MARGIN * float(losses.mean())


def _spent(seeds: int, most: int, alpha: float) -> float:
    return alpha / 2 * seeds / most


def _why(
    decision: Decision,
    tested: Mapping[Decision, _Tested],
    candidate: Losses,
    champion: Losses,
    margin: float,
    head: Head,
    most: int,
    alpha: float,
) -> str:
    seeds, rows = candidate.shape
    if first_look(most, alpha) is None:
        number, they = ("1 seed", "it") if most == 1 else (f"{most} seeds", "they")
        return (
            f"{number} can never be significant: the smallest p-value {they} can give is {2.0**-most:g}, and of "
            f"{alpha:g} either direction has half; run at least {_fewest(most, alpha)}."
        )
    ours, theirs = _figure(candidate.mean(), head), _figure(champion.mean(), head)
    if decision != "cannot decide":
        by_seeds, by_rows = tested[decision]
        claim = f"not worse by more than {_figure(margin, head)}" if decision == "not worse" else decision
        saved = f" Of at most {most} seeds, it took {seeds}." if seeds < most else ""
        return (
            f"The candidate is {claim}: its {head.metric} is {ours}, the champion's {theirs}, and neither the "
            f"{seeds} seeds (p = {by_seeds.p_value:.2g}) nor the {rows} evaluation rows (p = "
            f"{by_rows.p_value:.2g}) leave that to chance.{saved}"
        )
    by_seeds, by_rows = tested["better" if candidate.mean() < champion.mean() else "worse"]
    if by_seeds.holds:
        obstacle = f"{rows} evaluation rows are too few to tell this from chance (p = {by_rows.p_value:.2g})"
    elif by_rows.holds:
        obstacle = (
            f"it depends on the seed, and over {seeds} of them this may be chance (p = {by_seeds.p_value:.2g})"
        )
    else:
        obstacle = (
            f"neither the {seeds} seeds (p = {by_seeds.p_value:.2g}) nor the {rows} evaluation rows (p = "
            f"{by_rows.p_value:.2g}) tell them apart"
        )
    left = f" The {most - seeds} seeds that were left would not have changed that." if seeds < most else ""
    return (
        f"It cannot be decided: the candidate's {head.metric} is {ours}, the champion's {theirs}, but "
        f"{obstacle}; nor is it ruled out that the candidate is worse by more than {_figure(margin, head)}.{left}"
    )


def _fewest(most: int, alpha: float) -> int:
    while first_look(most, alpha) is None:
        most += 1
    return most


def _figure(value: float, head: Head) -> str:
    return f"{value:.2%}" if head.is_rate else f"{value:.4g}"


def _spread(losses: Losses) -> Spread:
    means = losses.mean(1)
    return Spread(mean=float(means.mean()), deviation=float(means.std(ddof=1)) if len(means) > 1 else 0.0)
