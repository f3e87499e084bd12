"""A process that explains ends, whatever becomes of it."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from asyncio.subprocess import Process
from typing import Any

import msgspec
import numpy as np
import pytest
import uvloop

from rollout.bundle.columns import ragged
from rollout.errors import (
    ExplainTimeoutError,
    ExplainUnavailableError,
    OverloadedError,
    PredictionFailedError,
    RolloutError,
)
from rollout.explain import explanation, processes
from rollout.explain.explanation import Question
from rollout.explain.processes import Explainers, Task, arrays_of, columns_of

TASK = Task(folder="/nowhere", variant="onnx", head=b"{}", meanings={}, row={}, question=Question())
SECONDS = 120


def test_row_arrives_as_it_was_sent() -> None:
    row = {
        "image": np.arange(12, dtype=np.uint8).reshape(1, 3, 4)[:, :, ::2],
        "at": np.array([2**40]),
        "steps": ragged([np.ones((3, 2), np.float32)]),
        "text": np.zeros((1, 4), np.uint8),
    }
    found = arrays_of(columns_of(row))
    assert found.keys() == row.keys()
    for name, column in row.items():
        assert (found[name].shape, found[name].dtype) == (column.shape, column.dtype)
        np.testing.assert_array_equal(found[name][0], column[0])


async def test_process_that_finds_no_bundle_says_so() -> None:
    with pytest.raises(RolloutError, match="/nowhere is not a bundle"):
        await Explainers(1, SECONDS).run(TASK)


async def test_all_that_may_be_at_a_time_have_half_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    start = asyncio.create_subprocess_exec

    async def note(*command: str, **options: Any) -> Process:
        started.append(command)
        return await start(*command, **options)

    monkeypatch.setattr(processes.asyncio, "create_subprocess_exec", note)  # type: ignore[attr-defined]
    with pytest.raises(RolloutError, match="is not a bundle"):
        await Explainers(2, SECONDS, workers=4).run(TASK)
    assert float(started[0][-1]) == 0.5 / 8


async def test_error_that_nobody_foresaw_is_logged_and_told_to_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(PredictionFailedError, match=r"cannot be explained: the log .* says why") as raised:
        await Explainers(1, SECONDS).run(msgspec.structs.replace(TASK, folder="/dev/null"))
    assert "NotADirectoryError" in caplog.text
    assert "/dev/null" not in raised.value.detail, "callers do not learn where anything lies"


def test_process_that_ends_before_it_has_read_its_task_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the event loop that serves, which closes the pipe then: at whichever moment that comes."""
    monkeypatch.setattr(processes.sys, "executable", shutil.which("false"))  # type: ignore[attr-defined]

    async def ask() -> None:
        for _ in range(60):
            with pytest.raises(PredictionFailedError, match="ended with code 1"):
                await Explainers(1, SECONDS).run(TASK)

    uvloop.run(ask())


async def test_too_long_names_the_limit_that_was_the_shorter_one() -> None:
    for own, of_the_caller, named in ((SECONDS, 0.01, "X-Request-Timeout"), (0.01, SECONDS, "ROLLOUT_EXPLAIN")):
        with pytest.raises(ExplainTimeoutError, match=f"after 0.01 s: raise {named}"):
            await Explainers(1, own).run(TASK, of_the_caller)


async def test_caller_who_leaves_ends_it_and_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOOK_EVERY_S", 0.001)  # before the process is done
    explainers = Explainers(1, SECONDS)
    looks = iter([False, True])
    with pytest.raises(ExplainTimeoutError, match="left"):
        await explainers.run(TASK, is_gone=lambda: next(looks))
    explainers.require()


async def test_no_more_than_may_be_run_at_a_time() -> None:
    explainers = Explainers(1, SECONDS)
    first = asyncio.ensure_future(explainers.run(TASK))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="ROLLOUT_EXPLAIN_AT_ONCE") as refused:
        await explainers.run(TASK)
    assert refused.value.headers == {"Retry-After": "5"}
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    explainers.require()


def test_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanation, "find_spec", lambda _: None)
    assert importlib.util.find_spec("captum") is not None  # here it is
    with pytest.raises(ExplainUnavailableError, match=r"rollout\[explain\]"):
        Explainers(1, SECONDS).require()
