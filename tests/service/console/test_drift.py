"""Drift on a model's page: what moved, beside what it was."""

from __future__ import annotations

import re

from rollout.routing.drift import keep_drift
from rollout.store import Redis
from service.console.charts import HEIGHT, paired
from service.console.drift import DRAWN, panel
from tests.routing.drifts import arm_drift, view
from tests.service.console.stage import MODEL, Browser, Stage, text_of


def test_histograms_side_by_side_have_one_scale() -> None:
    bins = paired(["low", "middle", "high"], [0.5, 0, 0.5], [0, 0, 1])
    assert [(one.label, one.expected, one.found) for one in bins] == [
        ("low", (0.5, HEIGHT / 2), (0, 0)),
        ("high", (0.5, HEIGHT / 2), (1, HEIGHT)),
    ]
    assert paired([], [], []) == []


def test_each_feature_is_drawn_once() -> None:
    found = panel(view(arm_drift(400, 30, arm="control"), arm_drift(2000, 30)))
    names = [one.found.feature for one in found.moved]
    assert len(set(names)) == len(names) <= DRAWN
    age = next(one for one in found.moved if one.found.feature == "passenger.age")
    assert (age.arms, age.found.rows) == (["control", "champion"], 2000)
    assert re.fullmatch(r"median [34]\d\.\d+ → [67]\d\.\d+ years", age.change)
    assert [version for version, _ in found.expected] == ["v1", "v1"], "control has the champion's version"


async def test_what_moved_is_on_the_page(stage: Stage, admin: Browser, redis: Redis) -> None:
    page = text_of(await admin.get(MODEL))
    assert "no worker has looked yet" in page
    await keep_drift(redis, view(arm_drift(2000)))
    assert "quiet: nothing speaks for a change in 2,000 rows" in text_of(await admin.get(MODEL))
    await keep_drift(redis, view(arm_drift(2000, 30), bare=("digits:v2",)))
    answer = await admin.get(f"{MODEL}/live")
    page = text_of(answer)
    assert "drifted: passenger.age moved" in page
    assert "digits:v2 was packed without a baseline" in page
    assert "of live rows" in page
    assert answer.text.count('<svg class="pairs"') == 3, "passenger.age, and two in the legend"
