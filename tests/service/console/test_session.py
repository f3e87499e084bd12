"""Who gets into the console, and whose forms are taken."""

from __future__ import annotations

import asyncio
import gzip
import re
import time
from pathlib import Path
from unittest import mock

import pytest

from rollout.config import Settings
from rollout.http.auth import admin_token
from rollout.http.routes import FORM
from rollout.store import Redis
from service.console.logins import FAILURES_A_MINUTE
from service.console.session import COOKIE, LASTS_S
from tests.service.console.stage import (
    ADMIN,
    APP,
    MODEL,
    REVIEWER,
    TOKENS,
    TRIAL,
    Browser,
    Stage,
    text_of,
    write_history,
)


async def test_without_a_session_every_page_leads_to_the_login_and_back(stage: Stage) -> None:
    async with stage.browser() as browser:
        for path in ("/console", MODEL, f"{MODEL}/live", f"{MODEL}/history"):
            answer = await browser.get(path)
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/console/login")
        assert (await browser.get("/console")).headers["location"] == "/console/login"
        answer = await browser.get(f"{MODEL}?client=a%26b")
        login = await browser.get(answer.headers["location"])
        wanted = re.search(r'name="next" value="([^"]*)"', login.text)
        assert wanted is not None
        assert wanted[1] == f"{MODEL}?client=a%26b"
        answer = await browser.post("/console/login", data={"token": ADMIN, "next": wanted[1]})
        assert answer.headers["location"] == f"{MODEL}?client=a%26b"
        assert (await browser.get("/console")).headers["location"] == MODEL
        assert (await browser.post("/console/models/digits/change")).status_code == 403


@pytest.mark.parametrize(
    "path", ["//evil.example", "https://evil.example", "/console/\\evil", "/consolex", "/v1"]
)
async def test_the_login_leads_nowhere_else(stage: Stage, path: str) -> None:
    async with stage.browser() as browser:
        answer = await browser.post("/console/login", data={"token": ADMIN, "next": path})
        assert answer.headers["location"] == "/console"


async def test_who_gets_in(stage: Stage) -> None:
    async with stage.browser() as browser:
        wrong = await browser.log_in("not-a-token")
        assert wrong.status_code == 401
        assert "not a token of this service" in text_of(wrong)
        app = await browser.log_in(APP)
        assert app.status_code == 403
        assert "has the role app: it may predict, and see nothing here" in text_of(app)
        assert not browser.cookies
        assert (await browser.log_in(f" {REVIEWER}\n")).status_code == 303
        page = await browser.get(f"{MODEL}/review")
        assert page.status_code == 200
        assert "Rita Reviewer · reviewer" in text_of(page)


async def test_the_login_says_where_the_admin_token_is(redis: Redis, tmp_path: Path) -> None:
    served = await write_history(redis, "digits", TRIAL)
    stage = Stage(redis, Settings(home=tmp_path), served)
    async with stage.browser() as browser:
        page = text_of(await browser.get("/console/login"))
        assert f"the admin token is in {tmp_path / 'token'}." in page
        assert admin_token(tmp_path)[0] not in page
        assert (await browser.log_in(admin_token(tmp_path)[0])).status_code == 303
    stage = Stage(redis, Settings(home=tmp_path, tokens=TOKENS), served)
    async with stage.browser() as browser:
        assert "No tokens are configured" not in text_of(await browser.get("/console/login"))


async def test_the_cookie(stage: Stage) -> None:
    async with stage.browser() as browser:
        cookie = (await browser.log_in(ADMIN)).headers["set-cookie"]
        parts = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert parts == {"httponly", "samesite=strict", "path=/console", f"max-age={LASTS_S}"}
        form = {"token": ADMIN}
        for proto in ("https", "https, http", "http,HTTPS"):
            answer = await browser.post("/console/login", data=form, headers={"X-Forwarded-Proto": proto})
            assert "; Secure" in answer.headers["set-cookie"]
        answer = await browser.post("https://console/console/login", data=form)
        assert "; Secure" in answer.headers["set-cookie"]
        assert ADMIN not in cookie


