"""The search for hyperparameters: Optuna's trials on the training part alone, the best of them as a version."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import optuna

from rollout.bundle.schema import Labelled
from rollout.errors import ConfigError
from rollout.training.build import code_and_settings, describe_version
from rollout.training.fit import Fit
from rollout.training.labels import add_labels
from rollout.training.recipe import SEARCHED, Recipe, Searched, load_recipe
from rollout.training.runs import Checks, Run, digest
from rollout.training.tracker import Told
from rollout.training.tracking import Tracking, make_trackers

# A trial of a process that was killed is tried again after this many seconds without a sign of life.
HEARTBEAT_S, GRACE_S = 10, 30
WAIT_FOR_LOCK_S = 120
MOST_WORKERS = 1000
RUN_KEY = "run"  # of the study: what the runs of its trials are found by
FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


def search(
    folder: Path,
    name: str,
    trials: int,
    storage: str,
    *,
    processes: int = 1,
    labels: Mapping[str, Path] = {},
    on_step: Callable[[str], None] = lambda _: None,
) -> optuna.study.Study:
    """Tries hyperparameters until a study has so many finished trials; goes on with one that is there.

    Args:
        folder: The folder of the recipe.
        name: The version whose ``search`` suggests hyperparameters.
        trials: Finished trials wanted, those that were pruned included; several processes may make a few more.
        storage: The URL of Optuna's storage, which other machines may work on, too.
        processes: How many work at the same time.
        labels: Exports of the review queue by name, for a version that learns from them.
        on_step: Called with a line for each finished trial.

    Raises:
        ConfigError: If the version is no ``Fit`` or does not say what to search, or no trial came to an end.
    """
    recipe = load_recipe(folder)
    study, _ = _open(recipe, name, storage, labels, worker=0)  # makes its tables before others want to
    with Tracking(make_trackers(None)) as tracking:  # what its trials belong to, over before they begin
        tracking.start(Told(study.user_attrs[RUN_KEY], recipe.name, f"search of {name}", {}, {}))
        tracking.end("FINISHED")
    if processes > 1:
        os.environ["PYTHONSAFEPATH"] = "1"  # they would import what lies where the command is run
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            for work in [
                pool.submit(_work, folder, name, trials, storage, labels, each) for each in range(processes)
            ]:
                work.result()
    else:
        run_trials(recipe, name, trials, storage, labels=labels, on_step=on_step)
    if not any(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials):
        raise ConfigError(f"no trial of {recipe.name}:{name} came to an end with a finite loss")
    return study


def _work(folder: Path, name: str, trials: int, storage: str, labels: Mapping[str, Path], worker: int) -> None:
    run_trials(load_recipe(folder), name, trials, storage, labels=labels, worker=worker)


def run_trials(
    recipe: Recipe,
    name: str,
    trials: int,
    storage: str,
    *,
    labels: Mapping[str, Path] = {},
    worker: int = 0,
    on_step: Callable[[str], None] = lambda _: None,
) -> None:
    """Runs trials in this process until the study has so many; see ``search``."""
    study, train = _open(recipe, name, storage, labels, worker)
    version = recipe.version(name)
    key = study.user_attrs[RUN_KEY]

    def try_out(trial: optuna.Trial) -> float:
        assert version.search is not None  # noqa: S101
        suggested = {**version.hyperparameters, **version.search(trial)}
        trial.set_user_attr("hyperparameters", suggested)
        changed = msgspec.structs.replace(
            recipe, versions={**recipe.versions, name: version._replace(hyperparameters=suggested)}
        )

        def check(checks: Checks) -> None:
            tracking.check(checks)
            loss = checks[-1]["validation_loss"]
            trial.report(loss, len(checks))
            if not np.isfinite(loss) or trial.should_prune():
                tracking.end("KILLED", "pruned")
                raise optuna.TrialPruned

        with Tracking(make_trackers(None)) as tracking:
            settings = {f"hyperparameters.{name}": value for name, value in suggested.items()}
            title = f"{name}, trial {trial.number}"
            tracking.start(Told(f"{key}-{trial.number}", recipe.name, title, settings, {}, parent=key))
            fitted = changed.fit(name, train, recipe.seed, Run(on_check=check))
            tracking.trained(fitted.checks, fitted.figures, None)
            tracking.end("FINISHED")
        trial.set_user_attr("figures", fitted.figures)
        return float(fitted.figures["validation_loss"])

    def tell(study: optuna.study.Study, trial: optuna.trial.FrozenTrial) -> None:
        done = len(study.get_trials(deepcopy=False, states=FINISHED))
        what = "is pruned" if trial.value is None else f"has a validation loss of {trial.value:.5g}"
        on_step(f"trial {trial.number} {what}; {done} of {trials} are finished")

    if len(study.get_trials(deepcopy=False, states=FINISHED)) < trials:
        enough = optuna.study.MaxTrialsCallback(trials, states=FINISHED)
        study.optimize(try_out, callbacks=[tell, enough])


def keep_winner(recipe: Recipe, name: str, study: optuna.study.Study, folder: Path, winner: str) -> Searched:
    """Makes the best trial a version of the recipe: writes it to ``searched.json`` beside it.

    Raises:
        ConfigError: If the recipe has a version of that name that is not from a search.
    """
    file = folder / SEARCHED
    known = msgspec.json.decode(file.read_bytes(), type=dict[str, Searched]) if file.is_file() else {}
    if winner in recipe.versions and winner not in known:
        raise ConfigError(
            f"{recipe.name} has a version {winner} already: give the winner another name with --name"
        )
    best = study.best_trial
    found = Searched(
        of=name,
        hyperparameters=best.user_attrs["hyperparameters"],
        study=study.study_name,
        trial=best.number,
        trials=len(study.get_trials(deepcopy=False, states=FINISHED)),
        validation_loss=float(study.best_value),
    )
    text = msgspec.json.format(msgspec.json.encode({**known, winner: found}), indent=2)
    file.write_bytes(text + b"\n")
    return found


def _open(
    recipe: Recipe, name: str, storage: str, labels: Mapping[str, Path], worker: int
) -> tuple[optuna.study.Study, Labelled]:
    """Returns the study and the training part: of the data, nothing else leaves this function."""
    version = recipe.version(name)
    if not isinstance(version.train, Fit) or version.search is None:
        raise ConfigError(f"{recipe.name}:{name} has nothing to search: `Version(Fit(…), search=…)` says what")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    dataset = add_labels(recipe.load(), recipe, name, labels)
    settings = code_and_settings(recipe, name, describe_version(recipe, name, dataset))
    timeout = {"connect_args": {"timeout": WAIT_FOR_LOCK_S}} if storage.startswith("sqlite") else {}
    try:
        with warnings.catch_warnings():  # trials that show signs of life are new in Optuna
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            where = optuna.storages.RDBStorage(
                storage,
                engine_kwargs=timeout,
                heartbeat_interval=HEARTBEAT_S,
                grace_period=GRACE_S,
                heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
            )
    except Exception as error:
        raise ConfigError(f"the storage {storage} cannot be opened: {error}") from error
    study = optuna.create_study(
        storage=where,
        study_name=f"{recipe.name}:{name}@{digest(settings)}",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
        direction="minimize",
        load_if_exists=True,
    )
    if RUN_KEY not in study.user_attrs:
        study.set_user_attr(RUN_KEY, secrets.token_hex(8))
    # Whoever goes on, or works beside others, draws otherwise than those before.
    seed = recipe.seed + worker + MOST_WORKERS * len(study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=8)
    return study, dataset.train
