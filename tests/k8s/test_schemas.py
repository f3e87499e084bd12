"""Every resource fits the schema of its kind, and has no field that the schema does not know."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from tests.k8s.rendering import ALL, Resource, name_of, pod_owners, render

SCHEMAS = Path(__file__).parent / "schemas"
# The oldest that k8s/base says it runs on, and the newest that the package knows.
VERSIONS = ("1.30", kubernetes_validate.latest_version())
# Argo's own definition has a copy of Kubernetes' templates, and drops what is not in it: 1.8 has that of this one.
ARGO_TEMPLATES = "1.29"


def check(resource: Resource, version: str) -> None:
    """Raises if the resource does not fit its schema, strictly."""
    file = SCHEMAS / f"{resource['kind']}.json"
    if not file.exists():
        kubernetes_validate.validate(resource, version, strict=True)
        return
    jsonschema.Draft202012Validator(_schema(file)).validate(resource)
    own = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": resource["metadata"]}
    kubernetes_validate.validate(own, version, strict=True)
    for owner in pod_owners([resource]):
        template = {"apiVersion": "v1", "kind": "PodTemplate", "template": owner["spec"]["template"]}
        kubernetes_validate.validate(template, ARGO_TEMPLATES, strict=True)


@functools.cache
def _schema(file: Path) -> Any:
    return _strict(json.loads(file.read_text()))


def _strict(schema: Any) -> Any:
    """Refuses what the properties do not name, except where the schema leaves it open."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _strict(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema["properties"] and schema.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_resource_fits_its_schema(name: str, version: str) -> None:
    for resource in render(name):
        try:
            check(resource, version)
        except jsonschema.ValidationError as error:
            raise AssertionError(f"{name_of(resource)}: {error.json_path}: {error.message}") from error


def _known() -> dict[str, Resource]:
    return {resource["kind"]: resource for name in ALL for resource in render(name)}


def test_a_misspelt_field_is_refused_in_every_kind_that_is_used() -> None:
    for resource in _known().values():
        wrong = copy.deepcopy(resource)
        wrong.get("spec", wrong)["mispelt"] = "no"
        with pytest.raises(jsonschema.ValidationError, match="mispelt"):
            check(wrong, VERSIONS[0])


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Deployment", "spec.template.spec.containers.0.readinessProbe"),
        ("Rollout", "spec.template.spec.containers.0.readinessProbe"),
        ("Rollout", "spec.strategy.canary.steps.0"),
        ("AnalysisTemplate", "spec.metrics.0.provider.prometheus"),
        ("HTTPRoute", "spec.rules.0.matches.0"),
        ("ServiceMonitor", "spec.endpoints.0"),
        ("PrometheusRule", "spec.groups.0.rules.0"),
        ("ScaledObject", "spec.triggers.0"),
        ("Canary", "spec.analysis.metrics.0"),
    ],
)
def test_a_misspelt_field_is_refused_deep_within(kind: str, path: str) -> None:
    wrong = copy.deepcopy(_known()[kind])
    at: Any = wrong
    for step in path.split("."):
        at = at[int(step) if step.isdigit() else step]
    at["mispelt"] = "no"
    with pytest.raises(jsonschema.ValidationError, match="mispelt"):
        check(wrong, VERSIONS[0])


def test_a_kind_without_a_schema_is_refused() -> None:
    unknown = {"apiVersion": "rollout.example/v1", "kind": "Gadget", "metadata": {"name": "one"}}
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        check(unknown, VERSIONS[0])
