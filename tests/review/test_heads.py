"""Reviews of a kind of answer that they know nothing of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rollout.errors import InvalidRequestError, LeaseLostError
from rollout.heads import Classification, Heads, Output, Tensors, Truth
from rollout.job.labels import open_rows
from rollout.review import actions
from rollout.review.export import export_rows
from rollout.review.label_studio import read_tasks, to_task
from rollout.review.labels import read_lines, take_labels
from rollout.review.policy import ReviewPolicy, write_policy
from rollout.review.queue import list_items, read_item
from rollout.review.state import State, Work
from rollout.review.stats import review_stats
from rollout.store import Redis
from tests.review.decisions import fill
from tests.review.items import make_item, written
from tests.review.kinds import make_topics


async def say(redis: Redis, reviewer: str, *topics: str) -> Work:
    (leased,) = (await actions.claim(redis, "digits", reviewer)).items
    return await actions.resolve(redis, "digits", leased.item.id, leased.token, Truth(labels=list(topics)))


async def work_of(redis: Redis, number: int) -> Work:
    found = await read_item(redis, "digits", make_item(number).id)
    assert found is not None
    return found[1]


async def test_what_has_no_order_is_the_same_in_any(redis: Redis) -> None:
    await write_policy(redis, "digits", ReviewPolicy(required_reviews=2))
    await fill(redis, [make_topics(1, "food"), make_topics(2, "food")])
    assert (await say(redis, "ada", "trade", "food")).state is State.OPEN
    work = await say(redis, "bob", "food", "trade")
    assert (work.state, work.truth) == (State.RESOLVED, Truth(labels=["trade", "food"]))
    await say(redis, "ada", "sport")
    work = await say(redis, "bob", "sport", "food")
    assert (work.state, work.truth) == (State.ESCALATED, Truth())
    (leased,) = (await actions.claim(redis, "digits", "eve", escalated=True)).items
    assert [review.labels for review in leased.reviews] == [["sport"], ["food", "sport"]]


async def test_reviewers_agree_where_their_answers_are_the_same_to_the_head(redis: Redis) -> None:
    await write_policy(redis, "digits", ReviewPolicy(required_reviews=2))
    head = Tensors(outputs_by_name={"corner": Output((2,))}, tolerance=0.5)
    answer = {"tensors": {"corner": [0.0, 0.0]}}
    await fill(redis, [make_item(number, task=written(head), answer=answer) for number in (1, 2)])
    said = Truth(tensors={"corner": [1.0, 2.0]}), Truth(tensors={"corner": [1.2, 2.2]})
    far = Truth(tensors={"corner": [1.0, 3.0]})
    done = {}
    for number, truths in ((1, said), (2, (said[0], far))):
        for reviewer, truth in zip(("ada", "bob"), truths, strict=True):
            wanted = {"client_id": f"client-{number}"}
            (leased,) = (await actions.claim(redis, "digits", reviewer, filters=wanted)).items
            done[number] = await actions.resolve(redis, "digits", leased.item.id, leased.token, truth)
    assert (done[1].state, done[1].truth) == (State.RESOLVED, said[1])
    assert (done[2].state, done[2].truth) == (State.ESCALATED, Truth())
    found = await review_stats(redis, "digits")
    assert [one.agreement for one in found.reviewers] == [1, 1]
    assert [pair.share for pair in found.pairs] == [0.5]
    (row,) = [one async for one in export_rows(redis, "digits", None, lambda _: None, who="ada", role="test")]
    assert row.agreement == 1
    # What comes from elsewhere is compared alike.
    assert not await actions.take_over(redis, "digits", make_item(1).id, "eve", said[0])
    with pytest.raises(LeaseLostError, match="was resolved as"):
        await actions.take_over(redis, "digits", make_item(1).id, "eve", far)


async def test_what_one_reviewer_knows_of_a_head_and_another_does_not(redis: Redis) -> None:
    await write_policy(redis, "digits", ReviewPolicy(required_reviews=2))
    late, cause = Classification(labels=["no", "yes"]), Classification(labels=["weather", "carrier"])
    answer = {
        "heads": {name: {"label": "no", "confidence": 1.0, "scores": {"no": 1.0}} for name in ("late", "cause")}
    }
    heads = Heads(heads={"late": late, "cause": cause})
    await fill(redis, [make_item(1, task=written(heads), answer=answer)])
    for reviewer, said in (("ada", {"late": "yes", "cause": "carrier"}), ("bob", {"late": "yes"})):
        (leased,) = (await actions.claim(redis, "digits", reviewer)).items
        truth = Truth(heads={name: Truth(label=label) for name, label in said.items()})
        work = await actions.resolve(redis, "digits", leased.item.id, leased.token, truth)
    assert (work.state, work.truth.in_words()) == (State.RESOLVED, "late: yes; cause: carrier")
    other = Truth(heads={"late": Truth(label="yes"), "cause": Truth(label="weather")})
    assert heads.agreed(work.truth, other) is None


async def test_each_fault_is_named(redis: Redis) -> None:
    await fill(redis, [make_topics(1, "food")])
    with pytest.raises(InvalidRequestError) as refused:
        await say(redis, "ada", "food", "weather", "war")
    assert refused.value.detail == "/labels/1 is no topic; /labels/2 is no topic"
    assert [fault.pointer for fault in refused.value.errors] == ["/labels/1", "/labels/2"]


async def test_items_are_found_by_each_of_their_labels(redis: Redis) -> None:
    await fill(redis, [make_topics(1, "food", "trade"), make_topics(2, "trade"), make_topics(3)])
    for label, keys in (("food", ["key-1"]), ("trade", ["key-2", "key-1"]), ("sport", [])):
        found = [item.key async for item, _ in list_items(redis, "digits", {"label": label})]
        assert found == keys, label  # the less is said, the more a look is worth


async def test_accuracy_is_the_heads_own_and_is_not_made_up(redis: Redis) -> None:
    items = [
        make_topics(1, "food"),
        make_topics(2, "food", "trade", reason="audit", pi=0.5),
        make_topics(3),
    ]
    await fill(redis, items)
    for item in items:
        await actions.take_over(redis, "digits", item.id, "ada", Truth(labels=["food"]))
    found = await review_stats(redis, "digits")
    assert found.measure == "set of topics"
    right = {one.reason: (one.reviewed, one.right) for one in found.overall.strata}
    assert right == {"low_confidence": (1, 1.0), "audit": (1, 0.75)}
    assert (found.overall.reviewed, found.overall.raw, found.overall.estimate) == (2, 0.875, 0.875)
    assert found.overall.notes[0] == (
        "1 more are reviewed whose answers are neither right nor wrong: they say nothing of accuracy"
    )


async def test_reviewers_agree_by_the_heads_own_distance(redis: Redis) -> None:
    await write_policy(redis, "digits", ReviewPolicy(required_reviews=2))
    await fill(redis, [make_topics(number, "food") for number in range(3)])
    for reviewer, said in (("ada", ["food", "sport", "trade"]), ("bob", ["food", "sport", "travel"])):
        for topic in said:
            await say(redis, reviewer, topic)
    (pair,) = (await review_stats(redis, "digits")).pairs
    assert (pair.items, pair.kappa) == (3, None)
    assert pair.share == pytest.approx(2 / 3)
    # One of three pairs is 0.5 apart; of the 15 pairs of any two answers, 13 are.
    assert pair.alpha == pytest.approx(1 - (0.5 / 3) / (0.5 * 13 / 15))


async def test_labels_leave_and_come_back_in_the_form_of_the_head(redis: Redis, tmp_path: Path) -> None:
    await fill(redis, [make_topics(number, "food") for number in range(4)])
    row = {"client_id": "client-0", "key": "key-0", "labels": ["trade", "food"]}
    lines = [json.dumps(row).encode(), json.dumps(row | {"key": "key-9"}).encode()]
    taken = await take_labels(redis, "digits", read_lines(lines), "ada")
    assert (taken.taken, len(taken.unknown)) == (1, 1)
    tasks: list[dict[str, Any]] = []
    for number in (1, 2, 3):
        task = to_task(make_topics(number, "food"))
        assert task["predictions"][0]["result"] == [
            {"from_name": "answer", "to_name": "inputs", "type": "choices", "value": {"choices": ["food"]}}
        ]
        tasks.append({"data": {"id": task["data"]["id"]}})
    said = [{"result": [{"value": {"choices": topics}}]} for topics in (["sport", "food"], ["food", "sport"])]
    tasks[0]["annotations"] = said
    tasks[1]["annotations"] = [said[0], {"result": [{"value": {"choices": ["trade"]}}]}]
    tasks[2]["annotations"] = [{"result": [{"value": {"choices": ["war"]}}]}]
    taken = await take_labels(redis, "digits", read_tasks(json.dumps(tasks).encode()), "ada")
    assert taken.taken == 1
    assert [fault.why for fault in taken.refused] == [
        'its annotations differ: {"labels":["food","sport"]} by unknown, {"labels":["trade"]} by unknown',
        "/labels/0 is no topic",
    ]
    file = tmp_path / "labels.parquet"
    with file.open("wb") as pipe, open_rows(file, pipe, "parquet") as write:
        async for one in export_rows(redis, "digits", None, lambda _: None, who="ada", role="test"):
            write(one)
    table = pq.read_table(file).to_pylist()
    assert [(one["key"], one["labels"], one["label"]) for one in table] == [
        ("key-0", '["food","trade"]', None),
        ("key-1", '["food","sport"]', None),
    ]
    assert [json.loads(one["predicted"]) for one in table] == [{"topics": ["food"]}] * 2
    assert (await work_of(redis, 2)).state is State.OPEN
