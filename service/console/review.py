"""The reviewers' page, and what its script asks for: items ahead of time, and decisions one by one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import get_args

import msgspec
from starlette.responses import Response

from rollout.errors import (
    NO_JSON,
    ForbiddenError,
    InvalidRequestError,
    LeaseLostError,
    StoreUnavailableError,
)
from rollout.heads import Truth
from rollout.http.bodies import is_count
from rollout.review import actions
from rollout.review.access_log import record_access
from rollout.review.counts import read_counts
from rollout.review.queue import read_items, read_work
from rollout.review.state import UNSAID, State, Work, give_back, iso
from rollout.review.transitions import Transition, commit
from rollout.routing.assignment import Arm
from rollout.routing.splits import read_split
from rollout.routing.trial_labels import read_trial_labels
from service.console.item_view import REASONS, item_view
from service.console.page_context import Page, PageContext
from service.console.render import data

LEASE_S = 300
MOST_ITEMS = 50
LONGEST_WHY = 500
FILTERS = ("version", "arm", "reason", "label", "client_id")
WHY_ESCALATE = "a reviewer leaves it to an adjudicator"
WHY_SKIP = ("It cannot be made out", "The inputs make no sense", "I do not know")


class _Said(Truth, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a form says, and nothing else."""


async def show(context: PageContext) -> Response:
    """Shows the page, on which the script puts the items; who has no name is asked for it."""
    model, query = context.model, context.request.query_params
    if not context.name:
        return context.page("name.html", model=model.name, wanted=context.address)
    try:
        entered = (await read_counts(context.engine.redis, model.name)).entered
    except StoreUnavailableError:
        entered = []
    versions = sorted({one.version for one in entered} | set(model.split.versions))
    return context.page(
        "review.html",
        model=model.name,
        head=model.task,
        filters={name: query[name] for name in FILTERS if query.get(name)},
        options={
            "reason": list(REASONS.items()),
            "version": [(one, one) for one in versions],
            "arm": [(arm, arm) for arm in get_args(Arm)],
            "label": [(label, label) for label in model.task.labels_used],
        },
        whys=WHY_SKIP,
        is_escalated="escalated" in query,
        lease_s=LEASE_S,
    )


async def claim(context: PageContext) -> Response:
    """Leases the next items to the reviewer, ready to be shown; their own come first, for as long again."""
    form, model = context.form, context.model
    if not context.name:
        raise ForbiddenError("reviews carry a name: open the review page, which asks for yours")
    count = form.get("count", "")
    if not is_count(count) or not 0 < int(count) <= MOST_ITEMS:
        raise InvalidRequestError(f"count must be a number from 1 to {MOST_ITEMS}")
    claimed = await actions.claim(
        context.engine.redis,
        model.name,
        context.name,
        int(count),
        LEASE_S,
        filters={name: form[name] for name in FILTERS if form.get(name)},
        escalated="escalated" in form,
    )
    ids = [leased.item.id for leased in claimed.items]
    await record_access(context.engine.redis, model.name, context.name, context.role or "", "claim", ids)
    fields = model.schema.fields
    items = await asyncio.to_thread(lambda: [item_view(leased, fields) for leased in claimed.items])
    figures = {name: getattr(claimed, name) for name in ("open", "leased_by_others", "escalated")}
    return data({"items": items, "wanted": await _wanted(context)} | figures)


async def decide(context: PageContext) -> Response:
    """Takes a decision on one item, or takes the last one back; saying the same twice is saying it once."""
    form, redis, name = context.form, context.engine.redis, context.model.name
    did, item, token = (form.get(field, "") for field in ("did", "item", "token"))
    why = " ".join(form.get("why", "").split())[:LONGEST_WHY]
    truth, until = _truth(form), None
    try:
        if did == "resolve":
            await actions.resolve(redis, name, item, token, truth)
        elif did == "skip":
            if not why:
                raise InvalidRequestError("say why you skip it")
            await actions.skip(redis, name, item, token, why)
        elif did == "escalate":
            await actions.escalate(redis, name, item, token, why or WHY_ESCALATE)
        elif did == "undo":
            until = (await actions.undo(redis, name, item, token, LEASE_S)).until
        else:
            raise InvalidRequestError("did must be resolve, skip, escalate or undo")
    except LeaseLostError:
        # The answer to the first try may have got lost on its way.
        found = await read_items(redis, name, [item])
        if not found or not _is_done(read_work(found[0][1]), did, token, truth):
            raise
    return data({"until": until, "wanted": await _wanted(context)})


async def release(context: PageContext) -> Response:
    """Gives back what a page that is being left had ahead; what it has no more is no matter.

    A page that is loaded again may have its items again before this arrives: those have another end.
    """
    redis, name = context.engine.redis, context.model.name
    try:
        leases = msgspec.json.decode(context.form.get("leases", ""), type=list[tuple[str, str, str]])
    except NO_JSON:
        raise InvalidRequestError("leases must be items with their token and end, as JSON") from None
    known = {item: (token, end) for item, token, end in leases[:MOST_ITEMS]}
    transitions = []
    for item, stored in await read_items(redis, name, list(known)):
        work = read_work(stored)
        if (
            work.state is State.LEASED
            and work.lease
            and known[item.id] == (work.lease.token, iso(work.lease.until))
        ):
            transitions.append(
                Transition(item, stored, work, *give_back(work, "release", round(time.time() * 1000)))
            )
    await commit(redis, name, transitions)
    return data({})


PAGES = (
    Page("/models/{model}/review", show, role="reviewer"),
    Page("/models/{model}/review/claim", claim, "POST", role="reviewer"),
    Page("/models/{model}/review/decide", decide, "POST", role="reviewer"),
    Page("/models/{model}/review/release", release, "POST", role="reviewer"),
)


async def _wanted(context: PageContext) -> str:
    """Says what the trial wants of reviewers, as of a second ago, where their labels decide it."""
    redis, model = context.engine.redis, context.model.name
    split = await read_split(redis, model)
    if split is None or split.policy is None or split.policy.compare == "outcomes":
        return ""
    found = await read_trial_labels(redis, model)
    words = "" if found is None else found.in_words()
    return words and f"{words[0].upper()}{words[1:]}."


def _truth(form: Mapping[str, str]) -> Truth:
    if "truth" not in form:
        return UNSAID
    try:
        return msgspec.json.decode(form["truth"], type=_Said).truth
    except NO_JSON as error:
        raise InvalidRequestError(f"the answer cannot be read: {error}") from None


def _is_done(work: Work, did: str, token: str, truth: Truth) -> bool:
    """Whether a decision under this very lease is there already."""
    if work.lease is None or work.lease.token != token:
        return False
    if did == "undo":
        return work.state is State.LEASED
    return work.decided == did and (did != "resolve" or work.reviews[-1].truth == truth)
