"""``rollout review suspects`` and ``rollout report --errors``: planted labels are found, queued once, and shown."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rollout.heads import Truth
from rollout.review import actions
from rollout.store import Redis
from tests.cli.reviews import Review
from tests.commands import rollout
from tests.conftest import ROOT
from tests.review.decisions import fill
from tests.review.items import make_item

PLANTED = range(0, 350, 50)
RECIPE = """
import msgspec
from models.digits.recipe import RECIPE as DIGITS


def load():
    dataset = DIGITS.load()
    targets = dataset.evaluation.targets.copy()
    targets[::50] = (targets[::50] + 5) % 10
    return dataset._replace(evaluation=dataset.evaluation._replace(targets=targets))


RECIPE = msgspec.structs.replace(DIGITS, load=load)
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Recipes in which some labels of the evaluation part are wrong."""
    folder = tmp_path / "planted" / "digits"
    folder.mkdir(parents=True)
    (folder / "recipe.py").write_text(RECIPE)
    return folder.parent


@pytest.fixture
def review(redis: Redis, valkey_url: str, tmp_path: Path) -> Review:
    review = Review(tmp_path, valkey_url)
    path = os.pathsep.join(filter(None, (review.environment.get("PYTHONPATH"), str(ROOT))))
    review.environment["PYTHONPATH"] = path
    return review


async def test_planted_labels_are_found_and_queued_once(
    review: Review, redis: Redis, models: Path, bundles: str
) -> None:
    await fill(redis, [make_item(1)])
    suspects = ("suspects", "digits:v2", "--models", models, "--queue")
    first = review.json(*suspects)
    found = {one["row"] for one in first["suspects"] if one["part"] == "evaluation"}
    assert len(found & set(PLANTED)) >= 5
    assert first["rows"] == {"calibration": 359, "evaluation": 360}
    count = len(first["suspects"])
    assert first["queued"] == {"queued": count, "already_there": 0, "kept_out": 0}
    printed = review.lines(*suspects)
    assert printed[0] == f"{count} labels look wrong to digits:v2, of 359 of calibration, 360 of evaluation"
    assert printed[-1] == f"0 queued, {count} there already, 0 without room"
    claimed = await actions.claim(redis, "digits", "ada", filters={"reason": "suspect_label"})
    (leased,) = claimed.items
    await actions.resolve(redis, "digits", leased.item.id, leased.token, Truth(label="3"))
    (row,) = review.rows()
    assert (row["reason"], row["key"], row["label"]) == ("suspect_label", leased.item.key, "3")


def test_mistakes_are_grouped_and_shown(review: Review, models: Path, bundles: str) -> None:
    done = rollout(
        "report", "digits:v2", "--errors", "--models", models, "--json", environment=review.environment
    )
    evaluation, reviewed = json.loads(done.stdout)["errors"]
    assert reviewed is None
    assert evaluation["mistakes"] >= 8
    assert {one["row"] for one in evaluation["examples"].values()} & set(PLANTED)
    page = review.folder / "page.html"
    rollout("report", "digits:v2", "--errors", "--models", models, "--html", page, environment=review.environment)
    html = page.read_text()
    assert html.count('src="data:image/png;base64,') >= 8
    assert "other rows than those that this bundle was packed with" in html
    assert "Fisher&#39;s exact test" in html


def test_without_its_recipe_a_report_says_what_it_lacks(review: Review, bundles: str) -> None:
    done = rollout("report", "digits:v2", "--errors", "--models", review.folder, environment=review.environment)
    said = " ".join(done.stdout.split())
    assert "A bundle keeps no rows, and there is no recipe in" in said
    assert "No reviewed rows were given" in said


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--labels", "x.jsonl"], "--labels are looked at with --errors"),
        (["--html", "x.html", "--json"], "two ways to give the same"),
    ],
)
def test_options_that_contradict_each_other(review: Review, bundles: str, options: list[str], why: str) -> None:
    done = rollout("report", "digits:v2", *options, environment=review.environment)
    assert done.returncode == 1
    assert why in done.stderr
