"""Trainings that outlive a kill: what was trained to its end is not trained again."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import msgspec
import torch

from rollout import Fit, Labelled, Recipe, Version
from rollout.training.again import next_name, trained_again
from rollout.training.kept import keep_trainings, tidy
from rollout.training.runs import Run
from tests.training.fits import FIELDS, YES_OR_NO, load, make_net

trained: list[int] = []


def train(part: Labelled, seed: int) -> torch.nn.Module:
    trained.append(seed)
    return make_net(part, {"hidden": 4})


def train_what_cannot_be_pickled(part: Labelled, seed: int) -> torch.nn.Module:
    module: Any = train(part, seed)
    module.note = lambda: None
    return module  # type: ignore[no-any-return]


RECIPE = Recipe(
    name="kept",
    inputs=FIELDS,
    load=load,
    versions={
        "fit": Version(Fit(module=make_net, epochs=2, batch=50, check_every=500), YES_OR_NO, {"hidden": 4}),
        "function": Version(train, YES_OR_NO, {}),
        "odd": Version(train_what_cannot_be_pickled, YES_OR_NO, {}),
    },
)


def test_a_fit_and_a_function_are_trained_once(tmp_path: Path) -> None:
    part, said = load().train, list[str]()
    for name in ("fit", "function"):
        before = keep_trainings(RECIPE, tmp_path).fit(name, part, 1, Run(on_step=said.append)).module
        after = keep_trainings(RECIPE, tmp_path).fit(name, part, 1, Run(on_step=said.append)).module
        for one, other in zip(before.parameters(), after.parameters(), strict=True):
            assert torch.equal(one, other)
    assert said.count("it was trained before, to the end") == 1
    assert trained == [1]
    keep_trainings(RECIPE, tmp_path).fit("function", part, 2)
    fewer = Labelled({name: column[1:] for name, column in part.inputs.items()}, part.targets[1:])
    keep_trainings(RECIPE, tmp_path).fit("function", fewer, 1)
    assert trained == [1, 2, 1], "another seed and other rows are another training"
    tidy(tmp_path, "function", 1)
    assert {place.name[:10] for place in tmp_path.iterdir()} == {"function-1"}


def test_a_student_of_another_teacher_is_another_training(tmp_path: Path) -> None:
    teachers = {hidden: RECIPE.version("fit")._replace(hyperparameters={"hidden": hidden}) for hidden in (4, 8)}
    student = RECIPE.version("fit")._replace(hyperparameters={"hidden": 2}, teacher="fit")
    part, said = load().train, list[str]()
    for hidden in (4, 8, 8):
        recipe = msgspec.structs.replace(RECIPE, versions={"fit": teachers[hidden], "student": student})
        keep_trainings(recipe, tmp_path).fit("student", part, 1, Run(on_step=said.append))
    assert said.count("it was trained before, to the end") == 1
    assert len([*tmp_path.glob("student-1-*")]) == 2


def test_what_cannot_be_pickled_is_trained_again(tmp_path: Path) -> None:
    trained.clear()
    for _ in range(2):
        keep_trainings(RECIPE, tmp_path).fit("odd", load().train, 1)
    assert trained == [1, 1]


def test_a_version_that_is_trained_again_learns_from_labels() -> None:
    version = trained_again(RECIPE, "function.1", "function").version("function.1")
    assert (version.needs_labels, version.again) == (True, "function")
    assert next_name("v2", 1, {"v2", "v2.1", "v2.2"}) == "v2.3"


def test_what_others_could_have_written_is_not_unpickled(tmp_path: Path) -> None:
    trained.clear()
    part = load().train
    keep_trainings(RECIPE, tmp_path).fit("function", part, 1)
    (file,) = tmp_path.glob("*/trained.pickle")
    for place, mode in ((file, 0o666), (file, 0o660), (file.parent, 0o777), (file.parent, 0o770)):
        before = stat.S_IMODE(place.stat().st_mode)
        place.chmod(mode)
        keep_trainings(RECIPE, tmp_path).fit("function", part, 1)
        place.chmod(before)
    assert trained == [1] * 5
    keep_trainings(RECIPE, tmp_path).fit("function", part, 1)
    assert trained == [1] * 5
