"""The OpenAPI description, made from the types that do the work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from rollout.__about__ import __version__
from rollout.bundle.schema import InputSchema
from rollout.errors import HTTP_ERRORS
from rollout.http.predict import Identifier
from rollout.http.problems import MEDIA_TYPE, TYPE_PREFIX
from rollout.http.views import REVIEW_FILTERS
from rollout.inference.rows import ClassPrediction, ValuePrediction
from rollout.review.item import ReviewItem
from rollout.routing.split import Split

COMPONENT = "#/components/schemas/{name}"


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


ANSWERS = (ClassPrediction, ClassPredictions, ValuePrediction, ValuePredictions)


def build_openapi(schemas: Mapping[str, InputSchema]) -> dict[str, Any]:
    """Describes the service with one predict operation for each model.

    Args:
        schemas: The input schema of each model.
    """
    bodies = {name: _body_types(name, schema) for name, schema in schemas.items()}
    types = [kind for pair in bodies.values() for kind in pair]
    _, components = msgspec.json.schema_components(
        [*types, *ANSWERS, Problem, ReviewItem, Split],
        ref_template=COMPONENT,
    )
    paths: dict[str, Any] = {
        f"/v1/models/{name}/predict": {"post": _predict_operation(name, *pair)} for name, pair in bodies.items()
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
                [model, _parameter("client_id", "path")],
            )
        },
        "/v1/models/{model}/split": {
            "get": _operation("The split (admin)", "getSplit", _reference(Split), [model])
        },
        "/v1/models/{model}/split/history": {
            "get": _operation(
                "Every change of the split (admin)", "getSplitHistory", _list_of(Split, "history"), [model]
            )
        },
        "/v1/models/{model}/reviews": {
            "get": _operation(
                "Open review items, oldest first (reviewer)",
                "listReviews",
                _list_of(ReviewItem, "reviews"),
                [model, *(_parameter(name, "query") for name in sorted({"since", "limit", *REVIEW_FILTERS}))],
            )
        },
    }
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
                msgspec.defstruct(f"{title}Inputs", [(n, f.wire_type) for n, f in schema.fields.items()]),
            ),
            ("key", Identifier | None, None),
        ],
    )
    return instance, msgspec.defstruct(f"{title}Instances", [("instances", list[instance])])  # type: ignore[valid-type]


def _predict_operation(name: str, instance: type, instances: type) -> dict[str, Any]:
    operation = _operation(
        f"Predict with {name}",
        f"predict_{name}",
        {"oneOf": [_reference(answer) for answer in ANSWERS]},
        [_parameter("X-Request-Timeout", "header")],
    )
    body = {"oneOf": [_reference(instance), _reference(instances)]}
    operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


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


def _parameter(name: str, place: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": {"type": "string"}}


def _reference(kind: type) -> dict[str, Any]:
    return {"$ref": COMPONENT.format(name=kind.__name__)}


def _list_of(kind: type, name: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "array", "items": _reference(kind)}}}
