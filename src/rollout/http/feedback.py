"""Feedback over HTTP: callers report what turned out to be true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from rollout import metrics
from rollout.clock import utc_now
from rollout.errors import FieldError, OutcomeConflictError, invalid, require_none
from rollout.heads import Head, Truth
from rollout.heads.truth import FORMS
from rollout.http.bodies import Identifier, json_response, read_json
from rollout.http.gateway import Gateway
from rollout.http.routes import JSON, GatedRoute
from rollout.inference.rows import ID_LIMIT
from rollout.judge.policy import LARGEST_NUMBER, MOST_NUMBERS, NUMBER_NAME, TAKEN_NAMES
from rollout.review.outcomes import Outcome, Recorded, record_outcomes

PATH = "/v1/models/{model}/feedback"


class Report(Truth, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What turned out to be true of one prediction, in the form that its model takes, and the team's numbers."""

    client_id: Identifier
    key: Identifier
    numbers: dict[str, float] = msgspec.field(default_factory=dict)


class Reports(msgspec.Struct, forbid_unknown_fields=True):
    """Several outcomes at once."""

    outcomes: list[Report]


class _Body(Truth, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Either one outcome, or ``outcomes``."""

    client_id: Identifier | UnsetType = UNSET
    key: Identifier | UnsetType = UNSET
    numbers: dict[str, float] = msgspec.field(default_factory=dict)
    outcomes: list[Report] | UnsetType = UNSET


class OutcomeView(Truth, frozen=True, kw_only=True):
    """An outcome that was taken, in the form in which it was reported.

    Attributes:
        model: The model.
        client_id: The caller's own ID of the client.
        key: The caller's own ID of the prediction.
        numbers: Whatever else was reported.
        at: When it was first reported, ISO 8601 in UTC.
        repeated: Whether it had been reported before.
        joined: Whether its prediction is known; otherwise the outcome waits for it.
        arm: The client's arm when it was predicted.
        version: The version that answered.
        revision: Revision of the split then.
    """

    model: str
    client_id: str
    key: str
    numbers: dict[str, float] | UnsetType = UNSET
    at: str
    repeated: bool
    joined: bool
    arm: str | None
    version: str | None
    revision: int | None


class OutcomeViews(msgspec.Struct):
    """Several outcomes that were taken, in the order in which they were reported."""

    outcomes: list[OutcomeView]


class Feedback:
    """The route of feedback.

    Args:
        gateway: Lets requests through to the engine.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.routes = [GatedRoute(PATH, self._report, role="app", methods=["POST"], takes=[JSON])]

    async def _report(self, request: Request) -> Response:
        engine = self._gateway.engine
        model = engine.model(request.path_params["model"])
        body = await read_json(self._gateway, request, _Body)
        reports, single = _reports(body, self._gateway.settings.max_instances)
        pointers = [""] if single else [f"/outcomes/{index}" for index in range(len(reports))]
        faults = (
            FieldError(pointer + at, detail)
            for pointer, report in zip(pointers, reports, strict=True)
            for at, detail in _faults(report, model.task)
        )
        require_none(faults)
        at = utc_now("milliseconds")
        outcomes = [
            Outcome(client_id=one.client_id, key=one.key, at=at, numbers=one.numbers, **_forms(one))
            for one in reports
        ]
        recorded = await record_outcomes(
            engine.redis,
            model.name,
            outcomes,
            model.sampler.policy.retention_s,
            self._gateway.settings.max_waiting_outcomes,
        )
        for one in recorded:
            metrics.OUTCOMES.labels(model.name, _fate(one)).inc()
        _require_no_contradiction(pointers, recorded)
        views = [_view(model.name, one) for one in recorded]
        return json_response(views[0] if single else OutcomeViews(views))


def _reports(body: _Body, most: int) -> tuple[list[Report], bool]:
    """Returns what is reported, and whether it is one outcome, not a list."""
    if body.outcomes is UNSET:
        missing = [name for name in ("client_id", "key") if getattr(body, name) is UNSET]
        if missing:
            raise invalid([FieldError(f"/{name}", "is required") for name in missing])
        return [msgspec.convert(body, Report, from_attributes=True)], True
    if any(getattr(body, name) not in (UNSET, None, {}) for name in Report.__struct_fields__):
        raise invalid(
            [FieldError("/outcomes", "stands alone: client_id, key and what was true go into each outcome")]
        )
    if not 1 <= len(body.outcomes) <= most:
        raise invalid([FieldError("/outcomes", f"must hold 1 to {most} outcomes, not {len(body.outcomes)}")])
    return body.outcomes, False


def _faults(report: Report, head: Head) -> Iterator[FieldError]:
    for name in ("client_id", "key"):
        if not getattr(report, name).isprintable():
            yield FieldError(f"/{name}", f"must be 1 to {ID_LIMIT} printable characters")
    yield from _numbers_faults(report.numbers)
    if report.numbers and not report.forms:
        return  # what is true of the prediction itself need not be known
    for pointer, detail in head.faults(report.truth):
        yield FieldError(pointer, detail)


def _forms(truth: Truth) -> dict[str, Any]:
    return {name: getattr(truth, name) for name in FORMS}


def _numbers_faults(numbers: dict[str, float]) -> Iterator[FieldError]:
    if len(numbers) > MOST_NUMBERS:
        yield FieldError("/numbers", f"must hold at most {MOST_NUMBERS} numbers, not {len(numbers)}")
        return
    for name, number in numbers.items():
        if not NUMBER_NAME.fullmatch(name) or name in TAKEN_NAMES:
            yield FieldError("/numbers", "must have names of a small letter and up to 63 more, digits or _")
        elif not abs(number) <= LARGEST_NUMBER:
            yield FieldError(f"/numbers/{name}", f"must lie between -{LARGEST_NUMBER:g} and {LARGEST_NUMBER:g}")


def _fate(recorded: Recorded) -> str:
    if recorded.fate == "new":
        return "waiting" if recorded.outcome.predicted is None else "joined"
    return "repeated" if recorded.fate == "repeated" else "refused"


def _require_no_contradiction(pointers: list[str], recorded: list[Recorded]) -> None:
    """Refuses contradictions, and names them.

    Raises:
        OutcomeConflictError: If there are any; the others were taken.
    """
    errors = []
    for pointer, one in zip(pointers, recorded, strict=True):
        if one.fate == "contradicted":
            first = one.outcome
            name = next(iter(first.forms), "numbers")
            said = first.truth.in_words() if first.forms else first.numbers
            detail = f"is {said} since {first.at}"
            errors.append(FieldError(f"{pointer}/{name}", detail))
    if not errors:
        return
    if pointers == [""]:
        raise OutcomeConflictError(f"the {errors[0].pointer[1:]} {errors[0].detail}, and stays so", errors=errors)
    raise OutcomeConflictError(
        f"{len(errors)} of {len(recorded)} outcomes contradict what was reported before, which stays; the others "
        "were taken",
        errors=errors,
    )


def _view(model: str, recorded: Recorded) -> OutcomeView:
    outcome, predicted = recorded.outcome, recorded.outcome.predicted
    return OutcomeView(
        model=model,
        client_id=outcome.client_id,
        key=outcome.key,
        numbers=outcome.numbers or UNSET,
        at=outcome.at,
        repeated=recorded.fate == "repeated",
        joined=predicted is not None,
        arm=None if predicted is None else predicted.arm,
        version=None if predicted is None else predicted.version,
        revision=None if predicted is None else predicted.revision,
        **_forms(outcome),
    )
