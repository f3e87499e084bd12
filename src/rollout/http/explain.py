"""Why a prediction came out, over HTTP: one instance as it is predicted, by the version that its client gets.

It needs the role ``app``, as predicting does: it says nothing that a caller could not find out by predicting, and
what it costs is bounded by the settings and not by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rollout.bundle.schema import Arrays
from rollout.errors import LONGEST_TEXT, FieldError, InvalidRequestError, invalid
from rollout.explain.explanation import MOST_SEED, Explanation, Question
from rollout.explain.processes import Task, columns_of
from rollout.http.bodies import json_response
from rollout.http.files import IDENTIFIERS, reader_of
from rollout.http.gateway import Gateway, media_type_of
from rollout.http.predict import decode_request, read_json, whether_hung_up
from rollout.http.request_options import DEFAULTS, HEADERS
from rollout.http.routes import JSON, GatedRoute
from rollout.inference.rows import Preview
from rollout.inference.snapshot import ServingSnapshot
from rollout.inference.version import LoadedVersion
from rollout.routing.assignment import Arm, assign

PATH = "/v1/models/{model}/explain"
PNG = "image/png"
ASKED = ("label", "head", "seed")


class ExplanationView(Explanation, frozen=True, kw_only=True):
    """An explanation of what a client gets.

    Attributes:
        client_id: The caller's own ID of the client.
        arm: The client's arm.
    """

    client_id: str
    arm: Arm


class Asked(NamedTuple):
    """Who answers a client.

    Attributes:
        arm: The client's arm.
        loaded: The version that answers it.
    """

    arm: Arm
    loaded: LoadedVersion


class Explanations:
    """The route that explains.

    Args:
        gateway: Reaches the engine.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.routes = [
            GatedRoute(PATH, self._explain, role="app", methods=["POST"], takes=[JSON], takes_files=True)
        ]

    async def _explain(self, request: Request) -> Response:
        gateway, scope = self._gateway, request.scope
        model = gateway.engine.model(request.path_params["model"])
        gateway.engine.explainers.require()  # before the body is read
        question, rest = _question(request)
        options = DEFAULTS
        for name, value in scope["headers"]:
            if name in HEADERS:
                options = options.with_header(name, value)
        gateway.authorize_options(scope, options)
        media_type = media_type_of(dict(scope["headers"]))
        read = reader_of({**scope, "query_string": rest}, model.schema, media_type, 1)
        read = read or (lambda body: read_json(body, 1))
        body = await gateway.read(request.receive)
        is_gone = whether_hung_up(scope)
        rows = (await decode_request(body, model.schema, gateway.settings, options, is_gone, read)).rows
        snapshot = model.snapshot
        (client_id,) = rows.client_ids
        arm, loaded = who_answers(snapshot, client_id, options.segment, options.preview)
        wants_picture = PNG in request.headers.get("accept", "")
        answer = await gateway.engine.explain(
            task_of(snapshot, loaded, rows.arrays, question, wants_picture=wants_picture),
            gateway.settings.explain_timeout_s if options.timeout_ms is None else options.timeout_ms / 1000,
            is_gone,
        )
        if wants_picture:
            return Response(answer.picture, media_type=PNG)
        said = msgspec.structs.asdict(answer.explanation)
        return json_response(ExplanationView(**said, client_id=client_id, arm=arm))


def who_answers(
    snapshot: ServingSnapshot, client_id: str, segment: str = "", preview: Preview | None = None
) -> Asked:
    """Returns who answers a client; that counts nothing.

    Args:
        snapshot: What answers now.
        client_id: The client.
        segment: What the caller says that it belongs to.
        preview: The arm that an admin looks at.

    Raises:
        InvalidRequestError: If an admin looks at a challenger, and there is none.
    """
    arm: Arm = preview or assign(snapshot.split, client_id, segment).arm
    if arm != "challenger":
        return Asked(arm, snapshot.champion)
    if snapshot.challenger is None and preview is not None:
        raise InvalidRequestError(
            "there is no challenger on trial to look at: leave out the header X-Rollout-Arm"
        )
    return Asked(arm, snapshot.challenger or snapshot.champion)


def task_of(
    snapshot: ServingSnapshot,
    loaded: LoadedVersion,
    row: Arrays,
    question: Question,
    *,
    wants_picture: bool = False,
) -> Task:
    """Returns what a process is asked to explain a row by a version that is in memory.

    Raises:
        InvalidRequestError: If there is no such label or head, or answers of this kind have no number to explain.
    """
    meanings = snapshot.split.labels.get(loaded.version, {})
    own = loaded.manifest.task
    head = own.public(meanings) if own.translation(snapshot.task, meanings) is None else snapshot.task
    # Before a process is started, what no row has an answer for is refused.
    head.explained([0.0] * head.columns, question.label, question.head)
    return Task(
        folder=str(loaded.folder),
        variant=loaded.variant,
        head=msgspec.json.encode(head),
        meanings=meanings,
        row=columns_of(row),
        question=question,
        wants_picture=wants_picture,
    )


def _question(request: Request) -> tuple[Question, bytes]:
    """Returns what the query asks, and what of the query is about the row."""
    pairs: Sequence[tuple[str, str]] = parse_qsl(request.url.query, keep_blank_values=True)
    own = {name: value for name, value in pairs if name in ASKED}
    if unknown := [name for name, _ in pairs if name not in (*ASKED, *IDENTIFIERS)]:
        takes = ", ".join((*ASKED, *IDENTIFIERS))
        raise InvalidRequestError(f"the query takes {takes}, not {unknown[0][:LONGEST_TEXT]!r}")
    seed = own.pop("seed", "0")
    if not seed.isascii() or not seed.isdecimal() or len(seed) > 10 or int(seed) > MOST_SEED:
        raise invalid([FieldError("/seed", f"must be a whole number from 0 to {MOST_SEED}")])
    rest = urlencode([(name, value) for name, value in pairs if name not in ASKED]).encode()
    return Question(seed=int(seed), **own), rest
