"""Label Studio's JSON: open items as its tasks, and its annotations as labels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from rollout.errors import NO_JSON, InvalidRequestError
from rollout.heads import Head, Truth
from rollout.review.access_log import record_access
from rollout.review.actions import Said, require_truth, shortly
from rollout.review.export import in_chunks
from rollout.review.item import ReviewItem
from rollout.review.labels import Fault, Label, read_label
from rollout.review.queue import list_items, share
from rollout.store import Redis

# How a labelling interface names what it shows and what it asks for.
SHOWN, ASKED = "inputs", "answer"


class _Annotation(msgspec.Struct, kw_only=True):
    result: list[_Result] = []
    completed_by: int | str | dict[str, Any] | None = None
    was_cancelled: bool = False


class _Result(msgspec.Struct, kw_only=True):
    from_name: str = ""
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
        InvalidRequestError: If Label Studio cannot say what this model answers.
        StoreUnavailableError: If Redis does not answer.
    """
    async for chunk in in_chunks(list_items(redis, model, {}), lambda found: share(found[0])):
        items = [item for item, _ in chunk if item.has_inputs]
        for item in items:
            _require_form(item.head)
        await record_access(redis, model, who, role, "export", [item.id for item in items])
        for item in items:
            yield to_task(item)


def _require_form(head: Head) -> None:
    """Refuses to send out what could not come back."""
    if type(head).studio_truth is Head.studio_truth:
        raise InvalidRequestError(
            "Label Studio has no form for vectors and tensors: decide in the console, or export JSON lines"
        )


def to_task(item: ReviewItem) -> dict[str, Any]:
    """Returns an item as a task, with what the model said as a prediction.

    Of what two versions decide differently there is none: it would say which of them it is.

    A labelling interface that shows it reads ``$inputs`` and names what it asks for ``answer``.
    """
    regions = [] if item.trial else item.head.studio_result(item.answer)
    result = [{"from_name": ASKED, "to_name": SHOWN, **region} for region in regions]
    prediction = {"model_version": item.version, "score": item.answer.get("confidence"), "result": result}
    data = {"id": item.id, "client_id": item.client_id, "key": item.key, SHOWN: item.inputs}
    return {"data": data, "predictions": [prediction] if result else []}


def read_tasks(content: bytes) -> Iterator[Label | Fault]:
    """Returns the labels of an export of Label Studio in JSON; tasks that nobody annotated are left out.

    Raises:
        msgspec.DecodeError: If it is not a list in JSON; or another of ``NO_JSON``.
    """
    return _labels(msgspec.json.decode(content, type=list[msgspec.Raw]))


def _labels(tasks: list[msgspec.Raw]) -> Iterator[Label | Fault]:
    decoder = msgspec.json.Decoder(_Task)
    for number, raw in enumerate(tasks, start=1):
        place = f"task {number}"
        try:
            task = decoder.decode(raw)
        except NO_JSON as error:
            yield Fault(place=place, why=str(error))
            continue
        found = [annotation for annotation in task.annotations if not annotation.was_cancelled]
        if found:
            named = {name: task.data.get(name) for name in ("id", "client_id", "key")}
            yield read_label(place, named | {"reviewer": _name(found[0].completed_by)}, _said(found))


def _said(annotations: list[_Annotation]) -> Said:
    """Returns what reads annotations: what they mean is a matter of the head."""

    def read(head: Head) -> Truth:
        try:
            found = [
                head.studio_truth([one.value | {"from_name": one.from_name} for one in each.result])
                for each in annotations
            ]
        except (ValueError, OverflowError, RecursionError) as error:
            raise InvalidRequestError(str(error)) from None
        for truth in found:
            require_truth(head, truth)
        together: Truth | None = found[0]
        for truth in found[1:]:
            together = together and head.agreed(truth, together)
        if together is None:
            said = ", ".join(
                f"{shortly(truth)} by {_name(each.completed_by) or 'unknown'}"
                for truth, each in zip(found, annotations, strict=True)
            )
            raise InvalidRequestError(f"its annotations differ: {said}")
        return together

    return read


def _name(completed_by: int | str | dict[str, Any] | None) -> str | None:
    if isinstance(completed_by, dict):
        completed_by = completed_by.get("email") or completed_by.get("id")
    return None if completed_by is None else str(completed_by)
