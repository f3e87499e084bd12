"""Predictions that arrive together are answered together, and none of them notices."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rollout.config import Settings
from rollout.errors import RolloutError
from rollout.http import turn as turn_module
from rollout.http.gateway import Gateway
from rollout.http.routes import JSON
from rollout.http.turn import Turn
from rollout.inference import batcher as batcher_module
from rollout.inference.engine import Engine
from rollout.inference.follower import Follower
from rollout.review.queue import list_items
from rollout.routing.assignment import assign
from rollout.routing.split import Split
from rollout.routing.splits import write_split
from rollout.store import Redis, connect
from tests.images import row, three_or_eight
from tests.inference.black import spoil_black

TRIAL = Split(champion="v1", challenger="v2", share=0.3, experiment="digits-v1-v2")
CLIENTS = {
    arm: [client for n in range(400) if assign(TRIAL, client := f"c-{n}").arm == arm]
    for arm in ("champion", "control", "challenger")
}


class Exchange:
    """A request, and what became of it; with the attributes that a turn looks at."""

    def __init__(self, body: Any, name: str = "digits") -> None:
        self._body = body if isinstance(body, bytes) else msgspec.json.encode(body)
        self.scope: dict[str, Any] = {"name": name, "media_type": JSON} | {
            "traceparent": b"00-%032x-%016x-00" % (id(self), 1)
        }
        self.went_its_own_way = self.response_complete = False
        self.said: Any = None
        self.answered_at = self.arrived = 0.0
        self.tasks: list[asyncio.Task[None]] = []

    def whole_body(self) -> bytes:
        return self._body

    def start(self, work: Coroutine[Any, Any, None] | None = None) -> None:
        if work is None:
            self.went_its_own_way = True
        else:
            self.tasks.append(asyncio.get_running_loop().create_task(work))

    def head(self, timing: bytes) -> bytes:
        return timing

    def answer(self, body: bytes, _: bytes) -> None:
        self._end(msgspec.json.decode(body))

    def refuse(self, error: RolloutError, _: str) -> None:
        self._end(error)

    def _end(self, said: Any) -> None:
        assert not self.response_complete, "answered twice"
        self.said, self.answered_at, self.response_complete = said, time.monotonic(), True


@pytest.fixture
async def engine(
    bundles: str, redis: Redis, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Engine]:
    async def nothing(_: object) -> None:
        """Leaves what was counted, and the split, to the tests."""

    monkeypatch.setattr(Follower, "_tell", nothing)
    monkeypatch.setattr(Follower, "_follow", nothing)
    monkeypatch.setattr(turn_module, "LONGEST_S", 10.0)
    await write_split(redis, "digits", TRIAL)
    loaded = await Engine.load(Settings(home=tmp_path), await connect(valkey_url))
    yield loaded
    await loaded.close()


@pytest.fixture
def turn(engine: Engine, tmp_path: Path) -> Turn:
    gateway = Gateway()
    gateway.open(engine, Settings(home=tmp_path))
    return Turn(gateway)


async def ask(turn: Turn, *exchanges: Any) -> None:
    """Has requests arrive in one turn, and waits until they are answered."""
    for exchange in exchanges:
        turn.add(exchange)
    give_up = time.monotonic() + 10
    while not all(exchange.response_complete or exchange.went_its_own_way for exchange in exchanges):
        assert time.monotonic() < give_up
        await asyncio.sleep(0.001)
    for exchange in exchanges:
        await asyncio.gather(*exchange.tasks)


def batches(engine: Engine) -> list[float]:
    """Returns the rows of the champion's batches, since the last time that they were written."""
    return [*engine.model("digits").champion._batch_rows._values]


def counted(engine: Engine, arm: Any) -> dict[str, int]:
    counts = engine.model("digits").snapshot.counts[arm]
    written: list[Any] = [counts._answered, counts.failures, counts._seconds, counts._confidence]
    written += [*counts._fallbacks.values(), *([counts._fallen_back] if arm == "challenger" else [])]
    for one in written:
        one.flush()
    return {name: count for (_, _, name), count in counts.take()}


