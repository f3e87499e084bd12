"""Reviewers of a trial do not learn over HTTP which version said what; admins and the export do."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from starlette.applications import Starlette

from rollout.config import Settings
from rollout.errors import StoreUnavailableError
from rollout.heads import Truth
from rollout.http.dispatcher import Dispatcher
from rollout.http.gateway import Gateway
from rollout.http.reviews import Reviews
from rollout.inference.engine import Engine
from rollout.review.others import keep_other
from rollout.review.queue import add_items
from rollout.store import Redis
from tests.review.decisions import decide
from tests.review.items import make_item
from tests.review.test_others import disagreeing
from tests.service.console.stage import ADMIN, ALONE, REVIEWER, TOKENS, StandIn

REVIEWS = "/v1/models/digits/reviews"
KNOWN = {"v1", "onnx", "v2", 0.6, "low_confidence"}


@pytest.fixture
async def client(redis: Redis, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Of a queue in which one item of three is a disagreement, and one besides is unsure."""
    gateway = Gateway()
    gateway.open(cast("Engine", StandIn(redis, digits=ALONE)), Settings(home=tmp_path, tokens=TOKENS))
    app = Dispatcher(Starlette(), gateway, lambda _: Reviews(gateway).routes)
    await add_items(redis, [make_item(1), disagreeing(2), make_item(3)], 9)
    await keep_other(redis, disagreeing(3), 60)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://rollout") as client:
        yield client


def as_(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def values_in(found: Any) -> set[Any]:
    """Returns all that can be read in a value, however deep."""
    if isinstance(found, dict):
        return set().union(*map(values_in, found.values()))
    if isinstance(found, list):
        return set().union(*map(values_in, found))
    return {found}


async def test_a_reviewer_is_not_told(client: httpx.AsyncClient) -> None:
    listed = (await client.get(REVIEWS, headers=as_(REVIEWER))).json()["reviews"]
    body = {"reviewer": "ada", "count": 9}
    claimed = (await client.post(f"{REVIEWS}/claim", json=body, headers=as_(REVIEWER))).json()["items"]
    shown = [(await client.get(f"{REVIEWS}/{one['id']}", headers=as_(REVIEWER))).json() for one in listed]
    for items in (listed, [one["item"] for one in claimed], shown):
        by_key = {item["key"]: item for item in items}
        assert len(by_key) == 3
        alone = by_key.pop("key-1")
        assert (alone["version"], alone["answers"]) == ("v1", [alone["answer"]])
        for item in by_key.values():
            assert item["reason"] == "disagreement"
            assert sorted(answer["label"] for answer in item["answers"]) == ["3", "8"]
            assert not values_in(item) & KNOWN
    undone = claimed[0]
    path, lease = f"{REVIEWS}/{undone['item']['id']}", {"token": undone["token"]}
    decided = await client.post(f"{path}/resolve", json=lease | {"label": "8"}, headers=as_(REVIEWER))
    assert decided.status_code == 200
    again = (await client.post(f"{path}/undo", json=lease, headers=as_(REVIEWER))).json()
    assert again["item"] == undone["item"]


async def test_nor_by_filters(client: httpx.AsyncClient) -> None:
    async def keys(**filters: str) -> list[str]:
        found = (await client.get(REVIEWS, params=filters, headers=as_(REVIEWER))).json()["reviews"]
        return sorted(item["key"] for item in found)

    assert await keys(label="3") == ["key-1", "key-2", "key-3"]
    assert await keys(label="8") == ["key-2", "key-3"]
    assert await keys(reason="low_confidence") == ["key-1"]
    assert await keys(reason="disagreement") == ["key-2", "key-3"]


async def test_an_admin_and_the_export_are(client: httpx.AsyncClient, redis: Redis) -> None:
    listed = (await client.get(REVIEWS, headers=as_(ADMIN))).json()["reviews"]
    by_key = {item["key"]: item for item in listed}
    assert {key: item["reason"] for key, item in by_key.items()} == {
        "key-1": "low_confidence",
        "key-2": "disagreement",
        "key-3": "low_confidence",
    }
    assert by_key["key-3"]["version"] == "v1"
    assert by_key["key-3"]["other"]["version"] == "v2"
    await decide(redis, dict.fromkeys((item["id"] for item in listed), Truth(label="8")))
    export = f"{REVIEWS}/export?reason=low_confidence"
    rows = (await client.get(export, headers=as_(REVIEWER))).text.splitlines()
    assert len(rows) == 2
    assert any('"other":{"version":"v2"' in row for row in rows)


async def test_a_list_ends_where_its_inputs_are_large(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rollout.http.reviews.INPUT_BYTES", 20, raising=False)
    keys: list[str] = []
    while listed := (await client.get(f"{REVIEWS}?offset={len(keys)}", headers=as_(REVIEWER))).json()["reviews"]:
        assert len(listed) <= 2
        keys += [one["key"] for one in listed]
    assert sorted(keys) == ["key-1", "key-2", "key-3"]


async def test_numbers_that_take_long_to_read_are_not_read(client: httpx.AsyncClient) -> None:
    body = b'{"token":"t","tensors":{"a":[%b]}}' % b",".join([b"1e308"] * 200_000)
    headers = as_(REVIEWER) | {"Content-Type": "application/json"}
    began = time.process_time()
    answer = await client.post(f"{REVIEWS}/{'0' * 32}/resolve", content=body, headers=headers)
    assert answer.status_code == 400
    assert "closer to zero than 1e-250" in answer.json()["detail"]
    assert time.process_time() - began < 0.5


async def test_no_export_begins_without_redis(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise StoreUnavailableError("Redis does not answer; try again shortly")

    monkeypatch.setattr("rollout.review.export.record_access", refuse)
    answer = await client.get(f"{REVIEWS}/export", headers=as_(REVIEWER))
    assert (answer.status_code, answer.json()["title"]) == (503, StoreUnavailableError.title)
