"""All models at a glance, and the page of one: arms, traffic, workers, quarantine, rules, history."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import bentoml
from bentoml.exceptions import BentoMLException
from starlette.responses import Response

from rollout.errors import InvalidSplitError, StoreUnavailableError
from rollout.improvement.report import HEADLINES
from rollout.inference.rows import require_identifier
from rollout.judge.policy import Policy
from rollout.routing.assignment import Assignment, assign, explain
from rollout.routing.changes import rollback
from rollout.routing.split import Split
from rollout.routing.timeline import Span, read_timeline
from service.console import charts
from service.console.dashboard import Dashboard, read_dashboard, read_entries
from service.console.page_context import Page, PageContext
from service.console.timeline import SPANS, Course, course

QUICK = (1, 5, 10, 25, 50)
MOST_ENTRIES = 1000
NOTHING: Mapping[str, str] = {}


class Fault(NamedTuple):
    """Why a change was not taken, to be shown where it was entered.

    Attributes:
        change: Which change.
        text: Why not.
        release: Whether its version is in quarantine, and may be let out.
    """

    change: str
    text: str
    release: bool = False


class Lookup(NamedTuple):
    """What a client gets.

    Attributes:
        client_id: The caller's own ID of the client.
        segment: What the client belongs to.
        assignment: What it gets.
        why: Why.
    """

    client_id: str
    segment: str
    assignment: Assignment
    why: str


async def list_models(context: PageContext) -> Response:
    """Shows all models, to a reviewer those to review; where there is one, that one."""
    models = sorted(context.engine.models.values(), key=lambda model: model.name)
    is_admin = context.role == "admin"
    if len(models) == 1:
        return context.redirect(f"/console/models/{models[0].name}{'' if is_admin else '/review'}")
    if not is_admin:
        return context.page("queues.html")
    span = _span(context)
    cards = [
        (await read_dashboard(context.engine.redis, model), await _course(context, model.name, span))
        for model in models
    ]
    return context.page("models.html", cards=cards, span=span, spans=SPANS)


async def show(context: PageContext) -> Response:
    """Shows a model."""
    return await show_model(context)


async def show_model(
    context: PageContext, fault: Fault | None = None, values: Mapping[str, str] = NOTHING, status: int = 200
) -> Response:
    """Shows a model, with what was entered and why it was not taken.

    Args:
        context: The request.
        fault: What was wrong.
        values: What was entered.
        status: Of HTTP.
    """
    dashboard = await read_dashboard(context.engine.redis, context.model)
    query = context.request.query_params
    return context.page(
        "model.html",
        status,
        dashboard=dashboard,
        course=await _course(context, dashboard.model, span := _span(context)),
        span=span,
        spans=SPANS,
        labels=charts.LABELS,
        versions=await asyncio.to_thread(_versions, dashboard),
        headlines=HEADLINES,
        quick=QUICK,
        usual=Policy(),
        goes_back=_goes_back(dashboard.split),
        lookup=_look_up(dashboard.split, query.get("client", "").strip(), query.get("segment", "").strip()),
        done=query.get("revision") == str(dashboard.split.revision),
        fault=fault,
        values=values,
    )


async def live(context: PageContext) -> Response:
    """Shows what changes by itself, to be put into a page that is open."""
    dashboard = await read_dashboard(context.engine.redis, context.model)
    if not dashboard.online:
        raise StoreUnavailableError("Redis does not answer")  # the page keeps what it shows
    return context.page("live.html", dashboard=dashboard, labels=charts.LABELS, headlines=HEADLINES)


async def show_history(context: PageContext) -> Response:
    """Shows every change of a split."""
    name = context.model.name
    entries = await read_entries(context.engine.redis, name, MOST_ENTRIES)
    return context.page("history.html", model=name, entries=entries)


PAGES = (
    Page("", list_models, role="reviewer"),
    Page("/models/{model}", show),
    Page("/models/{model}/live", live, is_part=True),
    Page("/models/{model}/history", show_history),
)


def _span(context: PageContext) -> Span:
    return "week" if context.request.query_params.get("span") == "week" else "day"


async def _course(context: PageContext, model: str, span: Span) -> Course | None:
    """Returns the charts of a model; ``None`` while Redis is away."""
    try:
        return course(await read_timeline(context.engine.redis, model, span), span)
    except StoreUnavailableError:
        return None


def _versions(dashboard: Dashboard) -> list[str]:
    """Returns the versions in the store that may go on trial, the likeliest first."""
    try:
        stored = bentoml.models.list(dashboard.model)
    except BentoMLException:
        return []
    stored.sort(key=lambda model: model.creation_time, reverse=True)
    versions = [str(model.tag.version) for model in stored if model.tag.version != dashboard.split.champion]
    back = {record.version for record in dashboard.quarantine} | {dashboard.split.challenger}
    return sorted(versions, key=lambda version: version in back)


def _goes_back(split: Split) -> tuple[str, str] | None:
    """Returns the version that a rollback takes away and the one that it brings back; ``None`` where none can."""
    try:
        after, version = rollback(split)
    except InvalidSplitError:
        return None
    return version, after.champion


def _look_up(split: Split, client_id: str, segment: str) -> Lookup | None:
    if not client_id:
        return None
    assignment = assign(split, require_identifier(client_id, "/client"), segment)
    return Lookup(client_id, segment, assignment, explain(split, assignment))
