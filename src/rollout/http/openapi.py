"""The OpenAPI description, made from the types that do the work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from rollout.__about__ import __version__
from rollout.bundle.schema import InputSchema
from rollout.errors import HTTP_ERRORS
from rollout.heads import Head
from rollout.http.bodies import Identifier
from rollout.http.explain import ASKED, PNG, ExplanationView
from rollout.http.feedback import OutcomeView, OutcomeViews, Report, Reports
from rollout.http.files import media_types_of
from rollout.http.gates import CLOSED, OPEN_ON, GateView
from rollout.http.gates import PATH as GATES
from rollout.http.oip_messages import InferRequest, InferResponse
from rollout.http.problems import MEDIA_TYPE, TYPE_PREFIX
from rollout.http.reviews import (
    FILTERS,
    ClaimRequest,
    ClaimView,
    ItemView,
    LeasedView,
    ResolveRequest,
    SetAsideRequest,
    TokenRequest,
)
from rollout.http.routes import JSON, MIXED, MULTIPART
from rollout.http.stream import MEDIA_TYPE as LINES
from rollout.inference.rows import prediction_type
from rollout.review.export import ExportRow
from rollout.routing.drift import DriftView
from rollout.routing.improvement import Improvement
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


ProblemType = Annotated[
    str, msgspec.Meta(extra_json_schema={"enum": [f"{TYPE_PREFIX}{error.type}" for error in HTTP_ERRORS]})
]


class Fault(msgspec.Struct):
    """One fault in a request: a JSON pointer to the faulty value, and what would be right."""

    pointer: str
    detail: str


class Problem(msgspec.Struct):
    """An RFC 9457 problem document."""

    type: ProblemType
    title: str
    status: int
    detail: str
    errors: list[Fault] = []


REVIEWING = (ClaimRequest, ResolveRequest, SetAsideRequest, TokenRequest, ClaimView, LeasedView, ExportRow)
FEEDBACK = (Report, Reports, OutcomeView, OutcomeViews)


class Description:
    """The description of what is served, made once for as long as that is the same.

    Making it takes the event loop tens of milliseconds, and the types that it is made of are never forgotten.
    """

    def __init__(self) -> None:
        self._described: tuple[Mapping[str, InputSchema], Mapping[str, Head]] | None = None
        self._document = b""

    def document(self, schemas: Mapping[str, InputSchema], heads: Mapping[str, Head]) -> bytes:
        """Returns what ``build_openapi`` does, as JSON."""
        if self._described != (schemas, heads):
            self._document = msgspec.json.encode(build_openapi(schemas, heads))
            self._described = schemas, heads
        return self._document


def build_openapi(schemas: Mapping[str, InputSchema], heads: Mapping[str, Head]) -> dict[str, Any]:
    """Describes the service with one predict operation for each model.

    Args:
        schemas: The input schema of each model.
        heads: What each answers with.
    """
    answers = _answer_types(heads)
    bodies = {name: _body_types(name, schema) for name, schema in schemas.items()}
    types = [kind for pair in bodies.values() for kind in pair]
    _, components = msgspec.json.schema_components(
        [
            *types,
            *dict.fromkeys(kind for pair in answers.values() for kind in pair),
            *REVIEWING,
            *FEEDBACK,
            ExplanationView,
            InferRequest,
            InferResponse,
            Problem,
            ItemView,
            Split,
            DriftView,
            VerdictView,
            GateView,
            Improvement,
        ],
        ref_template=COMPONENT,
    )
    paths: dict[str, Any] = {
        f"/v1/models/{name}/predict": {"post": _predict_operation(name, schemas[name], *pair, answers[name])}
        for name, pair in bodies.items()
    }
    paths |= {
        f"/v1/models/{name}/explain": {"post": _explain_operation(name, schemas[name], instance)}
        for name, (instance, _) in bodies.items()
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
        **{f"{GATES}/{gate}": {"post": _gate(gate, model)} for gate in OPEN_ON},
        "/v1/models/{model}/improvement": {
            "get": _operation("What became of labels (admin)", "getImprovement", _reference(Improvement), [model])
        },
        "/v1/models/{model}/drift": {
            "get": _operation(
                "Whether live rows look like those of the evaluation", "getDrift", _reference(DriftView), [model]
            )
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


def _title(model: str) -> str:
    return model.title().replace("-", "").replace("_", "")


def _body_types(name: str, schema: InputSchema) -> tuple[type, type]:
    title = _title(name)
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


def _answer_types(heads: Mapping[str, Head]) -> dict[str, tuple[type, type]]:
    """Returns for each model what goes out for a row, and for several; models that answer alike share them."""
    alone: dict[str, type] = {}
    made: dict[type, tuple[type, type]] = {}
    found = {}
    for model, head in heads.items():
        kind: type = prediction_type(head.described_type(_title(model)))
        if kind not in made:
            one = kind
            if kind.__name__ in alone:  # another of this name has other fields
                one = msgspec.defstruct(_title(model) + kind.__name__, [], bases=(kind,))
            alone[one.__name__] = one
            several = msgspec.defstruct(
                f"{one.__name__}s",
                [("predictions", list[one])],  # type: ignore[valid-type]
                namespace={"__doc__": "The answers to a list of instances, in their order."},
            )
            made[kind] = one, several
        found[model] = made[kind]
    return found


def _predict_operation(
    name: str, schema: InputSchema, instance: type, instances: type, answers: tuple[type, type]
) -> dict[str, Any]:
    operation = _operation(
        f"Predict with {name}",
        f"predict_{name}",
        {"oneOf": [_reference(answer) for answer in answers]},
        _who_asks(),
    )
    body, takes = {"oneOf": [_reference(instance), _reference(instances)]}, media_types_of(schema)
    line = {"description": "One a line, for as many as there are", **_reference(instance)}
    operation["requestBody"] = {
        "required": True,
        "content": {
            JSON: {"schema": body},
            LINES.decode(): {"schema": line},
            **{media_type: {"schema": FILES if media_type == MIXED else BINARY} for media_type in takes},
            MULTIPART: _form(_title(name), schema),
        },
    }
    predictions = {"oneOf": [_reference(one) for one in (answers[0], Problem)]}
    operation["responses"]["200"]["content"][LINES.decode()] = {"schema": predictions}
    return operation


def _explain_operation(name: str, schema: InputSchema, instance: type) -> dict[str, Any]:
    operation = _operation(
        f"Explain one prediction of {name}: what the parts of its inputs do to it",
        f"explain_{name}",
        _reference(ExplanationView),
        [*_who_asks(), *(_parameter(name, "query") for name in ASKED)],
    )
    files = {media_type: {"schema": BINARY} for media_type in media_types_of(schema) if media_type != MIXED}
    content = {JSON: {"schema": _reference(instance)}, **files, MULTIPART: _form(_title(name), schema)}
    operation["requestBody"] = {"required": True, "content": content}
    operation["responses"]["200"]["content"][PNG] = {"schema": BINARY}
    return operation


def _who_asks() -> list[dict[str, Any]]:
    who = "Whose a file or a form is, and which prediction; JSON says it itself"
    said = [("client_id", "query"), ("key", "query"), ("X-Client-Id", "header"), ("X-Key", "header")]
    return [
        *(_parameter(name, "header") for name in ASKING),
        *(_parameter(name, place) | {"description": who} for name, place in said),
    ]


def _form(title: str, schema: InputSchema) -> dict[str, Any]:
    """Describes a form: a part for each input, and for the IDs where no input has their name."""
    parts = {"client_id": _component(Identifier), "key": _component(Identifier)}
    parts |= {
        name: BINARY if field.media_types else _component(field.declaration(f"{title}Inputs_{name}")[0])
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
        "undo": ("Take one's last decision back; the item is leased again", TokenRequest, _reference(LeasedView)),
    }
    paths = {
        path: {
            "get": _operation(
                "Review items in a state, open ones without another (reviewer)",
                "listReviews",
                _list_of(ItemView, "reviews"),
                [model, *wanted],
            )
        },
        f"{path}/claim": {
            "post": _with_body(
                _operation("Lease the next items (reviewer)", "claimReviews", _reference(ClaimView), [model]),
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
            "get": _operation("One review item (reviewer)", "getReview", _reference(ItemView), item)
        },
    }
    for step, (summary, body, answer) in steps.items():
        operation = _operation(f"{summary} (reviewer)", f"{step}Review", answer, item)
        paths[f"{path}/{{id}}/{step}"] = {"post": _with_body(operation, body)}
    return paths


def _gate(gate: str, model: dict[str, Any]) -> dict[str, Any]:
    verdicts = " or ".join(OPEN_ON[gate])
    operation = _operation(
        f"200 where the verdict is {verdicts}, {CLOSED} otherwise (no token)",
        f"{gate.replace('-', '')}Gate",
        _reference(GateView),
        [model],
    )
    operation["security"] = [{}]
    operation["responses"][str(CLOSED)] = {
        "description": "It is closed",
        "content": {JSON: {"schema": _reference(GateView)}},
    }
    return operation


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
