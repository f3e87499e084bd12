"""Feedback and forgetting over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from loadtests.fleet import Valkey
from rollout.config import Settings
from rollout.inference.engine import Engine
from rollout.inference.rows import Rows
from rollout.keys import Keys
from rollout.review.forget import forget_client
from rollout.review.item import item_id
from rollout.review.outcomes import Outcome, read_outcomes
from rollout.review.predictions import Predicted
from rollout.review.queue import list_items
from rollout.routing.assignment import Arm, assign
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.store import Redis, connect
from tests.conftest import Service, run_service, set_split, wait_for_metric
from tests.http.conftest import Endpoints
from tests.images import held_out, image, row, three_or_eight

FEEDBACK, PREDICT = "/v1/models/digits/feedback", "/v1/models/digits/predict"
SPLIT = Split(champion="v1", challenger="v2", share=0.2, experiment="digits-v1-v2")
TOKENS = {role: f"the-token-of-the-{role}" for role in ("app", "reviewer", "admin")}


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("feedback") / "valkey")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def running(bundles: str, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers and roles, on a Valkey that may go."""
    home = tmp_path_factory.mktemp("feedback-home")
    url = {"ROLLOUT_REDIS_URL": valkey.url}
    set_split(home, "--champion", "v1", "--challenger", "v2", "--share", "0.2", **url)
    tokens = ",".join(f"{role}:{token}" for role, token in TOKENS.items())
    with run_service(home, None, ROLLOUT_TOKENS=tokens, ROLLOUT_MAX_INSTANCES="8", **url) as service:
        yield service


def client_of(service: Service, role: str) -> httpx.Client:
    return service.client(headers={"Authorization": f"Bearer {TOKENS[role]}"})


@pytest.fixture
def app(running: Service) -> Iterator[httpx.Client]:
    with client_of(running, "app") as client:
        yield client


@pytest.fixture
def admin(running: Service) -> Iterator[httpx.Client]:
    with client_of(running, "admin") as client:
        yield client


def client_in(arm: Arm, number: int = 0) -> str:
    """Returns a client of an arm, another one for each number."""
    return [name for name in (f"c-{one}" for one in range(2000)) if assign(SPLIT, name).arm == arm][number]


def stored(valkey: Valkey, *ids: str) -> list[Outcome | None]:
    async def read() -> list[Outcome | None]:
        redis = await connect(valkey.url)
        try:
            return await read_outcomes(redis, "digits", ids)
        finally:
            await redis.aclose()

    return asyncio.run(read())


def wait_until_kept(valkey: Valkey, client_id: str, key: str) -> None:
    """Waits until the prediction is written, which happens a moment after its answer."""
    name = f"rollout:{{digits}}:prediction:{item_id(client_id, key, b'')}"

    async def exists() -> bool:
        redis = await connect(valkey.url)
        try:
            return bool(await redis.exists(name))
        finally:
            await redis.aclose()

    give_up = time.monotonic() + 10
    while not asyncio.run(exists()):
        assert time.monotonic() < give_up
        time.sleep(0.05)


@pytest.mark.parametrize("arm", ["control", "challenger"])
def test_an_outcome_is_joined_with_the_prediction(app: httpx.Client, valkey: Valkey, arm: Arm) -> None:
    client_id = client_in(arm)
    answer = app.post(PREDICT, json=row(client_id=client_id, key="late")).json()
    assert answer["arm"] == arm
    wait_until_kept(valkey, client_id, "late")
    report = {"client_id": client_id, "key": "late", "label": "7"}
    taken = app.post(FEEDBACK, json=report)
    assert taken.status_code == 200, taken.text
    outcome = taken.json()
    assert outcome == {
        "model": "digits",
        **report,
        "at": outcome["at"],
        "repeated": False,
        "joined": True,
        "arm": arm,
        "version": answer["version"],
        "revision": answer["revision"],
    }
    assert app.post(FEEDBACK, json=report).json() == outcome | {"repeated": True}
    (kept,) = stored(valkey, item_id(client_id, "late", b""))
    assert kept is not None
    assert kept.predicted is not None
    said = {name: answer[name] for name in ("label", "confidence")}
    assert (kept.label, kept.predicted.answer, kept.predicted.variant) == ("7", said, answer["variant"])
    assert (kept.predicted.pi, kept.predicted.pinned, kept.predicted.fallback) == (1.0, False, None)


