"""What it takes to change a split in the console."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from rollout.config import Settings
from rollout.judge.policy import Policy
from rollout.routing.changes import promote
from rollout.routing.control import carry_out, propose
from rollout.routing.split import Split
from rollout.routing.splits import read_split
from rollout.store import Redis
from service.console.change import _change
from tests.bundle.test_signing import make_keys
from tests.service.console.stage import (
    ADMIN,
    MODEL,
    REVIEWER,
    TOKENS,
    TRIAL,
    Browser,
    Stage,
    text_of,
)


async def test_a_reviewer_sees_no_split_and_changes_none(stage: Stage) -> None:
    form = {"change": "share", "share": "50", "revision": "2", "why": "why not"}
    async with stage.browser(REVIEWER) as browser:
        for answer in (
            *[await browser.get(MODEL + path) for path in ("", "?client=c-42", "/live", "/history")],
            *[await browser.fill(path, **form) for path in ("preview", "change")],
        ):
            assert answer.status_code == 403
            page = text_of(answer)
            assert "This takes the role admin; you are logged in as a reviewer" in page
            assert '<a href="/console">To the review queue</a>' in answer.text
            assert "v2" not in page
        assert (await browser.get("/console")).headers["location"] == f"{MODEL}/review"
    assert (await stage.split()).share == 0.05


@pytest.mark.parametrize("revision", ["9" * 5000, "²", "-1", ""])
async def test_what_is_no_revision_changes_nothing(stage: Stage, admin: Browser, revision: str) -> None:
    answer = await admin.fill("change", change="share", share="10", revision=revision, why="w")
    assert answer.status_code == 412
    assert (await stage.split()).share == 0.05


async def test_what_is_not_signed_gets_no_clients_where_signatures_are_asked_for(
    stage: Stage, redis: Redis, bundles: str, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, tokens=TOKENS, public_key=make_keys(tmp_path, "ours")[1])
    async with Stage(redis, settings, await stage.split()).browser(ADMIN) as browser:
        for step in ("preview", "change"):
            page = await browser.fill(step, change="trial", challenger="v2", share="10", revision="2", why="w")
            assert page.status_code == 422
            assert "it has no signature" in text_of(page)
    assert (await stage.split()).share == 0.05


async def test_an_experiment_key_is_short(stage: Stage, admin: Browser) -> None:
    form = {"change": "trial", "challenger": "v2", "share": "10", "experiment": "x" * 257}
    page = await admin.fill("preview", **form)
    assert page.status_code == 422
    assert "at most 256 characters" in text_of(page)


async def test_a_share_is_changed_in_two_steps(stage: Stage, admin: Browser) -> None:
    page = await admin.fill("preview", change="share", share="10")
    assert page.status_code == 200
    text = text_of(page)
    assert "Give v2 10 % of the clients?" in text
    assert "Moves about 5 % of the clients from v1 to v2, and none back." in text
    assert "Clients of the challenger 5 % changes to 10 %" in text
    assert (await stage.split()).share == 0.05
    answer = await admin.fill("change", change="share", share="10", revision="2", why=" looks\n good ")
    assert answer.headers["location"] == f"{MODEL}?revision=3"
    split = await stage.split()
    assert (split.share, split.by, split.why, split.revision) == (0.1, "admin", "looks good", 3)
    page = await admin.get(answer.headers["location"])
    assert "Revision 3 is in force" in text_of(page)
    assert "Share 5 % → 10 %" in text_of(page)


async def test_shadow_and_promotion(stage: Stage, admin: Browser) -> None:
    assert "v2 scores 20 % of the others' requests unseen." in text_of(
        await admin.fill("preview", change="shadow", shadow="20")
    )
    await admin.fill("change", change="shadow", shadow="20", revision="2", why="")
    assert (await stage.split()).shadow == 0.2
    assert "Moves about 95 % of the clients from v1 to v2" in text_of(
        await admin.fill("preview", change="promote")
    )
    await admin.fill("change", change="promote", revision="3", why="better")
    split = await stage.split()
    assert (split.champion, split.challenger, split.previous) == ("v2", None, "v1")
    page = text_of(await admin.get(MODEL))
    assert "Promoted v2, before v1" in page
    assert "Roll back v2" in page


async def test_a_policy_is_changed_in_two_steps(stage: Stage, admin: Browser) -> None:
    form = {
        "change": "policy",
        "margin": "2",
        "minutes": "90",
        "clients": "50",
        "late_ms": "250",
        "step": "on",
        "rollback": "on",
    }
    assert "By itself: nothing" in text_of(await admin.get(MODEL))
    page = await admin.fill("preview", **form)
    text = text_of(page)
    assert "By itself, the service gives v2 the next share of the ramp, rolls v2 back" in text
    assert "Policy none: nothing happens by itself changes to accuracy not worse by more than 2 points" in text
    for name in ("minutes", "step", "late_ms"):
        assert f'<input type="hidden" name="{name}"' in page.text
    await admin.fill("change", revision="2", why="let it go", **form)
    policy = (await stage.split()).policy
    assert policy is not None
    assert (policy.margin, policy.least_s, policy.least_clients) == (0.02, 5400, 50)
    assert (policy.guardrails.late_ms, policy.by_itself) == (250, ("step", "rollback"))
    assert "By itself: step, rollback" in text_of(await admin.get(MODEL))
    for name, value, said in (
        ("minutes", "soon", "Minutes must be a number, not 'soon'."),
        ("clients", "1", "Least_clients must be at least 2, not 1."),
        ("margin", "nan", "A margin must be a number of percent, not 'nan'."),
    ):
        refused = await admin.fill("preview", **(form | {name: value}))
        assert refused.status_code == 422
        assert said in text_of(refused)


def test_the_policy_of_a_trial_is_not_that_of_the_next() -> None:
    split = msgspec.structs.replace(TRIAL, policy=Policy(by_itself=("promote",)))
    form = {"change": "trial", "share": "10"}
    assert _change("digits", form | {"challenger": "v2"})(split).policy == split.policy
    assert _change("digits", form | {"challenger": "v3"})(split).policy is None


async def test_a_rollback_takes_a_why(stage: Stage, admin: Browser) -> None:
    said = text_of(await admin.fill("preview", change="rollback"))
    assert "Moves about 5 % of the clients from v2 to v1, and none back." in said
    assert "v2 goes into quarantine" in said
    page = await admin.fill("change", change="rollback", revision="2", why="  ")
    assert page.status_code == 422
    assert "Say why" in text_of(page)
    assert (await stage.split()).challenger == "v2"
    await admin.fill("change", change="rollback", revision="2", why="wrong sevens")
    split = await stage.split()
    assert (split.challenger, split.why) == (None, "wrong sevens")
    answer = await admin.fill("preview", change="rollback")
    assert answer.status_code == 422
    assert "There is neither a challenger on trial nor a promotion" in text_of(answer)


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"change": "share", "share": "60"}, "A share must lie between 0 and 0.5"),
        ({"change": "share", "share": "lots"}, "A share must be a number of percent, not 'lots'."),
        ({"change": "share", "share": "nan"}, "A share must be a number of percent, not 'nan'."),
        ({"change": "shadow", "shadow": "-1"}, "A shadow rate must lie between 0 and 1"),
        ({"change": "trial", "challenger": ""}, "Choose the version that goes on trial."),
        ({"change": "trial", "challenger": "v1"}, "v1 cannot be its own challenger."),
        ({"change": "dance"}, "This form asks for no change that there is."),
        ({}, "This form asks for no change that there is."),
    ],
)
async def test_a_refusal_stands_beside_the_form(admin: Browser, form: dict[str, str], sentence: str) -> None:
    for path in ("preview", "change"):
        answer = await admin.fill(path, **form, revision="2")
        assert answer.status_code == 422
        if form.get("change") in ("share", "shadow", "trial"):
            assert sentence in text_of(answer)
            for name in ("share", "shadow"):
                if name in form:
                    assert f'name="{name}"' in answer.text
                    assert f'value="{form[name]}"' in answer.text


@pytest.mark.parametrize("kind", ["share", "rollback", "promote"])
async def test_who_comes_second_is_told_who_was_first(stage: Stage, admin: Browser, kind: str) -> None:
    first = await propose(stage.redis, "digits", lambda split: promote(split) if split else TRIAL)
    await carry_out(stage.redis, first, "grace", "it is better")
    answer = await admin.fill("change", change=kind, share="50", revision="2", why="I say so")
    assert answer.status_code == 412
    page = text_of(answer)
    assert re.search(r"Changed by grace at [\d: -]+ UTC: it is at revision 3, and you looked at 2.", page)
    assert "Promoted v2, before v1 it is better" in page
    assert (await stage.split()).revision == 3


async def test_a_form_without_its_revision_changes_nothing(stage: Stage, admin: Browser) -> None:
    for revision in ("", "x", "-2", "99"):
        answer = await admin.fill("change", change="share", share="50", revision=revision)
        assert answer.status_code == 412
    assert (await stage.split()).revision == 2


async def test_a_new_trial_and_a_version_from_quarantine(redis: Redis, tmp_path: Path, bundles: str) -> None:
    def begin(_: Split | None) -> Split:
        return Split(champion="v1")

    await carry_out(redis, await propose(redis, "digits", begin), "ada", "")
    served = await read_split(redis, "digits")
    assert served is not None
    stage = Stage(redis, Settings(home=tmp_path, tokens=TOKENS), served)
    trial = {"change": "trial", "challenger": "v2", "share": "2.5", "shadow": "10", "experiment": ""}
    async with stage.browser(ADMIN) as admin:
        page = await admin.get(MODEL)
        assert "<option selected>v2</option>" in page.text
        assert 'value="digits-v1-v2"' in page.text
        said = text_of(await admin.fill("preview", **trial))
        assert "Put v2 on trial?" in said
        assert "v2 goes on trial with 2.5 % of the clients" in said
        assert "digits:v2 goes on trial without a gate" in said
        await admin.fill("change", **trial, revision="1", why="first look")
        split = await stage.split()
        assert (split.challenger, split.share, split.shadow) == ("v2", 0.025, 0.1)
        assert split.experiment == "digits-v1-v2"
        await admin.fill("change", change="rollback", revision="2", why="wrong sevens")
        answer = await admin.fill("preview", **trial)
        assert answer.status_code == 409
        assert re.search(r"v2 was rolled back by admin on [\d: -]+ UTC: wrong sevens\.", text_of(answer), re.I)
        assert "Let it out of quarantine" in text_of(answer)
        assert 'value="2.5"' in answer.text
        page = await admin.fill("preview", **trial, release="on")
        assert "v2 leaves the quarantine." in text_of(page)
        await admin.fill("change", **trial, release="on", revision="3", why="fixed")
        assert (await stage.split()).challenger == "v2"
        answer = await admin.fill("preview", **(trial | {"challenger": "v9"}))
        assert answer.status_code == 422
        assert "There is no bundle digits:v9" in text_of(answer)


async def test_a_split_is_changed_in_the_name_that_was_given(stage: Stage) -> None:
    async with stage.browser() as browser:
        await browser.log_in(ADMIN, "Ada L.")
        await browser.fill("change", change="share", share="10", revision="2", why="looks good")
    assert (await stage.split()).by == "Ada L."
