"""The review queue over HTTP: take items, decide on them, take a decision back, and read what there is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from rollout.errors import InvalidRequestError, UnknownItemError
from rollout.heads import Truth
from rollout.http.auth import Bearer
from rollout.http.bodies import Identifier, is_count, json_response, read_json
from rollout.http.gateway import Gateway
from rollout.http.routes import JSON, GatedRoute
from rollout.inference.engine import Engine
from rollout.inference.served_model import ServedModel
from rollout.review import actions
from rollout.review.access_log import record_access
from rollout.review.export import ExportRow, encode_row, export_rows, read_lineage, read_since
from rollout.review.item import ItemFields, ReviewItem, milliseconds
from rollout.review.queue import INPUT_BYTES, list_items, read_item, read_links
from rollout.review.state import Review, State, Work

PATH = "/v1/models/{model}/reviews"
FILTERS = ("reason", "arm", "version", "client_id", "label")
MOST_CLAIMED = 100
LONGEST_LEASE_S = 24 * 3600
MOST_LISTED = 1000
# Of an item that two versions disagree on, what would say which of them answered what.
TELL_APART = ("version", "variant", "threshold", "answer", "unsure", "other")

Why = Annotated[str, Meta(min_length=1, max_length=1000)]


class ClaimRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Who wants how many items, for how long, and which."""

    reviewer: Identifier
    count: Annotated[int, Meta(ge=1, le=MOST_CLAIMED)] = 1
    lease_s: Annotated[float, Meta(ge=1, le=LONGEST_LEASE_S)] = actions.LEASE_S
    filters: dict[str, str] = {}
    escalated: bool = False


