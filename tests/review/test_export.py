"""The export: every label once, and then whatever changed."""

from __future__ import annotations

import datetime
import json
from typing import Any

import psutil
import pytest

from rollout.bundle.manifest import digest
from rollout.bundle.store import open_bundle
from rollout.errors import InvalidRequestError
from rollout.heads import Truth
from rollout.keys import Keys
from rollout.review import actions
from rollout.review.access_log import read_access
from rollout.review.export import EPOCH, Lineage, encode_row, export_rows, read_lineage, read_since
from rollout.review.forget import forget_client
from rollout.review.item import ReviewItem
from rollout.review.outcomes import Outcome, record_outcomes
from rollout.review.policy import ReviewPolicy, write_policy
from rollout.review.queue import CHUNK
from rollout.store import Redis
from tests.review.decisions import decide, fill, multiply
from tests.review.items import make_guess, make_item

NO_BUNDLES: Lineage = dict[str, dict[str, Any]]().get
THREE, EIGHT = Truth(label="3"), Truth(label="8")


async def export(redis: Redis, since: int | None = None, **filters: str) -> list[dict[str, Any]]:
    rows = export_rows(redis, "digits", since, NO_BUNDLES, who="ada", role="admin", filters=filters)
    return [json.loads(encode_row(row)) async for row in rows]


async def answer(redis: Redis, reviewer: str, label: str, *, escalated: bool = False) -> actions.Leased:
    """Claims the next item and answers it."""
    (leased,) = (await actions.claim(redis, "digits", reviewer, escalated=escalated)).items
    await actions.resolve(redis, "digits", leased.item.id, leased.token, Truth(label=label))
    return leased


def link_to(primary: ReviewItem, number: int, **changes: Any) -> ReviewItem:
    """Returns a prediction with the same inputs of the same client as another item."""
    return make_item(number, client_id=primary.client_id, same=primary.same, **changes)


async def test_a_row_has_all_that_is_known(redis: Redis) -> None:
    other = {"version": "v2", "label": "8", "confidence": 0.5, "scores": {"3": 0.5, "8": 0.5}}
    await fill(redis, [make_item(1, other=other, pi=0.25, reason="audit")])
    await answer(redis, "ada", "8")
    (row,) = await export(redis)
    assert row.pop("cursor") > 1_700_000_000_000_000
    assert row.pop("decided_at") > "2026"
    assert row == {
        "id": make_item(1).id,
        "model": "digits",
        "client_id": "client-1",
        "key": "key-1",
        "inputs": {"image": [[1]]},
        "label": "8",
        "retracted": False,
        "reviewers": ["ada"],
        "explained": [],
        "agreement": 1.0,
        "reason": "audit",
        "pi": 0.25,
        "at": "2026-11-22T10:00:01.001Z",
        "arm": "control",
        "version": "v1",
        "variant": "onnx",
        "revision": 1,
        "threshold": 0.6,
        "unsure": None,
        "predicted": {"label": "3", "confidence": 0.4, "scores": {"3": 0.4, "8": 0.35}},
        "other": other,
        "outcome": None,
        "lineage": None,
        "linked_to": None,
    }


async def test_a_regression_has_values(redis: Redis) -> None:
    await fill(redis, [make_guess(1)])
    await actions.take_over(redis, "digits", make_item(1).id, "ada", Truth(value=12.5))
    (row,) = await export(redis)
    assert (row["value"], "label" in row) == (12.5, False)
    assert row["predicted"] == {"value": 9.0, "interval": [4.0, 14.0]}


async def test_only_what_is_resolved_is_exported_in_the_order_of_decisions(redis: Redis) -> None:
    await fill(redis, [make_item(number) for number in range(4)])
    await decide(redis, {make_item(number).id: THREE for number in (2, 0)})
    (leased,) = (await actions.claim(redis, "digits", "ada")).items
    await actions.skip(redis, "digits", leased.item.id, leased.token, "unclear")
    rows = await export(redis)
    assert [row["key"] for row in rows] == ["key-2", "key-0"]
    assert rows[0]["cursor"] < rows[1]["cursor"]