def test_numbers_of_the_teams_own_come_with_a_label_or_alone(app: httpx.Client, valkey: Valkey) -> None:
    client_id = client_in("challenger", 7)
    report = {"client_id": client_id, "key": "order-n", "label": "3", "numbers": {"basket_eur": 12.5}}
    taken = app.post(FEEDBACK, json=report)
    assert (taken.status_code, taken.json()["numbers"]) == (200, {"basket_eur": 12.5})
    alone = app.post(FEEDBACK, json={"client_id": client_id, "key": "order-m", "numbers": {"basket_eur": 0}})
    assert alone.status_code == 200
    assert "label" not in alone.json()
    other = app.post(FEEDBACK, json=report | {"numbers": {"basket_eur": 99}})
    assert other.status_code == 409
    for numbers, pointer in (
        ({"late": 1}, "/numbers"),
        ({"a|b": 1}, "/numbers"),
        ({"basket_eur": 1e16}, "/numbers/basket_eur"),
        ({f"n{at}": 1 for at in range(21)}, "/numbers"),
    ):
        refused = app.post(FEEDBACK, json=report | {"key": "x", "numbers": numbers})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == f"#{pointer}"
    (kept,) = stored(valkey, item_id(client_id, "order-n", b""))
    assert kept is not None
    assert kept.numbers == {"basket_eur": 12.5}


def test_an_early_outcome_is_joined_when_the_prediction_comes(app: httpx.Client, valkey: Valkey) -> None:
    client_id = client_in("control", 1)
    report = {"client_id": client_id, "key": "early", "label": "7"}
    early = app.post(FEEDBACK, json=report).json()
    assert (early["joined"], early["arm"], early["version"], early["revision"]) == (False, None, None, None)
    app.post(PREDICT, json=row(client_id=client_id, key="early"))
    wait_until_kept(valkey, client_id, "early")
    again = app.post(FEEDBACK, json=report).json()
    assert again == early | {"repeated": True, "joined": True, "arm": "control", "version": "v1", "revision": 1}


def test_outside_the_trial_only_what_is_reviewed_is_joined(app: httpx.Client, valkey: Valkey) -> None:
    client_id = client_in("champion")
    unsure = {"client_id": client_id, "key": "unsure", "inputs": {"image": three_or_eight()}}
    assert app.post(PREDICT, json=unsure).json()["review"] == "queued"
    assert app.post(PREDICT, json=row(client_id=client_id, key="sure")).json()["review"] is None
    reports = [{"client_id": client_id, "key": key, "label": "3"} for key in ("unsure", "sure")]
    first, second = app.post(FEEDBACK, json={"outcomes": reports}).json()["outcomes"]
    assert (first["joined"], first["arm"]) == (True, "champion")
    assert second["joined"] is False
    (reviewed,) = stored(valkey, item_id(client_id, "unsure", b""))
    assert reviewed is not None
    assert reviewed.predicted is not None
    assert (reviewed.predicted.reason, reviewed.predicted.pi) == ("low_confidence", 1.0)


def test_a_contradiction_changes_nothing(app: httpx.Client, valkey: Valkey) -> None:
    report = {"client_id": "c-1", "key": "changed", "label": "3"}
    since = app.post(FEEDBACK, json=report).json()["at"]
    other = app.post(FEEDBACK, json=report | {"label": "8"})
    assert other.status_code == 409
    problem = other.json()
    assert problem["type"] == "urn:rollout:problem:outcome-conflict"
    assert problem["errors"] == [{"pointer": "#/label", "detail": f"is 3 since {since}"}]
    assert f"is 3 since {since}" in problem["detail"]
    (kept,) = stored(valkey, item_id("c-1", "changed", b""))
    assert kept is not None
    assert (kept.label, kept.at) == ("3", since)


def test_of_a_list_with_contradictions_the_others_are_taken(app: httpx.Client, valkey: Valkey) -> None:
    reports = [{"client_id": "c-1", "key": f"list-{number}", "label": "3"} for number in range(4)]
    assert app.post(FEEDBACK, json=reports[1]).status_code == 200
    reports[1] = reports[1] | {"label": "8"}
    answer = app.post(FEEDBACK, json={"outcomes": [*reports, reports[0] | {"label": "1"}]})
    assert answer.status_code == 409
    assert [error["pointer"] for error in answer.json()["errors"]] == ["#/outcomes/1/label", "#/outcomes/4/label"]
    assert "2 of 5 outcomes contradict" in answer.json()["detail"]
    ids = [item_id("c-1", f"list-{number}", b"") for number in range(4)]
    assert [one.label for one in stored(valkey, *ids) if one] == ["3"] * 4
    again = app.post(FEEDBACK, json={"outcomes": [reports[0], *reports[2:]]}).json()["outcomes"]
    assert [(one["key"], one["repeated"]) for one in again] == [(f"list-{n}", True) for n in (0, 2, 3)]


