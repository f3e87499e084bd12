"""Why the model answers an item as it does, for a reviewer who asks: until then nothing is computed."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from starlette.responses import Response

from rollout.bundle.fields import Field
from rollout.bundle.schema import Arrays, InvalidInputsError
from rollout.errors import NO_JSON, InvalidRequestError, UnknownItemError
from rollout.explain.explanation import Attribution, Explanation, Question
from rollout.http.explain import task_of
from rollout.http.predict import whether_hung_up
from rollout.inference.served_model import ServedModel
from rollout.review import actions
from rollout.review.access_log import record_access
from rollout.review.item import ReviewItem
from rollout.review.queue import read_one, read_work
from rollout.review.state import require_lease
from service.console.page_context import Page, PageContext
from service.console.render import data, render

MOST_BARS = 20
LEVELS = 5  # of how strongly a word is marked
STRONGEST = 0.75  # opacity of a patch


class Patch(NamedTuple):
    """A part of an image, in its pixels, and how much it is covered by which colour."""

    x: int
    y: int
    width: int
    height: int
    sign: str
    opacity: float


class Map(NamedTuple):
    """An image with its patches over it; ``source`` is a ``data:`` URL."""

    name: str
    source: str
    width: int
    height: int
    patches: Sequence[Patch]


class Word(NamedTuple):
    """A part of a text: how strongly it is marked, 0 for not at all, and its attribution in words."""

    text: str
    sign: str
    level: int
    title: str


class Bar(NamedTuple):
    """What one part does, as a bar in a box of 100 by 10 whose middle is 0."""

    name: str
    value: str
    sign: str
    x: float
    width: float
    attribution: float


async def explain(context: PageContext) -> Response:
    """Explains the model's answer to an item that the reviewer has, and notes that they have seen it."""
    form, model, redis = context.form, context.model, context.engine.redis
    item_id, token = form.get("item", ""), form.get("token", "")
    found = await read_one(redis, model.name, item_id)
    if found is None:
        raise UnknownItemError(f"{model.name} has no review item {item_id!r}; its client may have been forgotten")
    item, stored = found
    require_lease(read_work(stored), token, round(time.time() * 1000))
    row = _row(model, item)
    loaded = model.versions.get(item.version)
    if loaded is None:
        raise InvalidRequestError(
            f"{item.version}, which answered, is not served any more; `rollout explain {model.name} --item "
            f"{item.id}` explains it where its bundle is"
        )
    head = next(iter((item.unsure or "").split(", ")))
    task = task_of(model.snapshot, loaded, row, Question(head=head))
    answer = await context.engine.explain(task, is_gone=whether_hung_up(context.request.scope))
    await record_access(redis, model.name, context.name, context.role or "", "explain", [item.id])
    await actions.explain(redis, model.name, item.id, token)
    return data({"html": view(answer.explanation, model.schema.fields, row)})


PAGES = (Page("/models/{model}/review/explain", explain, "POST", role="reviewer"),)


def view(explanation: Explanation, fields: Mapping[str, Field], row: Arrays) -> str:
    """Returns an explanation as a part of the page.

    Args:
        explanation: It.
        fields: The model's input schema.
        row: The inputs, columns of one row.
    """
    most = explanation.largest
    maps, texts, others = [], [], []
    for name, field in fields.items():
        own = explanation.of_field(name)
        picture = field.picture(row[name][0])
        if picture is not None and any(one.box for one in own):
            maps.append(_map(name, picture, own, most))
        elif any(one.span for one in own):
            texts.append((name, _words(row[name][0], own, most)))
        else:
            others += own
    others = sorted(others, key=lambda one: -abs(one.attribution))[:MOST_BARS]
    return render(
        "explained.html",
        explanation=explanation,
        maps=maps,
        texts=texts,
        bars=[_bar(one, most) for one in others],
    )


def _row(model: ServedModel, item: ReviewItem) -> Arrays:
    """Returns the inputs of an item as its version took them.

    Raises:
        InvalidRequestError: If there is nothing to be explained of it.
    """
    if item.other is not None:
        raise InvalidRequestError(
            "two versions decide differently here, and nobody is to see which one said what: nothing is explained"
        )
    if not item.has_inputs:
        raise InvalidRequestError("the inputs are not kept any more: there is nothing to explain")
    try:
        return model.schema.decode_row(item.sent)
    except (InvalidInputsError, *NO_JSON):
        raise InvalidRequestError(
            "the inputs are not kept as they were, so that nothing is to be explained: the review policy redacts "
            "some, or the model takes others by now"
        ) from None


def _sign(attribution: float) -> str:
    return "up" if attribution > 0 else "down"


def _map(name: str, picture: NDArray[np.uint8], own: Sequence[Attribution], most: float) -> Map:
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, "PNG")
    patches = []
    for one in own:
        if one.box is not None:
            left, top, right, bottom = one.box
            opacity = round(STRONGEST * abs(one.attribution) / most, 3)
            patches.append(Patch(left, top, right - left, bottom - top, _sign(one.attribution), opacity))
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Map(name, source, picture.shape[1], picture.shape[0], patches)


def _words(row: NDArray[Any], own: Sequence[Attribution], most: float) -> list[Word]:
    text, at, words = row.tobytes().rstrip(b"\0").decode(), 0, []
    for one in own:
        start, stop = one.span or (at, at)
        level = round(LEVELS * abs(one.attribution) / most)
        words.append(Word(text[at:start], "", 0, ""))
        words.append(Word(text[start:stop], _sign(one.attribution), level, f"{one.attribution:+.3g}"))
        at = stop
    return [*words, Word(text[at:], "", 0, "")]


def _bar(one: Attribution, most: float) -> Bar:
    length = round(50 * abs(one.attribution) / most, 2)
    start = 50.0 if one.attribution > 0 else 50 - length
    name = " ".join(filter(None, (one.field, one.part)))
    return Bar(name, one.value, _sign(one.attribution), start, length, one.attribution)
