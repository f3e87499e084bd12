"""What became of labels, on a model's page."""

from __future__ import annotations

from rollout.store import Redis
from tests.improvement.attempts import REFUSED, keep
from tests.service.console.stage import MODEL, Browser, Stage, text_of


async def test_the_last_attempt_and_why_it_ended_are_on_the_page(
    stage: Stage, admin: Browser, redis: Redis
) -> None:
    assert "No version was made from labels yet: rollout improve digits does." in text_of(await admin.get(MODEL))
    await keep(redis, "digits", REFUSED)
    for path in (MODEL, f"{MODEL}/live"):
        text = text_of(await admin.get(path))
        assert "v2.1 was refused by the gate, and no client gets it: v2 trained again on 1,200 new labels" in text
        assert "The gate says worse. The candidate is worse. Look at the labels." in text
        assert "2 of 1,200 reviewed rows may be mislabelled." in text
        assert "labels: 1,200 used" in text