GOOD: dict[str, Any] = {"client_id": "c-1", "key": "k", "label": "3"}


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"key": "k", "label": "3"}, {"#/client_id": "is required"}),
        ({"client_id": "c"}, {"#/key": "is required"}),
        ({"client_id": "c", "key": "k"}, {"#/label": "is required"}),
        (GOOD | {"label": "ten"}, {"#/label": "must be one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"}),
        (GOOD | {"label": 3}, {"#/label": "expected str"}),
        (GOOD | {"label": None, "value": 3}, {"#/value": "send label", "#/label": "is required"}),
        (GOOD | {"key": ""}, {"#/key": "1 to 128 printable characters"}),
        (GOOD | {"key": "k" * 129}, {"#/key": "1 to 128 printable characters"}),
        (GOOD | {"key": None}, {"#/key": "1 to 128 printable characters"}),
        (GOOD | {"client_id": "c\n"}, {"#/client_id": "1 to 128 printable characters"}),
        (GOOD | {"colour": "red"}, {"#": "unknown field"}),
        ({"outcomes": []}, {"#/outcomes": "must hold 1 to 8 outcomes, not 0"}),
        ({"outcomes": [GOOD] * 9}, {"#/outcomes": "must hold 1 to 8 outcomes, not 9"}),
        ({"outcomes": [GOOD], "key": "k"}, {"#/outcomes": "stands alone"}),
        ({"outcomes": [GOOD, {"client_id": "c", "label": "3"}]}, {"#/outcomes/1/key": "is required"}),
        (
            {"outcomes": [GOOD, GOOD | {"label": "x"}, GOOD | {"client_id": "\t", "label": "y"}]},
            {
                "#/outcomes/1/label": "must be one of",
                "#/outcomes/2/client_id": "printable",
                "#/outcomes/2/label": "must be one of",
            },
        ),
        ("a word", {"#": "object"}),
    ],
)
def test_what_does_not_fit_is_refused_whole(
    app: httpx.Client, valkey: Valkey, body: Any, errors: dict[str, str]
) -> None:
    answer = app.post(FEEDBACK, json=body)
    assert answer.status_code == 422, answer.text
    found = {error["pointer"]: error["detail"] for error in answer.json()["errors"]}
    assert found.keys() == errors.keys()
    for pointer, words in errors.items():
        assert words in found[pointer]
    assert stored(valkey, item_id("c-1", "k", b"")) == [None]


def test_other_ways_to_get_it_wrong(app: httpx.Client, running: Service) -> None:
    assert app.post(FEEDBACK, content="label=3").status_code == 415
    json = {"Content-Type": "application/json"}
    assert app.post(FEEDBACK, content="label=3", headers=json).status_code == 400
    assert app.get(FEEDBACK).headers["Allow"] == "POST"
    assert app.post("/v1/models/nothing/feedback", json=GOOD).status_code == 404
    with running.client() as nobody, client_of(running, "reviewer") as reviewer:
        assert nobody.post(FEEDBACK, json=GOOD).status_code == 401
        assert reviewer.post(FEEDBACK, json=GOOD).status_code == 403


def test_a_regression_takes_a_finite_number(endpoints: Endpoints) -> None:
    path, sent = "/v1/models/departures/feedback", {"client_id": "c-1", "key": "flight-1"}
    with endpoints.service.client() as client:
        taken = client.post(path, json=sent | {"value": 12}).json()
        assert (taken["value"], taken["joined"], "label" in taken) == (12.0, False, False)
        assert client.post(path, json=sent | {"value": 12.0}).json()["repeated"] is True
        conflict = client.post(path, json=sent | {"value": 13})
        assert (conflict.status_code, "is 12.0 since" in conflict.text) == (409, True)
        json = {"Content-Type": "application/json"}
        for value in ("1e999", "null", "true", '"12"', "NaN"):
            body = f'{{"client_id": "c-1", "key": "flight-2", "value": {value}}}'
            assert client.post(path, content=body, headers=json).status_code in (400, 422), value
        wrong = client.post(path, json=sent | {"label": "late"}).json()
        assert {error["pointer"] for error in wrong["errors"]} == {"#/label", "#/value"}


def test_outcomes_are_counted(app: httpx.Client) -> None:
    for fate in ("joined", "waiting", "repeated", "refused"):
        wait_for_metric(app, 1, "rollout_outcomes_total", f'fate="{fate}"', 'model="digits"')