class ResolveRequest(Truth, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The lease's token, and the answer in the form that the item's model takes."""

    token: str


class SetAsideRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The lease's token, and the reason."""

    token: str
    why: Why


class TokenRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The lease's token."""

    token: str


class ItemView(ItemFields, frozen=True, kw_only=True):
    """An item without its head, which ``GET /v1/models/{model}`` gives once for all.

    Who decides which of two versions is right does not see which said what: of an item for a trial, the token of
    a reviewer gets ``null`` for whatever tells them apart, and the reason ``disagreement``.

    Attributes:
        answers: What was answered; of two versions in an order that says nothing.
        linked_to: The item of the same inputs under another key, if this prediction is only linked to it.
    """

    version: str | None  # type: ignore[assignment]
    variant: str | None  # type: ignore[assignment]
    answer: dict[str, Any] | None  # type: ignore[assignment]
    answers: list[dict[str, Any]]
    linked_to: str | None = None


class LeasedView(msgspec.Struct, frozen=True, kw_only=True):
    """An item that a reviewer has; see ``Leased``."""

    item: ItemView
    token: str
    until: str
    reviews: tuple[Review, ...]
    why: str


class ClaimView(msgspec.Struct, frozen=True, kw_only=True):
    """What a reviewer gets; see ``Claim``."""

    items: list[LeasedView]
    open: int
    leased_by_others: int
    escalated: int


class DecisionView(Truth, frozen=True, kw_only=True):
    """What became of an item, with the answer that people agreed on.

    Attributes:
        why: Why it was skipped or escalated.
        at: When it was decided, ISO 8601 in UTC.
        reviews: Who said what.
    """

    why: str
    at: str | None
    reviews: tuple[Review, ...]


class Reviews:
    """The routes of the review queue.

    Args:
        gateway: Lets requests through to the engine.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        item = f"{PATH}/{{id}}"
        self.routes = [
            GatedRoute(PATH, self._list, role="reviewer"),
            _post(f"{PATH}/claim", self._claim),
            GatedRoute(f"{PATH}/export", self._export, role="reviewer"),
            GatedRoute(item, self._show, role="reviewer"),
            _post(f"{item}/resolve", self._resolve),
            _post(f"{item}/skip", self._skip),
            _post(f"{item}/escalate", self._escalate),
            _post(f"{item}/release", self._release),
            _post(f"{item}/undo", self._undo),
        ]

    def _of(self, request: Request) -> tuple[Engine, ServedModel, Bearer]:
        engine = self._gateway.engine
        return engine, engine.model(request.path_params["model"]), request.scope["bearer"]

    async def _claim(self, request: Request) -> Response:
        engine, model, bearer = self._of(request)
        body = await read_json(self._gateway, request, ClaimRequest)
        if not body.reviewer.isprintable():
            raise InvalidRequestError("reviewer must be 1 to 128 printable characters")
        _require_known(body.filters)
        claim = await actions.claim(
            engine.redis,
            model.name,
            body.reviewer,
            body.count,
            body.lease_s,
            filters=body.filters,
            escalated=body.escalated,
        )
        ids = [one.item.id for one in claim.items]
        await record_access(engine.redis, model.name, body.reviewer, bearer.role, "claim", ids)
        items = [_leased(one, bearer) for one in claim.items]
        return json_response(ClaimView(**msgspec.structs.asdict(claim) | {"items": items}))

    async def _resolve(self, request: Request) -> Response:
        engine, model, _ = self._of(request)
        body = await read_json(self._gateway, request, ResolveRequest)
        return _decided(
            await actions.resolve(engine.redis, model.name, request.path_params["id"], body.token, body.truth)
        )

    async def _skip(self, request: Request) -> Response:
        engine, model, _ = self._of(request)
        body = await read_json(self._gateway, request, SetAsideRequest)
        return _decided(
            await actions.skip(engine.redis, model.name, request.path_params["id"], body.token, body.why)
        )

    async def _escalate(self, request: Request) -> Response:
        engine, model, _ = self._of(request)
        body = await read_json(self._gateway, request, SetAsideRequest)
        return _decided(
            await actions.escalate(engine.redis, model.name, request.path_params["id"], body.token, body.why)
        )

    async def _release(self, request: Request) -> Response:
        engine, model, _ = self._of(request)
        body = await read_json(self._gateway, request, TokenRequest)
        work = await actions.release(engine.redis, model.name, request.path_params["id"], body.token)
        return json_response({"state": work.state})

    async def _undo(self, request: Request) -> Response:
        engine, model, bearer = self._of(request)
        body = await read_json(self._gateway, request, TokenRequest)
        leased = await actions.undo(engine.redis, model.name, request.path_params["id"], body.token)
        await record_access(engine.redis, model.name, bearer.name, bearer.role, "undo", [leased.item.id])
        return json_response(_leased(leased, bearer))

    async def _show(self, request: Request) -> Response:
        engine, model, bearer = self._of(request)
        item_id = request.path_params["id"]
        found = await read_item(engine.redis, model.name, item_id)
        if found is None:
            raise UnknownItemError(f"{model.name} has no review item {item_id!r}")
        await record_access(engine.redis, model.name, bearer.name, bearer.role, "show", [item_id])
        links = await read_links(engine.redis, model.name, item_id)
        shown = [{"client_id": link.client_id, "key": link.key, "at": link.at} for link in links]
        return json_response(_view(*found, bearer) | {"links": shown})

    async def _list(self, request: Request) -> Response:
        engine, model, bearer = self._of(request)
        filters = dict(request.query_params)
        limit = filters.pop("limit", "100")
        since = filters.pop("since", None)
        offset = filters.pop("offset", "0")
        state = filters.pop("state", State.OPEN)
        _require_known(filters)
        if not is_count(limit) or not 1 <= int(limit) <= MOST_LISTED:
            raise InvalidRequestError(f"limit must be a whole number from 1 to {MOST_LISTED}")
        if not is_count(offset):
            raise InvalidRequestError("offset must be a whole number: how many items to pass over")
        if state not in tuple(State):
            raise InvalidRequestError(f"state must be one of {', '.join(State)}")
        _require_time(since)
        reviews: list[dict[str, Any]] = []
        passed = together = 0
        async for item, work in list_items(engine.redis, model.name, filters, since, State(state)):
            if passed < int(offset):
                passed += 1
                continue
            reviews.append(_view(item, work, bearer))
            together += item.size
            if len(reviews) == int(limit) or together >= INPUT_BYTES:
                break
        ids = [one["id"] for one in reviews]
        await record_access(engine.redis, model.name, bearer.name, bearer.role, "list", ids)
        return json_response({"reviews": reviews})

    async def _export(self, request: Request) -> Response:
        engine, model, bearer = self._of(request)
        filters = dict(request.query_params)
        since = filters.pop("since", None)
        if filters.pop("format", "jsonl") != "jsonl":
            raise InvalidRequestError("format must be jsonl; `rollout review export` writes Parquet")
        _require_known(filters)
        rows = export_rows(
            engine.redis,
            model.name,
            None if since is None else read_since(since),
            read_lineage(model.name),
            who=bearer.name,
            role=bearer.role,
            filters=filters,
        )
        lines = _lines(rows)
        first = await anext(lines, b"")  # without Redis there is no answer to begin
        return StreamingResponse(_behind(first, lines), media_type="application/x-ndjson")


def _post(path: str, endpoint: Callable[..., Any]) -> GatedRoute:
    return GatedRoute(path, endpoint, role="reviewer", methods=["POST"], takes=[JSON])


async def _lines(rows: AsyncIterator[ExportRow]) -> AsyncIterator[bytes]:
    async for row in rows:
        yield encode_row(row) + b"\n"


async def _behind(first: bytes, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for line in lines:
        yield line


def _view(item: ReviewItem, work: Work, bearer: Bearer) -> dict[str, Any]:
    """Shows an item; what people said of it is shown once it is decided."""
    decision = None
    if work.state in (State.RESOLVED, State.SKIPPED):
        decision = DecisionView(
            **msgspec.structs.asdict(work.truth), why=work.why, at=work.decided_at, reviews=work.reviews
        )
    return msgspec.structs.asdict(_shown(item, bearer)) | {"state": work.state, "decision": decision}


def _shown(item: ReviewItem, bearer: Bearer) -> ItemView:
    known = {name: getattr(item, name) for name in ItemView.__struct_fields__ if name != "answers"}
    if item.trial and bearer.role == "reviewer":
        known |= dict.fromkeys(TELL_APART) | {"reason": item.reason_shown}
    return ItemView(**known, answers=[dict(answer) for answer in item.said])


def _leased(leased: actions.Leased, bearer: Bearer) -> LeasedView:
    return LeasedView(**msgspec.structs.asdict(leased) | {"item": _shown(leased.item, bearer)})


def _decided(work: Work) -> Response:
    return json_response({"state": work.state, **work.said, "why": work.why})


def _require_known(filters: Mapping[str, Any]) -> None:
    unknown = sorted(filters.keys() - set(FILTERS))
    if unknown:
        raise InvalidRequestError(
            f"there is no filter {unknown[0]!r}; there are limit, offset, since, state, {', '.join(FILTERS)}"
        )


def _require_time(since: str | None) -> None:
    try:
        if since is not None:
            milliseconds(since)
    except ValueError:
        raise InvalidRequestError("since must be a time in ISO 8601, such as 2026-11-22T10:00:00Z") from None
