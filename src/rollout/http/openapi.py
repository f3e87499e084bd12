"""The OpenAPI description, made from the types that do the work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from rollout.__about__ import __version__
from rollout.bundle.schema import InputSchema
from rollout.errors import HTTP_ERRORS
from rollout.http.bodies import Identifier
from rollout.http.feedback import OutcomeView, OutcomeViews, Report, Reports
from rollout.http.files import media_types_of
from rollout.http.oip_messages import InferRequest, InferResponse
from rollout.http.problems import MEDIA_TYPE, TYPE_PREFIX
from rollout.http.reviews import FILTERS, ClaimRequest, ResolveRequest, SetAsideRequest, TokenRequest
from rollout.http.routes import JSON, MIXED, MULTIPART
from rollout.http.stream import MEDIA_TYPE as LINES
from rollout.inference.rows import ClassPrediction, ValuePrediction
from rollout.review.actions import Claim, Leased
from rollout.review.export import ExportRow
from rollout.review.item import ReviewItem
from rollout.routing.split import Split
from rollout.routing.verdict import VerdictView

ASKING = ("X-Request-Timeout", "X-Client-Segment", "X-Rollout-Arm")
COMPONENT = "#/components/schemas/{name}"
BINARY = {"type": "string", "format": "binary"}
FILES = {
    "type": "array",
    "items": BINARY,
    "description": "A row for each part, with X-Client-Id and X-Key in its headers",
}


class Problem(msgspec.Struct):
    """An RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = []


class ClassPredictions(msgspec.Struct):
    """The answer of a classification to a list of instances, in their order."""

    predictions: list[ClassPrediction]


class ValuePredictions(msgspec.Struct):
    """The answer of a regression to a list of instances, in their order."""

    predictions: list[ValuePrediction]


REVIEWING = (ClaimRequest, ResolveRequest, SetAsideRequest, TokenRequest, Claim, Leased, ExportRow)
FEEDBACK = (Report, Reports, OutcomeView, OutcomeViews)
ANSWERS = (ClassPrediction, ClassPredictions, ValuePrediction, ValuePredictions)