async def test_one_batch_and_to_each_its_own_answer(engine: Engine, turn: Turn) -> None:
    clients = CLIENTS["champion"][:20]
    bodies = [row(number, client, key=f"k-{number}") for number, client in enumerate(clients)]
    several = {"instances": [row(20 + n, client) for n, client in enumerate(clients[:3])]}
    alone = [Exchange(body) for body in (*bodies, several)]
    for exchange in alone:
        await ask(turn, exchange)
    before = len(batches(engine))
    together = [Exchange(body) for body in (*bodies, several)]
    await ask(turn, *together)
    assert batches(engine)[before:] == [23]
    assert [exchange.said for exchange in together[:-1]] == [
        one.said | {"confidence": pytest.approx(one.said["confidence"], abs=1e-5), "scores": pytest.approx(one.said["scores"], abs=1e-5)}
        for one in alone[:-1]
    ]  # fmt: skip
    assert [one["client_id"] for one in together[-1].said["predictions"]] == clients[:3]
    assert [exchange.said["key"] for exchange in together[:-1]] == [f"k-{n}" for n in range(20)]
    found = counted(engine, "champion")
    assert found["predictions"] == 46
    assert sum(count for name, count in found.items() if name.startswith("seconds.")) == 42, "one a request"
    assert sum(count for name, count in found.items() if name.startswith("confidence.")) == 46, "one a row"


async def test_what_is_of_several_arms_or_not_plain_goes_its_own_way(engine: Engine, turn: Turn) -> None:
    champion = CLIENTS["champion"]
    mixed = {"instances": [row(0, champion[0]), row(1, CLIENTS["control"][0])]}
    file = row(0, champion[0]) | {"inputs": {"image": "x" * 5000}}
    own = [
        Exchange(body)
        for body in (b"{", b"[" * 100_000, {}, row(0, ""), row(0, "tab\t"), mixed, file)
    ]  # fmt: skip
    own.append(Exchange(row(0, champion[0]), name="cats"))
    plain = [Exchange(row(number, champion[number])) for number in range(3)]
    control, challenger = (Exchange(row(3, CLIENTS[arm][0])) for arm in ("control", "challenger"))
    await ask(turn, *own, *plain, control, challenger)
    assert all(exchange.went_its_own_way and exchange.said is None for exchange in own)
    assert [exchange.said["arm"] for exchange in plain] == ["champion"] * 3
    assert [control.said["arm"], challenger.said["arm"]] == ["control", "challenger"]
    assert batches(engine) == [4], "control's rows are the champion's"
    found = [counted(engine, arm)["predictions"] for arm in ("champion", "control", "challenger")]
    assert found == [3, 1, 1], "arms are counted apart"


async def test_nobody_joins_while_the_champion_is_busy_or_slow(engine: Engine, turn: Turn) -> None:
    batcher = engine.model("digits").champion.batcher
    batcher._waiting_rows = 1000
    busy = [Exchange(row(number, CLIENTS["champion"][number])) for number in range(3)]
    await ask(turn, *busy)
    assert all(exchange.went_its_own_way for exchange in busy)