async def test_thousands_of_items_across_chunks_each_once(redis: Redis) -> None:
    items = [make_item(number) for number in range(10 * CHUNK + 7)]
    await fill(redis, items)
    await decide(redis, {item.id: EIGHT if number % 3 else THREE for number, item in enumerate(items)})
    rows = await export(redis)
    assert [row["id"] for row in rows] == [item.id for item in items]
    assert all(row["label"] == ("8" if number % 3 else "3") for number, row in enumerate(rows))
    cursors = [row["cursor"] for row in rows]
    assert cursors == sorted(set(cursors))
    for place in (0, CHUNK - 1, CHUNK, len(items) - 1):
        assert await export(redis, cursors[place]) == rows[place + 1 :]


async def test_a_label_taken_back_is_a_row_for_whoever_has_seen_it(redis: Redis) -> None:
    await fill(redis, [make_item(1), make_item(2)])
    first, _ = await answer(redis, "ada", "3"), await answer(redis, "ada", "3")
    seen = (await export(redis))[-1]["cursor"]
    assert await export(redis, seen) == []
    await actions.undo(redis, "digits", first.item.id, first.token)
    (row,) = await export(redis, seen)
    assert (row["id"], row["retracted"], "label" in row) == (first.item.id, True, False)
    assert (row["agreement"], row["reviewers"], row["decided_at"]) == (None, [], None)
    assert [one["id"] for one in await export(redis)] == [make_item(2).id]
    await actions.resolve(redis, "digits", first.item.id, first.token, EIGHT)
    (again,) = await export(redis, row["cursor"])
    assert (again["id"], again["retracted"], again["label"]) == (first.item.id, False, "8")
    assert again["cursor"] > row["cursor"]
    assert [one["id"] for one in await export(redis)] == [make_item(2).id, first.item.id]


async def test_what_is_linked_shares_the_label_and_keeps_its_own_fields(redis: Redis) -> None:
    first = make_item(1)
    await fill(redis, [first, link_to(first, 2, arm="challenger", version="v2", pi=0.5), make_item(3)])
    await decide(redis, {first.id: EIGHT, make_item(3).id: THREE})
    item, link, last = await export(redis)
    assert (link["linked_to"], link["label"], link["inputs"]) == (first.id, "8", {"image": [[1]]})
    assert (link["key"], link["arm"], link["version"], link["pi"]) == ("key-2", "challenger", "v2", 0.5)
    assert item["linked_to"] is last["linked_to"] is None
    # Whoever was cut off between the two gets both again, and what comes later never makes one be missed.
    assert await export(redis, item["cursor"]) == [item, link, last]
    assert await export(redis, link["cursor"]) == [last]
    await fill(redis, [link_to(first, 4)])
    assert [row["key"] for row in await export(redis, last["cursor"])] == ["key-1", "key-2", "key-4"]


async def test_agreement_is_the_share_that_gave_the_label(redis: Redis) -> None:
    await write_policy(redis, "digits", ReviewPolicy(required_reviews=2))
    await fill(redis, [make_item(1)])
    await answer(redis, "ada", "3")
    assert await export(redis) == []
    await answer(redis, "bob", "8")
    await answer(redis, "eve", "8", escalated=True)
    (row,) = await export(redis)
    assert (row["label"], row["reviewers"]) == ("8", ["ada", "bob", "eve"])
    assert row["agreement"] == pytest.approx(2 / 3)


async def test_filters_hold_for_items_and_links_alike(redis: Redis) -> None:
    first = make_item(1)
    await fill(redis, [first, link_to(first, 2, version="v2"), make_item(3, version="v2")])
    await decide(redis, {first.id: THREE, make_item(3).id: THREE})
    assert [row["key"] for row in await export(redis, version="v2")] == ["key-2", "key-3"]
    assert [row["key"] for row in await export(redis, client_id="client-1")] == ["key-1", "key-2"]


async def test_inputs_that_are_not_kept_any_more_are_null(redis: Redis) -> None:
    await fill(redis, [make_item(1)])
    await decide(redis, {make_item(1).id: THREE})
    await redis.delete(Keys("digits").review(make_item(1).id, ":inputs"))
    (row,) = await export(redis)
    assert (row["inputs"], row["label"]) == (None, "3")