async def test_a_session_holds_on_every_replica_and_ends_with_the_tokens_or_after_12_hours(
    stage: Stage, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage.browser(ADMIN) as browser:
        cookies = dict(browser.cookies)
    served = await stage.split()
    replica = Stage(redis, Settings(home=tmp_path / "other", tokens=TOKENS), served)
    async with replica.browser(cookies=cookies) as browser:
        assert (await browser.get(MODEL)).status_code == 200
        later = time.time() + LASTS_S + 5
        with monkeypatch.context() as patched:
            patched.setattr("time.time", lambda: later)
            assert (await browser.get(f"{MODEL}/history")).status_code == 303
    changed = Stage(redis, Settings(home=tmp_path, tokens=f"admin:{ADMIN}"), served)
    async with changed.browser(cookies=cookies) as browser:
        assert (await browser.get(MODEL)).status_code == 303
    forged = {COOKIE: cookies[COOKIE][:-2] + "aa"}
    async with replica.browser(cookies=forged) as browser:
        assert (await browser.get(MODEL)).status_code == 303


async def test_logging_out(admin: Browser) -> None:
    assert (await admin.post("/console/logout")).status_code == 403
    answer = await admin.post("/console/logout", data={"csrf": admin.csrf})
    assert answer.headers["location"] == "/console/login"
    assert (await admin.get(MODEL)).status_code == 303


async def test_a_cookie_is_worth_nothing_after_the_logout_on_any_replica(
    stage: Stage, redis: Redis, tmp_path: Path
) -> None:
    async with stage.browser(ADMIN) as browser:
        cookies = dict(browser.cookies)
        await browser.post("/console/logout", data={"csrf": browser.csrf})
    replica = Stage(redis, Settings(home=tmp_path / "other", tokens=TOKENS), await stage.split())
    for each in (stage, replica):
        async with each.browser(cookies=cookies) as stolen:
            assert (await stolen.get(MODEL)).status_code == 303
    (key,) = await redis.keys("*ended*")
    assert LASTS_S - 60 < await redis.ttl(key) <= LASTS_S


async def test_tokens_cannot_be_guessed_for_long(
    stage: Stage, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage.browser() as browser:
        statuses = [(await browser.log_in(f"guess-{number}")).status_code for number in range(33)]
        assert statuses == [401] * FAILURES_A_MINUTE + [429] * 3
        blocked = await browser.log_in(ADMIN)
        assert blocked.status_code == 429, "a right guess is not told from a wrong one"
        assert blocked.headers["retry-after"] == "60"
        assert "Too many logins from your address failed" in text_of(blocked)
        assert "failed: that is not a token of this service" in caplog.text
        assert "guess-" not in caplog.text
        (key,) = await redis.keys("*failed*")
        assert 0 < await redis.ttl(key) <= 60
        await redis.delete(key)
        assert (await browser.log_in(ADMIN)).status_code == 303


async def test_many_guesses_at_once_are_no_more_than_one_after_the_other(stage: Stage, redis: Redis) -> None:
    async with stage.browser() as browser:
        answers = await asyncio.gather(*(browser.log_in(f"guess-{number}") for number in range(100)))
        assert sum(answer.status_code == 401 for answer in answers) == FAILURES_A_MINUTE


async def test_logins_that_succeed_do_not_count(stage: Stage) -> None:
    for _ in range(FAILURES_A_MINUTE + 2):
        async with stage.browser() as browser:
            assert (await browser.log_in(ADMIN)).status_code == 303


async def test_the_form_of_the_login_is_small_and_not_compressed(stage: Stage) -> None:
    headers = {"Content-Type": FORM}
    async with stage.browser() as browser:
        large = await browser.post("/console/login", content=b"token=" + b"%41" * 5000, headers=headers)
        assert large.status_code == 413
        small = gzip.compress(b"token=" + b"%41" * 2_700_000)
        answer = await browser.post(
            "/console/login", content=small, headers=headers | {"Content-Encoding": "gzip"}
        )
        assert answer.status_code == 415


async def test_a_link_from_elsewhere_asks_again_with_the_cookie(stage: Stage) -> None:
    async with stage.browser(headers={"Sec-Fetch-Site": "cross-site"}) as browser:
        answer = await browser.get(MODEL)
        assert answer.status_code == 200
        assert 'http-equiv="refresh"' in answer.text


async def test_no_cookie_takes_long_to_read(stage: Stage, admin: Browser) -> None:
    """64 KiB of such a cookie took Python ten seconds, without a token, and so ended the worker."""
    own = f"{COOKIE}={admin.cookies[COOKIE]}"
    with mock.patch("http.cookies._unquote", side_effect=AssertionError("it takes long")):
        async with stage.browser() as browser:
            for unit in ("\\a", '\\"', "\\0"):
                long = f'theme="{unit * 30_000}"'
                assert (await browser.get("/console/login", headers={"Cookie": long})).status_code == 200
                assert (await browser.get("/console/nothing", headers={"Cookie": long})).status_code == 404
                for cookie in (f"{long}; {own}", f"{own};{long}"):
                    assert (await browser.get(MODEL, headers={"Cookie": cookie})).status_code == 200


async def test_forms_of_others_are_refused(stage: Stage, admin: Browser) -> None:
    form = {"change": "share", "share": "50", "revision": "2"}
    own = {"csrf": admin.csrf}
    async with stage.browser(ADMIN) as other:
        foreign = {"csrf": other.csrf}
    for data, headers in (
        (form, {}),
        (form | {"csrf": ""}, {}),
        (form | {"csrf": "ü"}, {}),
        (form | foreign, {}),
        (form | own, {"Sec-Fetch-Site": "cross-site"}),
        (form | own, {"Sec-Fetch-Site": "same-site"}),
        (form | own, {"Origin": "https://evil.example"}),
        (form | own, {"Origin": "http://["}),
    ):
        answer = await admin.post(f"{MODEL}/change", data=data, headers=headers)
        assert answer.status_code == 403, (data, headers)
    answer = await admin.post("/console/login", data={"token": ADMIN}, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    for headers in ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, {"Origin": "http://console"}):
        revision = str((await stage.split()).revision)
        data = form | own | {"revision": revision}
        answer = await admin.post(f"{MODEL}/change", data=data, headers=headers)
        assert answer.status_code == 303


async def test_bodies_that_are_no_forms(admin: Browser) -> None:
    for body, status in ((b"\xff=1", 422), (b"&".join([b"a=1"] * 101), 422), (b"x" * 70_000, 413)):
        answer = await admin.post(f"{MODEL}/change", content=body, headers={"Content-Type": FORM})
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/html")
