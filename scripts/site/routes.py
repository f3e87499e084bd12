"""Every route as a page, from the document that the service gives at ``/openapi.json``."""

from __future__ import annotations

import re
from typing import Any

from rollout import Classification, Image, InputSchema
from rollout.http.openapi import build_openapi
from scripts.site.reference import table

GROUPS = {
    "Predictions": r"/(predict|explain)$",
    "Models and trials": r"^/v1/models($|/\{model\}($|/(assignments|verdict|drift|improvement|split)))",
    "Outcomes and clients": r"/(feedback|clients/\{client_id\})$",
    "Review": r"/reviews",
    "Gates": r"^/gates",
    "Open Inference Protocol": r"^/v2",
}
START = """# HTTP

Every route, as the service describes itself at `/openapi.json`, which has the models that you serve. Here stands
the demo's `digits`. Who may call what: [roles](roles.md). Whatever goes wrong is a
[problem](problems.md#problems).
"""


def page() -> str:
    """Returns the page in Markdown."""
    described = build_openapi(
        {"digits": InputSchema({"image": Image(height=32, width=32)})},
        {"digits": Classification(labels=[str(digit) for digit in range(10)])},
    )
    parts, left = [START], dict(described["paths"])
    for group, pattern in GROUPS.items():
        parts.append(f"## {group}\n")
        for path in [path for path in left if re.search(pattern, path)]:
            for method, operation in left.pop(path).items():
                parts.append(_operation(method.upper(), path, operation))
    if left:
        raise ValueError(f"scripts/site/routes.py has no group for {', '.join(left)}")
    parts.append("## Bodies\n")
    schemas = described["components"]["schemas"]
    parts += [_schema(name, schema) for name, schema in sorted(schemas.items())]
    return "\n".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [f"### `{method} {path}` {{#{operation['operationId'].lower()}}}\n", f"{operation['summary']}.\n"]
    rows = [
        (f"`{one['name']}`", one["in"], "yes" if one.get("required") else "", one.get("description", ""))
        for one in operation["parameters"]
    ]
    if rows:
        lines.append(table(("parameter", "in", "required", "is"), rows))
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        lines.append(f"- takes `{media}`: {_kind(content['schema'])}")
    for status, answer in operation["responses"].items():
        if status != "default":
            kinds = [f"`{media}`: {_kind(one['schema'])}" for media, one in answer.get("content", {}).items()]
            lines.append(f"- answers {status}, " + "; ".join(kinds))
    return "\n".join(lines) + "\n"


def _schema(name: str, schema: dict[str, Any]) -> str:
    lines = [f"### {name} {{#body-{name.lower()}}}\n"]
    if text := schema.get("description", ""):
        lines.append(_plain(text.split("\n\n")[0]) + "\n")
    rows = [
        (f"`{field}`", _kind(one), "yes" if field in schema.get("required", ()) else "", _plain(_text(one)))
        for field, one in schema.get("properties", {}).items()
    ]
    lines.append(table(("field", "type", "required", "is"), rows) if rows else f"{_kind(schema)}\n")
    return "\n".join(lines)


def _text(schema: dict[str, Any]) -> str:
    return str(schema.get("description", "")).split("\n\n")[0]


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


def _kind(schema: dict[str, Any]) -> str:
    """Says in a few words what a JSON schema takes."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#body-{name.lower()})"
    for several in ("oneOf", "anyOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_kind(one) for one in schema[several]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if isinstance(of := schema.get("items"), dict):
        return f"list of {_kind(of)}"
    if isinstance(of := schema.get("additionalProperties"), dict):
        return f"object of {_kind(of)}"
    kind = "bytes" if schema.get("format") == "binary" else schema.get("type", "anything")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
