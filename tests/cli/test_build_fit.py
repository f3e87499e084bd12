"""``rollout build`` of a ``Fit``: what is seen of it, and going on after a kill."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch

from rollout.bundle.store import bundle_exists, open_bundle
from rollout.cli.build import in_a_bar
from rollout.training.runs import Progress
from tests.commands import rollout, start
from tests.conftest import ROOT

RECIPE = """
import os, time
import torch
from rollout import Fit, Recipe, Version
from tests.training.fits import FIELDS, YES_OR_NO, load, make_net

def loss(outputs, targets):
    time.sleep(float(os.environ.get("SLOW", "0")))
    return torch.nn.functional.cross_entropy(outputs, targets)

fit = Fit(module=make_net, loss=loss, epochs=12, batch=50, learning_rate=1e-2, check_every=500)
RECIPE = Recipe(name="killed", inputs=FIELDS, load=load, versions={"v1": Version(fit, YES_OR_NO, {"hidden": 16})})
"""


def test_a_build_that_is_killed_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "recipes" / "killed"
    folder.mkdir(parents=True)
    (folder / "recipe.py").write_text(RECIPE)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    environment |= {"ROLLOUT_HOME": str(tmp_path / "home"), "SLOW": "0.02"}
    process = start("build", folder, environment=environment, folder=tmp_path)
    deadline = time.monotonic() + 120
    while not (found := list((tmp_path / "home").rglob("last.ckpt"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    (last,) = found
    before = torch.load(last)["global_step"]
    assert not bundle_exists("killed:v1")
    environment["SLOW"] = "0"
    said = rollout("build", folder, environment=environment).stdout
    assert "killed:v1: going on with the training that was interrupted" in said
    assert torch.load(last)["global_step"] > before
    lineage = open_bundle("killed:v1")[1].lineage
    assert lineage["fit"]["steps"] == torch.load(last)["global_step"]
    (done,) = (tmp_path / "home").rglob("done.json")
    again = rollout("build", folder, environment=environment | {"BENTOML_HOME": str(tmp_path / "empty")}).stdout
    assert "killed:v1: it was trained before, to the end" in again
    assert done.parent.parent.parent == tmp_path / "home" / "training" / "killed"


def test_how_far_a_training_is() -> None:
    start = in_a_bar(Progress(0, 200, 0.7, float("nan")))
    assert start == "training ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ 0%, loss 0.7"
    assert in_a_bar(Progress(100, 200, 0.25, 0.3)) == (
        "training ━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌ 50%, loss 0.25, 0.3 on validation rows"
    )
