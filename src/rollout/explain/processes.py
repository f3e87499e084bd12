"""Explanations beside serving: each in a process of its own, a few at a time, with limits of time and memory.

Captum brings torch along, which a worker that serves ONNX does without, and while a model runs in C++ no signal
reaches Python: a process can be ended whatever it does, and takes its memory with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from rollout.bundle.columns import bare, cell, first, is_ragged
from rollout.bundle.schema import Arrays
from rollout.errors import (
    HTTP_ERRORS,
    ExplainTimeoutError,
    ExplainUnavailableError,
    FieldError,
    OverloadedError,
    PredictionFailedError,
)
from rollout.explain.explanation import Explanation, Question, require_extra

logger = logging.getLogger(__name__)

# How often somebody looks whether the caller still waits, in seconds.
LOOK_EVERY_S = 0.25
RETRY_AFTER_S = 5
# Seconds after which the process ends by itself, should nobody end it.
LONGER_S = 5
# Of the memory, for all that there may be at a time.
MEMORY_SHARE = 0.5


class Column(msgspec.Struct, frozen=True):
    """The array of one input: dtype, shape and bytes, and whether it is of a length of its own."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes
    is_cell: bool


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is asked.

    Attributes:
        folder: Where the bundle lies.
        variant: The variant that serves.
        head: What is answered in the labels that callers see, as JSON.
        meanings: What the version's labels mean to them.
        row: The inputs of one row.
        question: What of it is explained.
        wants_picture: Whether it is drawn, too.
    """

    folder: str
    variant: str
    head: bytes
    meanings: Mapping[str, str]
    row: Mapping[str, Column]
    question: Question
    wants_picture: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="said"):
    """An explanation, and its picture as a PNG, where that was wanted."""

    explanation: Explanation
    picture: bytes = b""


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="said"):
    """Why there is none, in the terms of ``RolloutError``, and for the log where nobody foresaw it."""

    type: str
    detail: str
    errors: tuple[FieldError, ...] = ()
    trace: str = ""


def columns_of(row: Arrays) -> dict[str, Column]:
    """Returns columns of one row, to be sent."""
    columns = {}
    for name, column in row.items():
        array = bare(first(column))
        columns[name] = Column(array.dtype.str, array.shape, array.tobytes(), is_ragged(column))
    return columns


def arrays_of(row: Mapping[str, Column]) -> Arrays:
    """Returns what ``columns_of`` was given."""
    arrays = {}
    for name, column in row.items():
        array = np.frombuffer(column.data, column.dtype).reshape(column.shape)
        arrays[name] = (cell(array) if column.is_cell else array)[None]
    return arrays


class Explainers:
    """The processes of a worker that explain.

    Args:
        at_once: How many there may be at a time; 0 for none.
        timeout_s: Seconds that one may take.
        workers: How many workers explain as many; together they have half of the memory.
    """

    def __init__(self, at_once: int, timeout_s: float, workers: int = 1) -> None:
        self._at_once, self._timeout_s = at_once, timeout_s
        self._share = MEMORY_SHARE / (max(at_once, 1) * workers)
        self._running = 0

    def require(self) -> None:
        """Makes sure that one more may start.

        Raises:
            ExplainUnavailableError: If this service explains nothing.
            OverloadedError: If there are as many already as there may be.
        """
        if not self._at_once:
            raise ExplainUnavailableError("ROLLOUT_EXPLAIN_AT_ONCE is 0 here: this service explains nothing")
        require_extra()
        if self._running >= self._at_once:
            raise OverloadedError(
                f"{self._running} explanations are computed already, as many as ROLLOUT_EXPLAIN_AT_ONCE allows a "
                "worker: try again later",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )

    async def run(
        self, task: Task, timeout_s: float = math.inf, is_gone: Callable[[], bool] = lambda: False
    ) -> Answer:
        """Explains a prediction.

        Args:
            task: What is asked.
            timeout_s: The caller's own limit, where that is shorter.
            is_gone: Says whether whoever asked has left: then the process is ended.

        Raises:
            ExplainUnavailableError: If this service explains nothing.
            OverloadedError: If there are as many already as there may be.
            ExplainTimeoutError: If it takes too long, or nobody waits for it any more.
            PredictionFailedError: If the process ended otherwise than by an answer.
            RolloutError: Whatever else explaining raises.
        """
        self.require()
        self._running += 1
        try:
            hint = "raise " + (
                "X-Request-Timeout" if timeout_s < self._timeout_s else "ROLLOUT_EXPLAIN_TIMEOUT_S"
            )
            return await self._run(task, min(timeout_s, self._timeout_s), hint, is_gone)
        finally:
            self._running -= 1

    async def _run(self, task: Task, timeout_s: float, hint: str, is_gone: Callable[[], bool]) -> Answer:
        # -P: nothing is imported from the folder that the service was started in.
        limits = (str(math.ceil(timeout_s) + LONGER_S), str(self._share))
        command = [sys.executable, "-P", "-m", f"{__package__}.child", str(os.getpid()), *limits]
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        talking = asyncio.ensure_future(_talk(process, msgspec.msgpack.encode(task)))
        try:
            await _wait(talking, timeout_s, hint, is_gone)
            said = talking.result()
        finally:
            await _end(process, talking)
        if process.returncode:
            raise PredictionFailedError(
                f"the process that explained this ended with code {process.returncode}: it may have needed more "
                "memory than it may have"
            )
        answer = msgspec.msgpack.decode(said, type=Answer | Failure)
        if isinstance(answer, Answer):
            return answer
        if answer.trace:
            logger.error("an explanation by %s failed:\n%s", task.folder, answer.trace)
        kinds = {kind.type: kind for kind in HTTP_ERRORS}
        raise kinds.get(answer.type, PredictionFailedError)(answer.detail, errors=answer.errors)


async def _talk(process: Process, sent: bytes) -> bytes:
    """Sends something to a process and returns what it says; nothing where it ends before it has read that."""
    try:
        said, _ = await process.communicate(sent)
    except RuntimeError:  # of uvloop: its pipe is closed; asyncio's says nothing
        await process.wait()
        return b""
    return said


async def _wait(talking: asyncio.Future[bytes], timeout_s: float, hint: str, is_gone: Callable[[], bool]) -> None:
    end = asyncio.get_running_loop().time() + timeout_s
    while not talking.done():
        left = end - asyncio.get_running_loop().time()
        if left <= 0:
            raise ExplainTimeoutError(
                f"the explanation was not there after {timeout_s:g} s: {hint}, or ask `rollout explain`, which "
                "takes as long as it needs"
            )
        if is_gone():
            raise ExplainTimeoutError("the client left before the explanation was there")
        await asyncio.wait({talking}, timeout=min(left, LOOK_EVERY_S))


async def _end(process: Process, talking: asyncio.Future[bytes]) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    with contextlib.suppress(Exception):
        await talking
    await process.wait()
