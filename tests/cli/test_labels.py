"""Reviewed labels on the command line: `rollout build`, `gate` and `reproduce` with `--labels`."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import pytest

from tests.cli.test_gate_and_sign import RECIPE, Store
from tests.training.taught import row, write

# The weights of v3 tell how many rows it learnt from.
TAUGHT = (
    RECIPE.replace("train(5.0, 5.0)", "train(5.0, 1.0)")
    .replace('"v2": Version(train(5.0, 0.0), TASK, {})', '"v3": Version(taught, TASK, {}, needs_labels=True)')
    .replace(
        "TASK =",
        """def taught(part, seed):
    return train(5.0, len(part.targets) / 1e4)(part, seed)


TASK =""",
    )
)


class Taught(NamedTuple):
    """A store with ``sides:v1`` and ``sides:v3``, the labels that the latter learnt from, and what was printed."""

    store: Store
    recipe: str
    labels: str
    digest: str
    plain: str
    refused: str
    built: str


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    folder = tmp_path_factory.mktemp("taught")
    store, recipe = Store(folder), folder / "models" / "sides"
    recipe.mkdir(parents=True)
    (folder / "store").mkdir()
    (recipe / "recipe.py").write_text(TAUGHT)
    points = [row(f"key-{each}", inputs={"point": [-each, 1]}, model="sides", label="left") for each in range(40)]
    labels = write(folder / "labels.jsonl", *points, row("gone", None, model="sides"))
    return Taught(
        store,
        str(recipe),
        str(labels),
        hashlib.sha256(labels.read_bytes()).hexdigest(),
        plain=store.run("build", str(recipe)),
        refused=store.run("build", str(recipe), "v3", code=1),
        built=store.run("build", str(recipe), "--labels", str(labels)),
    )


def test_without_labels_a_version_that_needs_them_is_left_out_or_refused(taught: Taught) -> None:
    left_out = (
        "sides:v3 learns from reviewed labels and is left out; "
        f"`rollout build {taught.recipe} v3 --labels FILE` builds it\n"
    )
    assert left_out in taught.plain
    assert taught.plain.count("nobody has compared") == 1
    assert "sides:v1 is trained" in taught.plain
    assert "reviewed labels:" not in taught.plain
    assert taught.refused == (
        "rollout: sides:v3 learns from reviewed labels: give an export of them with --labels FILE\n"
    )


def test_with_labels_it_is_built_and_says_what_it_learnt(taught: Taught) -> None:
    assert taught.built.startswith("sides:v1 is in the store already\nsides:v3: looking at the data\n")
    assert "sides:v3: training on 140 rows\n" in taught.built
    assert "  reviewed labels: 40 used; left out: 1 without inputs\n" in taught.built
    report = taught.store.run("report", "sides:v3")
    assert "labels.files.labels.jsonl" in report
    assert taught.digest[:12] in report
    assert "labels.left_out.without_inputs" in report


def test_labels_that_nothing_would_learn_from_are_refused(taught: Taught) -> None:
    assert taught.store.run("build", taught.recipe, "v1", "--labels", taught.labels, code=1) == (
        "rollout: sides v1: none learns from labels; leave out --labels\n"
    )


def test_it_is_reproduced_with_its_labels_and_asks_for_them(taught: Taught) -> None:
    reproduce = ("reproduce", "sides:v3", "--models", str(taught.store.models))
    said = taught.store.run(*reproduce, "--labels", taught.labels)
    assert said.startswith("identical: ")
    assert "data differs" not in said
    assert taught.store.run(*reproduce, code=1) == (
        f"rollout: sides:v3 learnt from labels in labels.jsonl (SHA-256 {taught.digest}): give that with --labels\n"
    )


@pytest.mark.parametrize(("tag", "against", "decision"), [("v3", "v1", "better"), ("v1", "v3", "worse")])
def test_the_gate_trains_it_with_its_labels(taught: Taught, tag: str, against: str, decision: str) -> None:
    gate = ("gate", f"sides:{tag}", "--against", against, "--seeds", "6", "--models", str(taught.store.models))
    assert "sides:v3 learnt from labels in labels.jsonl" in taught.store.run(*gate, code=1)
    assert f"Gate: {decision}" in taught.store.run(*gate, "--labels", taught.labels)
