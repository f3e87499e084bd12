"""The trial on a model's page: the verdict in words, the ramp, and how the intervals narrowed."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from rollout.judge.findings import Finding
from rollout.judge.policy import Policy
from rollout.judge.verdict import judge
from rollout.routing import looks as looks_module
from rollout.routing.looks import Look, add_look
from rollout.routing.splits import write_split
from rollout.routing.trial_evidence import read_evidence
from rollout.routing.verdict import shown
from rollout.store import Redis
from service.console.trial import HEIGHT, WIDTH, narrowing
from tests.routing.trials import feed
from tests.service.console.stage import MODEL, Browser, Stage, text_of


def look(at: str, low: float, high: float, **changes: Any) -> Look:
    found = Finding(
        question="accuracy", state="open", estimate=(low + high) / 2, low=low, high=high, limit=-0.01, detail=""
    )
    fields: dict[str, Any] = {
        "at": f"2026-11-22T10:{at}Z",
        "revision": 2,
        "share": 0.05,
        "verdict": "hold",
        "reason": "undecided",
        "detail": "",
        "findings": (found,),
        "labels_wanted": None,
        "evidence": {},
    }
    return Look(**(fields | changes))


def test_an_interval_narrows_to_the_right() -> None:
    chart = narrowing("accuracy", [look("00:00", -1, 1), look("01:00", -0.2, 0.2), look("02:00", -0.1, 0.1)])
    assert chart is not None
    corners = [tuple(map(float, corner.split(","))) for corner in chart.band.split()]
    assert [x for x, _ in corners] == [0, WIDTH / 2, WIDTH, WIDTH, WIDTH / 2, 0]
    upper, lower = [y for _, y in corners[:3]], [y for _, y in corners[3:]][::-1]
    widths = [below - above for above, below in zip(upper, lower, strict=True)]
    assert widths[0] == HEIGHT, "what is much wider than the last reaches beyond"
    assert widths[0] > widths[1] > widths[2]
    assert chart.zero == HEIGHT / 2 < chart.limit
    assert chart.text == "from -100.00 pt to +100.00 pt at first, from -10.00 pt to +10.00 pt now"
    assert narrowing("accuracy", [look("00:00", -1, 1)]) is None
    assert narrowing("late", [look("00:00", -1, 1), look("01:00", -1, 1)]) is None


async def test_a_trial_on_the_page(stage: Stage, admin: Browser, redis: Redis, monkeypatch: Any) -> None:
    before = await stage.split()
    split = await write_split(
        redis, "digits", msgspec.structs.replace(before, policy=Policy(margin=0.02, by_itself=("step",)))
    )
    for at, rows in (("10:00:00", 5), ("10:01:00", 20)):
        await feed(redis, split.revision, rows=rows, accuracy=0.9, better=0.02)
        evidence = await read_evidence(redis, "digits", split)
        monkeypatch.setattr(looks_module, "utc_now", lambda at=at: f"2026-11-22T{at}Z")
        await add_look(redis, "digits", split, judge(evidence, split.policy), shown(evidence))
    page = await admin.get(MODEL)
    text = text_of(page)
    assert "hold: this stage has lasted" in text
    assert re.search(r"It waits for another (1 day|24 h)\.", text)
    assert "1 % 5 % since 10:00 10 % 25 % 50 %" in text
    assert '<li class="now" aria-current="step"><b>5 %</b>' in page.text
    assert re.search(
        r"control has 2\d\d clients with 6,400 rows, challenger has 2\d\d clients with 6,400 rows", text
    )
    assert re.search(r"accuracy cleared \+2\.\d\d pt", text)
    assert page.text.count('<svg class="narrowing"') == 4
    assert '<svg class="narrowing"' in (await admin.get(f"{MODEL}/live")).text, "it changes by itself"


async def test_a_trial_that_is_over_stays_on_the_page(
    stage: Stage, admin: Browser, redis: Redis, monkeypatch: Any
) -> None:
    split = await stage.split()
    for at, share, rows in (("10:00:00", 0.05, 5), ("10:01:00", 0.05, 20), ("10:02:00", 0.1, 20)):
        if share != split.share:
            split = await write_split(redis, "digits", msgspec.structs.replace(split, share=share))
        await feed(redis, split.revision, rows=rows, accuracy=0.9, better=0.02)
        evidence = await read_evidence(redis, "digits", split)
        monkeypatch.setattr(looks_module, "utc_now", lambda at=at: f"2026-11-22T{at}Z")
        await add_look(redis, "digits", split, judge(evidence, split.policy), shown(evidence))
    during = (await admin.get(MODEL)).text
    assert during.count('<line class="zero" x1="300.0" x2="300.0"') == 3, (
        "where the share changed, in each diagram"
    )
    assert '<polyline class="control" points="0.0,' in during
    await admin.fill("change", change="rollback", revision=str(split.revision), why="enough")
    page = await admin.get(MODEL)
    text = text_of(page)
    assert "Last trial, of v2" in text
    assert "Took v2 off trial, everybody gets v1." in text
    assert "In its last stage control had 2" in text
    assert re.search(r"requests [\d,]+ control, [\d,]+ challenger", text)
    assert 'aria-current="step"' not in page.text
    assert page.text.count('<li class="done"') == 2
    assert page.text.count('<svg class="narrowing"') == 3


async def test_without_a_trial_there_is_none_on_the_page(stage: Stage, admin: Browser) -> None:
    await admin.fill("change", change="rollback", revision="2", why="enough")
    assert 'id="trial"' not in (await admin.get(MODEL)).text
