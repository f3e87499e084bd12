"""``rollout search``: trials on the training part alone, on a study that goes on, and its winner as a version."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import optuna
import pytest

from rollout import Dataset, Labelled, RolloutError
from rollout.bundle.store import open_bundle
from rollout.training.build import build_version
from rollout.training.recipe import load_recipe
from rollout.training.search import run_trials
from rollout.training.search import search as run_search
from tests.commands import rollout, start
from tests.conftest import ROOT
from tests.training.fits import QUICK, load, recipe

RECIPE = """
import time
from rollout import Recipe, Version
from rollout.training.fit import Fit
from tests.training.fits import FIELDS, YES_OR_NO, load, make_net

def search(trial):
    time.sleep({sleep})
    return {{
        "hidden": trial.suggest_int("hidden", 2, 32, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
    }}

fit = Fit(module=make_net, epochs=4, batch=100, check_every=500)
RECIPE = Recipe(
    name="{name}",
    inputs=FIELDS,
    load=load,
    versions={{
        "v1": Version(fit, YES_OR_NO, {{"hidden": 2}}, search=search),
        "fixed": Version(fit, YES_OR_NO, {{"hidden": 2}}),
    }},
)
"""


def write(root: Path, name: str, sleep: float = 0) -> Path:
    """Writes a recipe into a folder of its own name, since Python imports each name once."""
    folder = root / f"of_{name}" / name
    folder.mkdir(parents=True)
    (folder / "recipe.py").write_text(RECIPE.format(name=name, sleep=sleep))
    return folder


def finished(study: optuna.study.Study) -> list[Any]:
    return [trial for trial in study.trials if trial.state.is_finished() and trial.state.name != "FAIL"]


def test_the_best_trial_becomes_a_version_with_its_lineage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, "searching")
    monkeypatch.setenv("ROLLOUT_HOME", str(tmp_path / "home"))
    command = ("search", "searching", "v1", "--models", str(folder.parent), "--trials")
    assert "the best of 6" in rollout(*command, "6").stdout
    before = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/home/search/searching.db")
    assert len(finished(before)) == 6
    kept = [trial.params for trial in before.trials]
    said = rollout(*command, "12").stdout
    assert "is the best of 12" in said
    assert f"`rollout build {folder} v1-searched` packs it as searching:v1-searched" in said
    after = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/home/search/searching.db")
    assert [trial.params for trial in after.trials[:6]] == kept
    assert len({trial.params["learning_rate"] for trial in after.trials}) == 12
    assert any(trial.state.name == "PRUNED" for trial in after.trials)
    recipe = load_recipe(folder)
    build_version(recipe, "v1-searched", lambda _: None)
    lineage = open_bundle("searching:v1-searched")[1].lineage
    assert lineage["search"]["of"] == "v1"
    assert lineage["search"]["trial"] == after.best_trial.number
    assert lineage["search"]["trials"] == 12
    assert lineage["hyperparameters"] == after.best_trial.user_attrs["hyperparameters"]
    assert lineage["training"]["learning_rate"] == after.best_trial.params["learning_rate"]
    assert lineage["fit"]["validation_loss"] == pytest.approx(after.best_value)


def test_what_cannot_be_searched_is_said(tmp_path: Path) -> None:
    folder, storage = write(tmp_path, "asked"), f"sqlite:///{tmp_path}/asked.db"
    with pytest.raises(RolloutError, match="asked:fixed has nothing to search"):
        run_search(folder, "fixed", 1, storage)
    with pytest.raises(RolloutError, match="cannot be opened"):
        run_search(folder, "v1", 1, "sqlite:////nowhere/at/all.db")
    (folder / "searched.json").write_text("{")
    with pytest.raises(RolloutError, match=r"searched.json cannot be read"):
        load_recipe(folder)


def test_the_evaluation_part_is_never_seen(tmp_path: Path) -> None:
    values = []
    for name in ("as it is", "upside down"):

        def loaded(name: str = name) -> Dataset:
            dataset = load()
            if name == "as it is":
                return dataset
            other = Labelled({"x": np.zeros_like(dataset.evaluation.inputs["x"])}, 1 - dataset.evaluation.targets)
            return dataset._replace(evaluation=other, calibration=other)

        fit = msgspec.structs.replace(QUICK, epochs=2)
        one = recipe(fit, search=lambda trial: {"hidden": trial.suggest_int("hidden", 2, 32)})
        storage = f"sqlite:///{tmp_path}/{name.replace(' ', '_')}.db"
        run_trials(msgspec.structs.replace(one, load=loaded), "v1", 3, storage)
        study = optuna.load_study(study_name=None, storage=storage)
        values.append([(trial.params, trial.value) for trial in study.trials])
    assert values[0] == values[1]


@pytest.mark.timeout(600)
def test_processes_share_a_study_and_one_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    folder, storage = write(tmp_path, "shared", sleep=0.2), f"sqlite:///{tmp_path}/shared.db"
    command = ("search", "shared", "v1", "--models", folder.parent, "--storage", storage, "--trials", "1000")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    process = start(*command, environment=environment, folder=tmp_path)
    deadline = time.monotonic() + 120
    while (count := _count(storage)) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    process.kill()
    count = _count(storage)
    assert count >= 3
    study = run_search(folder, "v1", count + 4, storage, processes=2)
    assert count + 4 <= len(finished(study)) <= count + 5
    numbers = [trial.number for trial in study.trials]
    assert numbers == sorted(set(numbers))


def test_nothing_is_imported_from_the_folder_where_it_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, "alone")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "multiprocessing.py").write_text("open('imported', 'w')")
    run_search(folder, "v1", 2, f"sqlite:///{tmp_path}/alone.db", processes=2)
    assert not (tmp_path / "imported").exists()


def _count(storage: str) -> int:
    try:
        return len(finished(optuna.load_study(study_name=None, storage=storage)))
    except Exception:
        return 0