async def test_the_challenger_s_requests_share_a_hop_and_fall_back_one_by_one(
    engine: Engine, turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = CLIENTS["challenger"]
    version = engine.model("digits").versions["v2"]
    monkeypatch.setattr(type(version.batcher), "quick_rows", 8)
    spoil_black(version, monkeypatch)
    good = [Exchange(row(number, clients[number])) for number in range(4)]
    bad = Exchange(row(0, clients[4]) | {"inputs": {"image": [[0] * 32] * 32}})
    await ask(turn, *good[:2], bad, *good[2:])
    assert [(one.said["version"], one.said["fallback"]) for one in good] == [("v2", None)] * 4
    assert (bad.said["version"], bad.said["fallback"]) == ("v1", "error")
    assert [*version._batch_rows._values] == [5]
    found = counted(engine, "challenger")
    assert (found["evidence.1.requests"], found["evidence.1.failures"]) == (5, 1)
    assert (found["predictions"], found["fallbacks.error"]) == (5, 1)


def both_arms() -> list[Exchange]:
    return [Exchange(row(n, CLIENTS[arm][n])) for n in range(4) for arm in ("champion", "challenger")]


async def test_both_versions_answer_in_one_turn_without_a_task(
    engine: Engine, turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher_module, "INLINE_BELOW_S", 5.0)  # however busy the machine is
    exchanges = both_arms()
    await ask(turn, *exchanges)
    assert [one.said["arm"] for one in exchanges] == ["champion", "challenger"] * 4
    assert [one.said["version"] for one in exchanges] == ["v1", "v2"] * 4
    assert not any(one.tasks for one in exchanges)
    assert [*engine.model("digits").versions["v2"]._batch_rows._values] == [4]
    found = counted(engine, "challenger")
    assert (found["predictions"], found["evidence.1.requests"]) == (4, 4)


async def test_a_challenger_that_takes_longer_keeps_nobody_else(
    engine: Engine, turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = engine.model("digits").versions["v2"]
    run, gate = version.batcher._run, threading.Event()

    def held(arrays: Any) -> Any:
        gate.wait(10)
        return run(arrays)

    monkeypatch.setattr(version.batcher, "_run", held)
    exchanges: list[Any] = both_arms()
    for exchange in exchanges:
        turn.add(exchange)
    await asyncio.sleep(0.1)
    assert [one.response_complete for one in exchanges] == [True, False] * 4
    gate.set()
    await ask(turn, Exchange(row(0, CLIENTS["champion"][9])))
    await asyncio.gather(*(task for one in exchanges for task in one.tasks))
    assert [one.said["version"] for one in exchanges] == ["v1", "v2"] * 4
    assert [*version._batch_rows._values] == [4], "asked once"
    assert counted(engine, "challenger")["evidence.1.requests"] == 4


async def test_a_challenger_that_cannot_begin_leaves_nobody_without_an_answer(
    engine: Engine, turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> None:
        raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(engine.model("digits").versions["v2"].batcher._executor, "submit", ended)
    exchanges = both_arms()
    await ask(turn, *exchanges)
    assert [one.said["version"] for one in exchanges[::2]] == ["v1"] * 4
    assert all(isinstance(one.said, RolloutError) for one in exchanges[1::2])


@pytest.fixture
def black_is_no_number(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_black(engine.model("digits").versions["v1"], monkeypatch)


@pytest.mark.usefixtures("black_is_no_number")
async def test_one_bad_row_fails_its_request_alone(engine: Engine, turn: Turn) -> None:
    control = CLIENTS["control"]
    black = {"image": [[0] * 32] * 32}
    good = [Exchange(row(number, control[number])) for number in range(4)]
    bad = Exchange(row(0, control[4]) | {"inputs": black})
    half = Exchange({"instances": [row(0, control[5]), row(0, control[5]) | {"inputs": black}]})
    await ask(turn, good[0], bad, good[1], half, good[2], good[3])
    assert [exchange.said["client_id"] for exchange in good] == control[:4]
    assert bad.said.type == half.said.type == "prediction-failed"
    assert bad.said.detail == "the model's scores for this input are not finite numbers"
    assert half.said.detail == "instance 1: the model's scores for this input are not finite numbers"
    found = counted(engine, "control")
    assert (found["predictions"], found["failures"]) == (4, 2), "a request is answered whole or not at all"
    assert (found["evidence.1.requests"], found["evidence.1.failures"]) == (6, 2)
    only = Exchange(row(0, control[6]) | {"inputs": black})
    await ask(turn, only)
    assert only.said.type == "prediction-failed"


async def test_who_is_reviewed_waits_for_the_store_and_nobody_else_does(
    engine: Engine, turn: Turn, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = engine.reviews.add

    async def slowly(item: Any) -> Any:
        await asyncio.sleep(0.3)
        return await add(item)

    monkeypatch.setattr(engine.reviews, "add", slowly)
    clients = CLIENTS["champion"]
    sure = [Exchange(row(number, clients[number])) for number in range(3)]
    unsure = [
        Exchange({"client_id": client, "key": key, "inputs": {"image": three_or_eight()}})
        for client, key in zip(clients[9:], ("one", "two"), strict=False)
    ]
    await ask(turn, sure[0], unsure[0], sure[1], unsure[1], sure[2])
    assert [exchange.said["review"] for exchange in sure + unsure] == [None] * 3 + ["queued"] * 2
    assert max(one.answered_at for one in sure) < min(one.answered_at for one in unsure) - 0.25
    items = {item.key: item async for item, _ in list_items(redis, "digits", {})}
    assert items["one"].traceparent == unsure[0].scope["traceparent"].decode(), (
        "each has the trace of its request"
    )
    assert items["two"].traceparent == unsure[1].scope["traceparent"].decode()


async def test_a_failure_leaves_nobody_without_an_answer(
    engine: Engine, turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> Any:
        raise RuntimeError("no light")

    monkeypatch.setattr(engine, "review", fail)
    clients = CLIENTS["champion"]
    sure = Exchange(row(0, clients[0]))
    unsure = Exchange({"client_id": clients[1], "inputs": {"image": three_or_eight()}})
    await ask(turn, sure, unsure)
    assert sure.said["label"]
    assert unsure.said.type == "internal-error"


async def test_a_long_turn_is_cut(engine: Engine, turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_module, "LONGEST_S", 0.0)
    asked = [Exchange(row(number, CLIENTS["champion"][number])) for number in range(8)]
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.get_running_loop().create_task(tick())
    await ask(turn, *asked)
    ticking.cancel()
    assert [exchange.said["client_id"] for exchange in asked] == CLIENTS["champion"][:8]
    assert len(batches(engine)) > 1
    assert ticks > 1, "others had the event loop in between"


async def test_a_split_that_changes_on_the_way_is_looked_at_again(
    engine: Engine, turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = engine.model("digits")
    promoted = Split(revision=2, champion="v2")
    monkeypatch.setattr(model.versions["v2"].batcher, "_rests_until", math.inf)  # so that they have a task

    class Changing(Exchange):
        def start(self, work: Coroutine[Any, Any, None] | None = None) -> None:
            model.apply(promoted, ())
            super().start(work)

    asked = [Changing(row(number, CLIENTS["challenger"][number])) for number in range(3)]
    await ask(turn, *asked)
    assert all(exchange.went_its_own_way and exchange.said is None for exchange in asked)
    assert batches(engine) == []


async def test_time_counts_from_the_arrival(engine: Engine, turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits in the turn or is decoded waits, for the deadline and for the metric."""

    class Late(Exchange):
        def whole_body(self) -> bytes:
            time.sleep(0.15)
            return super().whole_body()

    seconds: list[float] = []
    monkeypatch.setattr(engine.model("digits").latency, "observe", seconds.append)
    await ask(turn, *(Late(row(number, CLIENTS["champion"][number])) for number in range(2)))
    assert [one > 0.3 for one in seconds] == [True, True]
    monkeypatch.setattr(
        turn._gateway, "settings", msgspec.structs.replace(turn._gateway.settings, timeout_ms=100)
    )
    late = Late(row(0, CLIENTS["champion"][0]))
    await ask(turn, late)
    assert late.said.type == "deadline-exceeded"


async def test_what_a_connection_asks_next_is_nobody_else_s_affair(turn: Turn) -> None:
    class Failing(Exchange):
        is_closed = False

        def answer(self, body: bytes, timing: bytes) -> None:
            super().answer(body, timing)
            raise RuntimeError("what came behind it")

        def close(self) -> None:
            self.is_closed = True

    failing = Failing(row(0, CLIENTS["champion"][0]))
    others = [Exchange(row(number, CLIENTS["champion"][number])) for number in (1, 2)]
    await ask(turn, failing, *others)
    assert failing.is_closed
    assert [other.said["client_id"] for other in others] == CLIENTS["champion"][1:3]
