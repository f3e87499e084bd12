"""The documents say what the code does: commands, settings, metrics, problems, figures."""

from __future__ import annotations

import re
from pathlib import Path

import click
import prometheus_client

import rollout
from models.digits import data
from models.digits.recipe import RECIPE
from rollout import metrics
from rollout.bundle.store import open_bundle
from rollout.cli import cli
from rollout.config import Settings
from rollout.errors import HTTP_ERRORS, RolloutError
from tests.conftest import ROOT

REFERENCE = (ROOT / "REFERENCE.md").read_text()
PACKED = (ROOT / "docs" / "tutorials" / "ml-engineer.md").read_text()


def table(heading: str) -> list[list[str]]:
    """Returns the cells of the first table below a heading, without backticks."""
    section = REFERENCE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in rows[2:]]


def test_every_setting_with_its_default() -> None:
    documented = {row[0]: row[1].replace("–", "") for row in table("Settings")}
    defaults = {
        f"ROLLOUT_{name.upper()}": str(getattr(Settings(), name) or "") for name in Settings.__struct_fields__
    }
    assert documented == defaults
    for name in Settings.__struct_fields__:
        assert f"{name}: " in (Settings.__doc__ or "")


def test_every_problem_with_its_status() -> None:
    documented = {row[0]: int(row[1]) for row in table("Problems")}
    assert documented == {error.type: error.status for error in HTTP_ERRORS}


def test_the_table_of_errors_is_complete() -> None:
    of_the_terminal = {"ConfigError", "BundleError"}
    subclasses = {error.__name__ for error in RolloutError.__subclasses__()}
    assert subclasses - of_the_terminal == {error.__name__ for error in HTTP_ERRORS} - {"RolloutError"}


def test_every_metric_with_its_labels() -> None:
    found = {}
    for metric in vars(metrics).values():
        if isinstance(metric, prometheus_client.Counter):
            found[f"{metric._name}_total"] = list(metric._labelnames)
        elif isinstance(metric, prometheus_client.Histogram | prometheus_client.Gauge):
            found[metric._name] = list(metric._labelnames)
    assert {row[0]: re.findall(r"\w+", row[1]) for row in table("Metrics")} == found


def test_every_command() -> None:
    def commands(group: click.Group, prefix: str) -> set[str]:
        names: set[str] = set()
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            if isinstance(command, click.Group):
                names |= commands(command, f"{prefix} {name}")
            if not isinstance(command, click.Group) or command.invoke_without_command:
                names.add(f"{prefix} {name}")
        return names

    documented = {re.match(r"rollout( [a-z]+)+", row[0]) for row in table("Commands")}
    assert {match.group() for match in documented if match} == commands(cli, "rollout")
    makefiles = (ROOT / "Makefile").read_text() + (ROOT / "k8s" / "deploy.mk").read_text()
    for target in re.findall(r"^([a-z-]+):.*##", makefiles, re.M):
        assert target == "help" or f"`make {target}`" in REFERENCE


def test_the_figures_of_the_demo(bundles: str) -> None:
    digits = data.load()
    answers = {
        name: baseline(digits.train, digits.evaluation.inputs) for name, baseline in RECIPE.baselines.items()
    }
    figures = {
        **{name: float((answer == digits.evaluation.targets).mean()) for name, answer in answers.items()},
        "`v1`, logistic regression": open_bundle("digits:v1")[1].metrics["accuracy"],
        "`v2`, small convolutional network": open_bundle("digits:v2")[1].metrics["accuracy"],
    }
    for name, accuracy in figures.items():
        assert f"| {name} | {accuracy:.3f} |" in PACKED


def test_the_public_surface() -> None:
    assert sorted(rollout.__all__) == [
        "Answered",
        "Audio",
        "Boxes",
        "Category",
        "Classification",
        "Dataset",
        "Embedding",
        "Fit",
        "Heads",
        "Image",
        "InputSchema",
        "Labelled",
        "MultiLabel",
        "Number",
        "Output",
        "Quantiles",
        "Recipe",
        "Reference",
        "Regression",
        "RolloutError",
        "Score",
        "Span",
        "Table",
        "Targets",
        "Tensor",
        "Tensors",
        "Text",
        "Time",
        "TokenLabels",
        "Truth",
        "Version",
        "__version__",
        "box_targets",
        "pack",
        "targets_of",
    ]
    for name in rollout.__all__:
        assert getattr(rollout, name).__doc__


def test_the_map_of_the_house_names_every_file() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for path in [*(ROOT / "src" / "rollout").rglob("*.py"), *(ROOT / "service").glob("*.py")]:
        if path.name != "__init__.py" and path.parent.name != "cli":
            assert path.name in text, path


def test_files_are_short() -> None:
    for path in Path(ROOT).glob("*/**/*.py"):
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts):
            assert len(path.read_text().splitlines()) <= 500, path
