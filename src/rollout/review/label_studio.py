"""Label Studio's JSON: open items as its tasks, and its annotations as labels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from rollout.review.access_log import record_access
from rollout.review.export import in_chunks
from rollout.review.item import ReviewItem
from rollout.review.labels import Fault, Label, read_label
from rollout.review.queue import list_items
from rollout.review.state import Answer
from rollout.store import Redis

# How a labelling interface names what it shows and what it asks for.
SHOWN, ASKED = "inputs", "answer"


class _Annotation(msgspec.Struct, kw_only=True):
    result: list[_Result] = []
    completed_by: int | str | dict[str, Any] | None = None
    was_cancelled: bool = False


class _Result(msgspec.Struct, kw_only=True):
    value: dict[str, Any] = {}


class _Task(msgspec.Struct, kw_only=True):
    data: dict[str, Any]
    annotations: list[_Annotation] = []


async def export_tasks(redis: Redis, model: str, *, who: str, role: str) -> AsyncIterator[dict[str, Any]]:
    """Yields the open items whose inputs are still kept as tasks, in the order in which they are claimed.

    Args:
        redis: Connection.
        model: The model.
        who: Who sees them, for the access log.
        role: The role of their token.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async for chunk in in_chunks(list_items(redis, model, {})):
        items = [item for item, _ in chunk if item.has_inputs]
        await record_access(redis, model, who, role, "export", [item.id for item in items])
        for item in items:
            yield to_task(item)


def to_task(item: ReviewItem) -> dict[str, Any]:
    """Returns an item as a task, with what the model said as a prediction.

    A labelling interface that shows it reads ``$inputs`` and names what it asks for ``answer``.
    """
    kind = "number" if item.scores is None else "choices"
    value = {kind: item.value if item.scores is None else [item.label]}
    result = {"from_name": ASKED, "to_name": SHOWN, "type": kind, "value": value}
    prediction = {"model_version": item.version, "score": item.confidence, "result": [result]}
    data = {"id": item.id, "client_id": item.client_id, "key": item.key, SHOWN: item.inputs}
    return {"data": data, "predictions": [prediction]}


def read_tasks(content: bytes) -> Iterator[Label | Fault]:
    """Returns the labels of an export of Label Studio in JSON; tasks that nobody annotated are left out.

    Raises:
        msgspec.DecodeError: If it is not a list in JSON.
    """
    return _labels(msgspec.json.decode(content, type=list[msgspec.Raw]))


def _labels(tasks: list[msgspec.Raw]) -> Iterator[Label | Fault]:
    decoder = msgspec.json.Decoder(_Task)
    for number, raw in enumerate(tasks, start=1):
        place = f"task {number}"
        try:
            task = decoder.decode(raw)
            found = [
                (_answer(annotation), _name(annotation.completed_by))
                for annotation in task.annotations
                if not annotation.was_cancelled
            ]
        except (msgspec.DecodeError, ValueError) as error:
            yield Fault(place=place, why=str(error))
            continue
        if len({answer for answer, _ in found}) > 1:
            said = ", ".join(
                f"{answer.value if answer.label is None else answer.label} by {who or 'unknown'}"
                for answer, who in found
            )
            yield Fault(place=place, why=f"its annotations differ: {said}")
        elif found:
            answer, who = found[0]
            yield read_label(
                place,
                {name: task.data.get(name) for name in ("id", "client_id", "key")}
                | {"label": answer.label, "value": answer.value, "reviewer": who},
            )


def _answer(annotation: _Annotation) -> Answer:
    for result in annotation.result:
        choices, number = result.value.get("choices"), result.value.get("number")
        if isinstance(choices, list):
            if len(choices) != 1 or not isinstance(choices[0], str):
                raise ValueError(f"an item has one label, not {len(choices)}")
            return Answer(label=choices[0])
        if isinstance(number, int | float):
            return Answer(value=float(number))
    raise ValueError("an annotation has neither choices nor a number")


def _name(completed_by: int | str | dict[str, Any] | None) -> str | None:
    if isinstance(completed_by, dict):
        completed_by = completed_by.get("email") or completed_by.get("id")
    return None if completed_by is None else str(completed_by)