async def test_who_was_forgotten_is_not_exported(redis: Redis) -> None:
    await fill(redis, [make_item(1), make_item(2)])
    await decide(redis, {make_item(number).id: THREE for number in (1, 2)})
    await forget_client(redis, "digits", "client-1", 60)
    assert [row["client_id"] for row in await export(redis, 0)] == ["client-2"]


async def test_the_outcome_comes_along(redis: Redis) -> None:
    await fill(redis, [make_item(1), make_item(2)])
    await decide(redis, {make_item(number).id: THREE for number in (1, 2)})
    at = "2026-11-22T11:00:00Z"
    await record_outcomes(redis, "digits", [Outcome(client_id="client-2", key="key-2", at=at, label="8")], 60)
    assert [row["outcome"] for row in await export(redis)] == [None, {"label": "8", "at": at}]


async def test_the_access_log_knows_every_row_before_it_is_seen(redis: Redis) -> None:
    first = make_item(1)
    items = [first, link_to(first, 2), *(make_item(number) for number in range(3, CHUNK + 10))]
    await fill(redis, items)
    await decide(redis, {item.id: THREE for item in items if item.key != "key-2"})
    rows = export_rows(redis, "digits", None, NO_BUNDLES, who="ada", role="reviewer")
    assert (await anext(rows)).id == first.id
    noted = [one async for one in read_access(redis, "digits")]
    assert {(one.who, one.role, one.did) for one in noted} == {("ada", "reviewer", "export")}
    assert first.id in noted[0].ids
    assert items[-1].id not in {one for entry in noted for one in entry.ids}
    assert {row.id async for row in rows} | {first.id} == {item.id for item in items}
    assert {one async for entry in read_access(redis, "digits") for one in entry.ids} == {
        item.id for item in items
    }


async def test_the_lineage_says_where_the_version_comes_from(bundles: str, redis: Redis) -> None:
    lineage = read_lineage("digits")
    found = lineage("v2")
    _, manifest = open_bundle("digits:v2")
    assert found is not None
    assert found["digest"] == digest(manifest)
    assert found["created_at"] == manifest.created_at
    for entry in ("code", "data", "environment", "seeds", "hyperparameters"):
        assert found[entry] == manifest.lineage[entry]
    assert "by" not in found
    assert lineage("v2") is found
    assert lineage("v9") is None
    await fill(redis, [make_item(1, version="v2"), make_item(2, version="v9")])
    await decide(redis, {make_item(number).id: THREE for number in (1, 2)})
    rows = export_rows(redis, "digits", None, lineage, who="ada", role="admin")
    assert [row.lineage async for row in rows] == [found, None]


def test_since_is_a_cursor_or_a_time() -> None:
    assert read_since("1764000000000000") == 1764000000000000
    assert read_since("1970-01-01T00:00:01Z") == read_since("1970-01-01T01:00:01+01:00") == 999_999
    assert read_since("1970-01-01 00:00:01.000002") == 1_000_001
    for wrong in ("yesterday", "", "-1", "1.5", "²"):
        with pytest.raises(InvalidRequestError, match="cursor of a row or a time in ISO 8601"):
            read_since(wrong)


async def test_a_time_includes_its_own_microsecond(redis: Redis) -> None:
    await fill(redis, [make_item(1)])
    await decide(redis, {make_item(1).id: THREE})
    (row,) = await export(redis)
    moment = EPOCH + datetime.timedelta(microseconds=row["cursor"])
    assert await export(redis, read_since(moment.isoformat())) == [row]
    later = moment + datetime.timedelta(microseconds=1)
    assert await export(redis, read_since(later.isoformat())) == []


async def test_memory_does_not_grow_with_the_number_of_labels(redis: Redis) -> None:
    await fill(redis, [make_item(1)])
    await decide(redis, {make_item(1).id: THREE})
    await multiply(redis, make_item(1), 40_000)
    process = psutil.Process()
    count, size = 0, []
    async for row in export_rows(redis, "digits", None, NO_BUNDLES, who="ada", role="admin"):
        assert row.label == "3"
        encode_row(row)
        count += 1
        if count % 4_000 == 0:
            size.append(process.memory_info().rss)
    assert count == 40_000
    assert size[-1] - size[0] < 8 * 1024 * 1024