def test_a_client_is_forgotten(app: httpx.Client, admin: httpx.Client, running: Service, valkey: Valkey) -> None:
    client_id = "zoë/4711 %"
    path = "/v1/models/digits/clients/zo%C3%AB%2F4711%20%25"
    unsure = {"client_id": client_id, "key": "order-9", "inputs": {"image": three_or_eight()}}
    assert app.post(PREDICT, json=unsure).json()["review"] == "queued"
    app.post(FEEDBACK, json={"client_id": client_id, "key": "order-9", "label": "3"})
    assert app.delete(path).status_code == 403
    assert client_id in admin.get("/v1/models/digits/reviews?limit=1000").text
    answer = admin.delete(path)
    assert answer.status_code == 200, answer.text
    forgotten = answer.json()["forgotten"]
    assert (forgotten["reviews"], forgotten["outcomes"]) == (1, 1)
    assert client_id not in admin.get("/v1/models/digits/reviews?limit=1000").text
    assert stored(valkey, item_id(client_id, "order-9", b"")) == [None]
    assert admin.delete(path).json() == {"forgotten": {"reviews": 0, "outcomes": 0, "predictions": 0}}
    assert admin.delete("/v1/models/digits/clients/").status_code == 422
    assert "DELETE" in admin.get(path).headers["Allow"]


def test_a_prediction_that_waits_in_a_worker_is_forgotten_too(
    app: httpx.Client, admin: httpx.Client, valkey: Valkey
) -> None:
    client_id = client_in("challenger", 3)
    for _ in range(5):
        answers = [app.post(PREDICT, json=row(client_id=client_id, key=f"k-{number}")) for number in range(20)]
        assert {answer.status_code for answer in answers} == {200}
        admin.delete(f"/v1/models/digits/clients/{client_id}")
        time.sleep(0.6)
        gone = admin.delete(f"/v1/models/digits/clients/{client_id}").json()["forgotten"]
        assert gone["predictions"] == 0, "it came back from a buffer"


def test_without_redis_an_outcome_is_to_be_sent_again(
    app: httpx.Client, admin: httpx.Client, valkey: Valkey
) -> None:
    client_id = client_in("challenger", 4)
    report = {"client_id": client_id, "key": "away", "label": "3"}
    valkey.kill()
    try:
        for answer in (app.post(FEEDBACK, json=report), admin.delete("/v1/models/digits/clients/c-1")):
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:rollout:problem:store-unavailable")
        assert app.post(PREDICT, json=row(client_id=client_id, key="away")).status_code == 200
        time.sleep(1)
    finally:
        valkey.start()
    wait_until_kept(valkey, client_id, "away")
    taken = app.post(FEEDBACK, json=report).json()
    assert (taken["repeated"], taken["joined"]) == (False, True)


async def test_what_waits_is_written_before_a_worker_ends(
    bundles: str, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    await write_split(redis, "digits", SPLIT)
    engine = await Engine.load(Settings(home=tmp_path), await connect(valkey_url))
    keys = [f"end-{number}" for number in range(200)]
    sent = [{"image": image()}] * len(keys)
    pixels = {"image": np.array([one["image"] for one in sent], np.uint8)}
    rows = Rows([client_in("control")] * len(keys), keys, pixels, sent, time.monotonic() + 30)
    await engine.predict(engine.model("digits"), rows)
    await engine.close()
    for key in keys:
        kept = await redis.get(Keys("digits").prediction(item_id(client_in("control"), key, b"")))
        answer = msgspec.json.decode(kept or b"", type=Predicted).answer
        assert answer.keys() == {"label", "confidence"}, "an outcome needs no scores"


async def test_what_is_scored_unseen_after_the_forgetting_is_not_reviewed(
    bundles: str, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    await write_split(redis, "digits", msgspec.structs.replace(SPLIT, shadow=1.0))
    engine = await Engine.load(Settings(home=tmp_path), await connect(valkey_url))
    forgotten, kept = client_in("champion", 1), client_in("champion", 2)
    pixels = held_out().inputs["image"][:300]
    try:
        for client_id in (forgotten, kept):
            sent = [{"image": one.tolist()} for one in pixels]
            keys = [f"unseen-{number}" for number in range(len(sent))]
            rows = Rows([client_id] * len(sent), keys, {"image": pixels}, sent, time.monotonic() + 30)
            await engine.predict(engine.model("digits"), rows)
        await forget_client(redis, "digits", forgotten, 60)
        give_up = time.monotonic() + 20
        found: list[str] = []
        while "disagreement" not in found:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.2)
            found = [item.reason async for item, _ in list_items(redis, "digits", {"client_id": kept})]
        assert not [item async for item, _ in list_items(redis, "digits", {"client_id": forgotten})]
    finally:
        await engine.close()