def build_openapi(schemas: Mapping[str, InputSchema]) -> dict[str, Any]:
    """Describes the service with one predict operation for each model.

    Args:
        schemas: The input schema of each model.
    """
    bodies = {name: _body_types(name, schema) for name, schema in schemas.items()}
    types = [kind for pair in bodies.values() for kind in pair]
    _, components = msgspec.json.schema_components(
        [
            *types,
            *ANSWERS,
            *REVIEWING,
            *FEEDBACK,
            InferRequest,
            InferResponse,
            Problem,
            ReviewItem,
            Split,
            VerdictView,
        ],
        ref_template=COMPONENT,
    )
    paths: dict[str, Any] = {
        f"/v1/models/{name}/predict": {"post": _predict_operation(name, schemas[name], *pair)}
        for name, pair in bodies.items()
    }
    model = _parameter("model", "path")
    paths |= {
        "/v1/models": {"get": _operation("What is loaded", "listModels", {"type": "object"})},
        "/v1/models/{model}": {
            "get": _operation("One model: versions, inputs, task, split", "getModel", {"type": "object"}, [model])
        },
        "/v1/models/{model}/assignments/{client_id}": {
            "get": _operation(
                "The arm that a client gets, and why",
                "getAssignment",
                {"type": "object"},
                [model, _parameter("client_id", "path"), _parameter("segment", "query")],
            )
        },
        "/v1/models/{model}/verdict": {
            "get": _operation("What to do with the challenger", "getVerdict", _reference(VerdictView), [model])
        },
        "/v1/models/{model}/split": {
            "get": _operation("The split (admin)", "getSplit", _reference(Split), [model]),
            "put": _change_split(model),
        },
        "/v1/models/{model}/split/history": {
            "get": _operation(
                "Every change of the split (admin)", "getSplitHistory", _list_of(Split, "history"), [model]
            )
        },
    }
    paths |= _reviews(model)
    paths |= _feedback(model)
    paths |= _inference_protocol()
    return {
        "openapi": "3.1.0",
        "info": {"title": "Rollout", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _body_types(name: str, schema: InputSchema) -> tuple[type, type]:
    title = name.title().replace("-", "").replace("_", "")
    instance = msgspec.defstruct(
        f"{title}Instance",
        [
            ("client_id", Identifier),
            (
                "inputs",
                msgspec.defstruct(
                    f"{title}Inputs",
                    [(n, *f.declaration(f"{title}Inputs_{n}")) for n, f in schema.fields.items()],
                    kw_only=True,
                ),
            ),
            ("key", Identifier | None, None),
        ],
    )
    return instance, msgspec.defstruct(f"{title}Instances", [("instances", list[instance])])  # type: ignore[valid-type]


def _predict_operation(name: str, schema: InputSchema, instance: type, instances: type) -> dict[str, Any]:
    who = "Whose a file or a form is, and which prediction; JSON says it itself"
    said = [("client_id", "query"), ("key", "query"), ("X-Client-Id", "header"), ("X-Key", "header")]
    operation = _operation(
        f"Predict with {name}",
        f"predict_{name}",
        {"oneOf": [_reference(answer) for answer in ANSWERS]},
        [
            *(_parameter(name, "header") for name in ASKING),
            *(_parameter(name, place) | {"description": who} for name, place in said),
        ],
    )
    body, takes = {"oneOf": [_reference(instance), _reference(instances)]}, media_types_of(schema)
    line = {"description": "One a line, for as many as there are", **_reference(instance)}
    operation["requestBody"] = {
        "required": True,
        "content": {
            JSON: {"schema": body},
            LINES.decode(): {"schema": line},
            **{media_type: {"schema": FILES if media_type == MIXED else BINARY} for media_type in takes},
            MULTIPART: _form(schema),
        },
    }
    predictions = {"oneOf": [_reference(one) for one in (ClassPrediction, ValuePrediction, Problem)]}
    operation["responses"]["200"]["content"][LINES.decode()] = {"schema": predictions}
    return operation


def _form(schema: InputSchema) -> dict[str, Any]:
    """Describes a form: a part for each input, and for the IDs where no input has their name."""
    parts = {"client_id": _component(Identifier), "key": _component(Identifier)}
    parts |= {
        name: BINARY if field.media_types else _component(field.wire_type)
        for name, field in schema.fields.items()
    }
    required = [name for name, field in schema.fields.items() if field.missing is None]
    return {
        "schema": {"type": "object", "properties": parts, "required": required},
        "encoding": {
            name: {"contentType": ", ".join(field.media_types) or ("text/plain" if field.is_text else JSON)}
            for name, field in schema.fields.items()
        },
    }


def _component(kind: Any) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=COMPONENT)
    return schema


def _change_split(model: dict[str, Any]) -> dict[str, Any]:
    operation = _operation(
        "Replace the split (admin); revision, by, at, previous and digests are not the caller's to say",
        "putSplit",
        _reference(Split),
        [model, _parameter("If-Match", "header", required=True), _parameter("release", "query")],
    )
    return _with_body(operation, Split)


def _reviews(model: dict[str, Any]) -> dict[str, Any]:
    path, item = "/v1/models/{model}/reviews", [model, _parameter("id", "path")]
    wanted = [_parameter(name, "query") for name in ("state", "since", "limit", "offset", *FILTERS)]
    steps = {
        "resolve": ("Answer a leased item", ResolveRequest, {"type": "object"}),
        "skip": ("Leave a leased item without an answer", SetAsideRequest, {"type": "object"}),
        "escalate": ("Leave a leased item to an adjudicator", SetAsideRequest, {"type": "object"}),
        "release": ("Give a leased item back", TokenRequest, {"type": "object"}),
        "undo": ("Take one's last decision back; the item is leased again", TokenRequest, _reference(Leased)),
    }
    paths = {
        path: {
            "get": _operation(
                "Review items in a state, open ones without another (reviewer)",
                "listReviews",
                _list_of(ReviewItem, "reviews"),
                [model, *wanted],
            )
        },
        f"{path}/claim": {
            "post": _with_body(
                _operation("Lease the next items (reviewer)", "claimReviews", _reference(Claim), [model]),
                ClaimRequest,
            )
        },
        f"{path}/export": {
            "get": _operation(
                "Every label, a row a line; those since a cursor or a time (reviewer)",
                "exportReviews",
                _reference(ExportRow),
                [model, *(_parameter(name, "query") for name in ("since", "format", *FILTERS))],
            )
        },
        f"{path}/{{id}}": {
            "get": _operation("One review item (reviewer)", "getReview", _reference(ReviewItem), item)
        },
    }
    for step, (summary, body, answer) in steps.items():
        operation = _operation(f"{summary} (reviewer)", f"{step}Review", answer, item)
        paths[f"{path}/{{id}}/{step}"] = {"post": _with_body(operation, body)}
    return paths


def _feedback(model: dict[str, Any]) -> dict[str, Any]:
    report = _operation(
        "Report what turned out to be true",
        "reportOutcomes",
        {"oneOf": [_reference(kind) for kind in (OutcomeView, OutcomeViews)]},
        [model],
    )
    body = {"oneOf": [_reference(kind) for kind in (Report, Reports)]}
    report["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    forget = _operation(
        "Forget a client: review items, inputs, outcomes, predictions (admin)",
        "forgetClient",
        {"type": "object"},
        [model, _parameter("client_id", "path")],
    )
    return {
        "/v1/models/{model}/feedback": {"post": report},
        "/v1/models/{model}/clients/{client_id}": {"delete": forget},
    }


def _with_body(operation: dict[str, Any], kind: type) -> dict[str, Any]:
    body = {"required": True, "content": {"application/json": {"schema": _reference(kind)}}}
    return operation | {"requestBody": body}


def _inference_protocol() -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/v2": {"get": _operation("What this server is", "serverMetadata", {"type": "object"})},
        "/v2/health/live": {"get": _operation("Is there a server?", "serverLive", {"type": "object"})},
        "/v2/health/ready": {"get": _operation("Is everything warm?", "serverReady", {"type": "object"})},
    }
    for tail, suffix, names in (("", "", ["model"]), ("/versions/{version}", "Version", ["model", "version"])):
        place = [_parameter(name, "path") for name in names]
        headers = [_parameter(name, "header") for name in ("X-Client-Id", *ASKING)]
        infer = _operation(
            "Predict in the Open Inference Protocol; tensors may be binary",
            f"modelInfer{suffix}",
            _reference(InferResponse),
            [*place, *headers, _parameter("Inference-Header-Content-Length", "header")],
        )
        infer["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {"schema": _reference(InferRequest)},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        }
        metadata = _operation("What a model takes and gives", f"modelMetadata{suffix}", {"type": "object"}, place)
        ready = _operation("Is it in memory?", f"modelReady{suffix}", {"type": "object"}, place)
        paths |= {
            f"/v2/models/{{model}}{tail}": {"get": metadata},
            f"/v2/models/{{model}}{tail}/ready": {"get": ready},
            f"/v2/models/{{model}}{tail}/infer": {"post": infer},
        }
    return paths


def _operation(
    summary: str, operation_id: str, schema: dict[str, Any], parameters: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    problems = ", ".join(f"`{TYPE_PREFIX}{error.type}` ({error.status})" for error in HTTP_ERRORS)
    return {
        "summary": summary,
        "operationId": operation_id,
        "parameters": parameters or [],
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": schema}}},
            "default": {
                "description": f"A problem; `type` is one of {problems}",
                "content": {MEDIA_TYPE: {"schema": _reference(Problem)}},
            },
        },
    }


def _parameter(name: str, place: str, *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required or place == "path", "schema": {"type": "string"}}


def _reference(kind: type) -> dict[str, Any]:
    return {"$ref": COMPONENT.format(name=kind.__name__)}


def _list_of(kind: type, name: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "array", "items": _reference(kind)}}}
