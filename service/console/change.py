"""Changing a split in two steps: see what follows, then say why and confirm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, get_args

import msgspec
from starlette.responses import Response

from rollout.errors import InvalidSplitError, QuarantinedError, SplitConflictError
from rollout.http.bodies import is_count
from rollout.judge.policy import Act, Policy
from rollout.routing.changes import consequences, default_experiment, promote, ramp
from rollout.routing.control import Proposal, carry_out, propose, propose_rollback
from rollout.routing.policy_words import describe_policy
from rollout.routing.split import Split
from rollout.routing.splits import read_quarantine
from rollout.words import percent
from service.console import phrases
from service.console.dashboard import read_entries
from service.console.models import Fault, show_model
from service.console.page_context import Page, PageContext

POLICY = ("margin", "minutes", "clients", "late_ms", *get_args(Act))
FIELDS = ("change", "share", "shadow", "challenger", "experiment", "release", *POLICY)
LONGEST_WHY = 500


class Difference(NamedTuple):
    """One line of what a change changes.

    Attributes:
        name: Of what.
        before: How it is.
        after: How it would be.
    """

    name: str
    before: str
    after: str


async def preview(context: PageContext) -> Response:
    """Says what a change would do, and asks for confirmation."""
    try:
        return _preview(context, await _propose(context))
    except (InvalidSplitError, QuarantinedError) as error:
        return await _refuse(context, error)


async def confirm(context: PageContext) -> Response:
    """Makes a change, if the split is still the one that was looked at."""
    why = " ".join(context.form.get("why", "").split())[:LONGEST_WHY]
    revision = context.form.get("revision", "")
    try:
        proposal = await _propose(context, int(revision) if is_count(revision) else 0)
        if context.form["change"] == "rollback" and not why:
            return _preview(context, proposal, "Say why: the history keeps the reason.", 422)
        stored = await carry_out(context.engine.redis, proposal, context.name or context.role or "", why)
    except SplitConflictError:
        return await _show_conflict(context, revision)
    except (InvalidSplitError, QuarantinedError) as error:
        return await _refuse(context, error)
    return context.redirect(f"/console/models/{context.model.name}?revision={stored.revision}")


PAGES = (
    Page("/models/{model}/preview", preview, "POST"),
    Page("/models/{model}/change", confirm, "POST"),
)


async def _propose(context: PageContext, revision: int | None = None) -> Proposal:
    redis, name, form = context.engine.redis, context.model.name, context.form
    if form.get("change") != "rollback":
        return await propose(
            redis,
            name,
            _change(name, form),
            revision=revision,
            release="release" in form,
            renew=form.get("change") == "trial",
            key=context.settings.public_key,
        )
    proposal = await propose_rollback(redis, name)
    found = 0 if proposal.before is None else proposal.before.revision
    if revision not in (None, found):
        # Who looked at a trial must not undo the promotion that somebody made of it since.
        raise SplitConflictError(f"the split of {name} is at revision {found}, not {revision}")
    return proposal


def _change(model: str, form: Mapping[str, str]) -> Callable[[Split | None], Split]:
    """Returns the change that a form asks for.

    Raises:
        InvalidSplitError: If the form does not say what it takes.
    """
    kind = form.get("change")
    if kind == "share":
        share = _share(form, "share", "a share")
        return lambda split: ramp(_known(model, split), share)
    if kind == "shadow":
        shadow = _share(form, "shadow", "a shadow rate")
        return lambda split: msgspec.structs.replace(_known(model, split), shadow=shadow)
    if kind == "policy":
        acts = tuple(act for act in get_args(Act) if act in form)
        margin = _share(form, "margin", "a margin")
        minutes, clients, late_ms = (_number(form, name) for name in ("minutes", "clients", "late_ms"))
        return lambda split: _decide(_known(model, split), acts, margin, minutes, clients, late_ms)
    if kind == "promote":
        return lambda split: promote(_known(model, split))
    if kind != "trial":
        raise InvalidSplitError("this form asks for no change that there is")
    challenger, experiment = form.get("challenger", ""), form.get("experiment", "").strip()
    share, shadow = _share(form, "share", "a share"), _share(form, "shadow", "a shadow rate")
    if not challenger:
        raise InvalidSplitError("choose the version that goes on trial")

    def begin(split: Split | None) -> Split:
        current = _known(model, split)
        key = experiment or default_experiment(model, current.champion, challenger)
        policy = current.policy if challenger == current.challenger else None  # it was that trial's
        return msgspec.structs.replace(
            current, challenger=challenger, share=share, shadow=shadow, experiment=key, policy=policy
        )

    return begin


def _decide(
    split: Split, acts: tuple[Act, ...], margin: float, minutes: float, clients: float, late_ms: float
) -> Split:
    """Puts what the form has into the policy; what it has not, such as the stages, stays."""
    before = split.policy or Policy()
    policy = msgspec.structs.replace(
        before,
        margin=margin if before.metric == "accuracy" else before.margin,
        least_s=60 * minutes,
        least_clients=int(min(clients, 1e9)),
        guardrails=msgspec.structs.replace(before.guardrails, late_ms=late_ms or None),
        by_itself=acts,
    )
    return msgspec.structs.replace(split, policy=policy)


def _known(model: str, split: Split | None) -> Split:
    if split is None:
        raise InvalidSplitError(f"{model} has no split any more")
    return split


def _share(form: Mapping[str, str], name: str, what: str) -> float:
    """Reads a share in percent.

    Raises:
        InvalidSplitError: If it is not a number.
    """
    number = _read(form, name)
    if not math.isfinite(number):
        raise InvalidSplitError(f"{what} must be a number of percent, not {form[name]!r}")
    return round(number / 100, 8)


def _number(form: Mapping[str, str], name: str) -> float:
    """Reads a number.

    Raises:
        InvalidSplitError: If it is none.
    """
    number = _read(form, name)
    if not math.isfinite(number):
        raise InvalidSplitError(f"{name} must be a number, not {form[name]!r}")
    return number


def _read(form: Mapping[str, str], name: str) -> float:
    text = form.get(name, "").strip().removesuffix("%").strip().replace(",", ".") or "0"
    try:
        return float(text)
    except ValueError:
        return math.nan


def _preview(context: PageContext, proposal: Proposal, fault: str = "", status: int = 200) -> Response:
    before = proposal.before
    return context.page(
        "preview.html",
        status,
        model=context.model.name,
        change=context.form["change"],
        before=before,
        after=proposal.after,
        revision=0 if before is None else before.revision,
        consequences=consequences(before, proposal.after),
        warnings=proposal.warnings,
        quarantined=sorted(proposal.quarantine.values()),
        released=proposal.release,
        differences=_differences(before, proposal.after),
        fields={name: context.form[name] for name in FIELDS if name in context.form},
        why=context.form.get("why", ""),
        fault=fault,
    )


def _differences(before: Split | None, after: Split) -> list[Difference]:
    lines: list[tuple[str, Callable[[Split], str]]] = [
        ("Champion", lambda split: split.champion),
        ("Challenger", lambda split: split.challenger or "none"),
        ("Clients of the challenger", lambda split: percent(split.share)),
        ("Clients of its control", lambda split: percent(split.share)),
        ("Experiment key", lambda split: split.experiment or "none"),
        ("Shadow rate", lambda split: percent(split.shadow)),
        ("Policy", lambda split: describe_policy(split.policy)),
        ("Stays in memory to go back to", lambda split: split.previous or "none"),
    ]
    return [Difference(name, "–" if before is None else show(before), show(after)) for name, show in lines]


async def _refuse(context: PageContext, error: InvalidSplitError | QuarantinedError) -> Response:
    """Shows a refusal beside the form that asked for it, with what was entered."""
    change, text = context.form.get("change", ""), error.detail
    held = isinstance(error, QuarantinedError)
    if held:
        version = context.form.get("challenger", "")
        records = await read_quarantine(context.engine.redis, context.model.name)
        for record in records.values():
            if record.version == version:
                why = f": {record.why}" if record.why else ""
                text = f"{version} was rolled back by {record.by} on {phrases.when(record.at)} UTC{why}"
    return await show_model(context, Fault(change, text, held), context.form, error.status)


async def _show_conflict(context: PageContext, revision: str) -> Response:
    """Says who was first, and what they changed."""
    entries = await read_entries(context.engine.redis, context.model.name, 20)
    since = [entry for entry in entries if not is_count(revision) or entry.split.revision > int(revision)]
    return context.page(
        "conflict.html",
        412,
        model=context.model.name,
        entries=since,
        revision=revision,
        fields={name: context.form[name] for name in FIELDS if name in context.form},
    )
