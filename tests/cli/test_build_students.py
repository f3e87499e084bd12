"""``rollout build --budget``: the smallest student that is fast and good enough."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rollout.cli.build import parse_seconds
from rollout.errors import ConfigError
from tests.commands import rollout
from tests.conftest import ROOT

RECIPE = """
from rollout import Fit, Recipe, Version
from tests.training.fits import FIELDS, YES_OR_NO, load, make_net

fit = Fit(module=make_net, epochs=4, batch=100, learning_rate=1e-2)
RECIPE = Recipe(
    name="budgeted",
    inputs=FIELDS,
    load=load,
    versions={
        "big": Version(fit, YES_OR_NO, {"hidden": 64}),
        "small": Version(fit, YES_OR_NO, {"hidden": 16}, teacher="big"),
    },
)
"""


def test_the_smallest_is_picked_or_what_each_misses_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "recipes" / "budgeted"
    folder.mkdir(parents=True)
    (folder / "recipe.py").write_text(RECIPE)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    environment |= {"ROLLOUT_HOME": str(tmp_path / "home"), "COLUMNS": "200"}
    said = rollout("build", folder, "--budget", "60s", "--margin", "0.5", environment=environment).stdout
    assert "budgeted:small: budgeted:big teaches, by its onnx variant" in said
    assert "budgeted:small: comparing it with its teacher, budgeted:big" in said
    assert "students of budgeted on the calibration part, the smallest first" in said
    assert "budgeted:small is the smallest that answers a row within 1 min and loses no more than 0.5" in said
    assert "Compared with its teacher" in rollout("report", "budgeted:small", environment=environment).stdout
    refused = rollout("build", folder, "--budget", "0.001us", environment=environment)
    assert refused.returncode == 1
    assert "no student of budgeted is good enough: small answers a row in " in refused.stderr


@pytest.mark.parametrize(("text", "seconds"), [("2ms", 0.002), ("500us", 5e-4), ("0.1 s", 0.1)])
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["2", "fast", "0ms", "-1ms", "2 min"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ConfigError, match="a time above 0 is wanted, in us, ms or s, such as 2ms"):
        parse_seconds(text)
