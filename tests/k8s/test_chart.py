"""The Helm chart makes what kustomize makes, of the same files: of the base, with each component, and with several."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rollout.__about__ import __version__
from tests.conftest import BIN, need
from tests.k8s.rendering import COMPONENTS, K8S, Resource, containers, name_of, of_kind, pod_owners, render

# What the overlays in the same order combine.
PRODUCTION = ["first-split", "models-from-s3", "gateway", "monitoring"]
LOCAL = ["first-split", "models-from-image", "redis"]
# What would end a value in YAML, and begin another.
ENDS = ["\n  securityContext: {privileged: true}", " # x", ": y", "{", '"', "\t"]
SECRETS = [
    *("ROLLOUT_TOKENS", "ROLLOUT_TOKEN", "ROLLOUT_REDIS_URL", "ROLLOUT_WEBHOOK_SECRET", "AWS_SECRET_ACCESS_KEY"),
    *("AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "WANDB_API_KEY"),
    *("OTEL_EXPORTER_OTLP_HEADERS", "AZURE_STORAGE_ACCOUNT_KEY"),
]
HASH = re.compile(r"^(rollout)-[a-z0-9]{10}$")


@functools.cache
def helm() -> str:
    """Returns a helm, which ``scripts/need`` installs where there is none."""
    need("helm")
    return str(BIN / "helm") if (BIN / "helm").exists() else str(shutil.which("helm"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm(), *arguments], capture_output=True, text=True, check=False)


def chart(values: dict[str, Any], tmp_path: Path, namespace: str = "rollout") -> list[Resource]:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = run("template", "rollout", str(K8S), "--namespace", namespace, "--values", str(file))
    assert done.returncode == 0, done.stderr
    return [resource for resource in yaml.load_all(done.stdout, yaml.CSafeLoader) if resource]


def comparable(resources: list[Resource]) -> dict[str, Any]:
    """Returns resources by name, without what each of the two tools has of its own."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: cleaned(inner)
                for name, inner in value.items()
                if name not in ("app.kubernetes.io/managed-by", "checksum/settings")
            }
        if isinstance(value, list):
            return [cleaned(inner) for inner in value]
        return HASH.sub(r"\1", value) if isinstance(value, str) else value

    return {name_of(one): one for one in map(cleaned, resources)}


@pytest.mark.parametrize("component", COMPONENTS)
def test_it_makes_of_a_component_what_kustomize_makes(component: str, tmp_path: Path) -> None:
    found = chart({"components": [component], "namespace": {"create": True}}, tmp_path)
    assert comparable(found) == comparable(render(f"base+{component}"))


def test_it_makes_what_the_overlays_make(tmp_path: Path) -> None:
    image = f"registry.example/rollout:{__version__}"
    found = chart({"components": PRODUCTION, "namespace": {"create": True}, "image": {"name": image}}, tmp_path)
    assert comparable(found) == comparable(render("production"))
    small = {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}}
    values: dict[str, Any] = {
        "components": LOCAL,
        "namespace": {"create": True},
        "image": {"name": "rollout:demo", "pullPolicy": "Never"},
        "resources": small,
        "autoscaler": {"minReplicas": 1, "maxReplicas": 3},
    }
    ours, theirs = comparable(chart(values, tmp_path)), comparable(render("local"))
    differ = {name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)}
    # Secrets, a smaller Valkey and the metric that the overlay leaves out are the overlay's alone.
    assert differ == {"HorizontalPodAutoscaler/rollout", "StatefulSet/valkey"} | {
        name for name in theirs if name.startswith("Secret/")
    }


def test_what_the_values_say_is_where_it_belongs(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "components": ["first-split", "models-from-s3", "gateway", "keda", "improve"],
        "image": {"name": "registry.example/ours@sha256:" + "0" * 64, "pullSecrets": ["registry"]},
        "settings": {"MODELS_URL": "s3://ours/models", "ROLLOUT_TIMEOUT_MS": 500},
        "firstSplit": {"model": "scans", "champion": "v7"},
        "gateway": {"hostnames": ["scans.example"], "parentRefs": [{"name": "edge"}]},
        "keda": {"prometheus": "http://prometheus:9090"},
        "improve": {"model": "scans", "image": "registry.example/train:2"},
    }
    found = chart(values, tmp_path, namespace="scans")
    assert {one["metadata"]["namespace"] for one in found} == {"scans"}
    assert {container["image"] for owner in pod_owners(found) for container in containers(owner)} == {
        values["image"]["name"],
        "registry.example/train:2",
    }
    assert all(owner["spec"]["template"]["spec"]["imagePullSecrets"] for owner in pod_owners(found))
    (settings,) = of_kind(found, "ConfigMap")
    assert settings["data"]["MODELS_URL"] == "s3://ours/models"
    assert settings["data"]["ROLLOUT_TIMEOUT_MS"] == "500"
    (route,) = of_kind(found, "HTTPRoute")
    assert (route["spec"]["hostnames"], route["spec"]["parentRefs"]) == (["scans.example"], [{"name": "edge"}])
    text = yaml.safe_dump(found, width=1000)
    assert "rollout split show scans >/dev/null || rollout split set scans --champion v7" in text
    assert "rollout improve scans --least" in text
    assert 'namespace="scans"' in text
    assert "digits" not in text
    assert 'namespace="rollout"' not in text


def test_a_changed_setting_is_a_rolling_update(tmp_path: Path) -> None:
    def checksum(**settings: str) -> str:
        (deployment,) = of_kind(chart({"settings": settings}, tmp_path), "Deployment")
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/settings"])

    assert checksum() == checksum() != checksum(ROLLOUT_GRACE_S="11")


def test_helm_finds_nothing_wrong_and_the_schema_what_is(tmp_path: Path) -> None:
    done = run("lint", "--strict", str(K8S), "--set", f"components={{{','.join(PRODUCTION)}}}")
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout
    schema = json.loads((K8S / "values.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["components"]["items"]["enum"] == COMPONENTS
    values = yaml.safe_load((K8S / "values.yaml").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}
    for wrong in ("components={no-such}", "image.nam=x", "settings.ROLLOUT_TOKENS=x", "autoscaler.minReplicas=0"):
        assert run("template", "rollout", str(K8S), "--set", wrong).returncode != 0, wrong


@pytest.mark.parametrize(
    ("where", "said"),
    [
        *(
            (f"{part}.{name}", f"x:1{end}")
            for part, name in (("image", "name"), ("improve", "image"))
            for end in ENDS
        ),
        *(("keda.prometheus", f"http://x{end}") for end in ENDS),
        *(
            (f"{part}.model", said)
            for part in ("firstSplit", "improve")
            for said in ("--help", "-", "a b", "a;b", "a\nb")
        ),
        *(("firstSplit.champion", said) for said in ("--yes", "v1 --yes", "$(id)")),
        *((f"settings.{name}", "x") for name in SECRETS),
    ],
)
def test_no_value_becomes_more_than_a_value_and_no_secret_a_setting(where: str, said: str) -> None:
    part, name = where.split(".")
    schema = jsonschema.Draft202012Validator(json.loads((K8S / "values.schema.json").read_text()))
    values = yaml.safe_load((K8S / "values.yaml").read_text())
    assert schema.is_valid(values)
    values[part][name] = said
    assert not schema.is_valid(values)


def test_names_and_places_that_are_none_of_these_are_taken() -> None:
    schema = jsonschema.Draft202012Validator(json.loads((K8S / "values.schema.json").read_text()))
    for name in ("r:1", "localhost:5000/a/b:v1", "r.example/a_b/c@sha256:" + "0" * 64, "r:1@sha256:" + "a" * 64):
        assert schema.is_valid({"image": {"name": name}, "improve": {"image": name}}), name
    for name in ("ROLLOUT_PUBLIC_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ACCESS_KEY_ID", "ROLLOUT_WEBHOOK_URL"):
        assert schema.is_valid({"settings": {name: "x"}}), name


def test_it_is_packed_whole_and_is_of_this_version(tmp_path: Path) -> None:
    about = yaml.safe_load((K8S / "Chart.yaml").read_text())
    assert (about["version"], about["appVersion"]) == (__version__, __version__)
    assert yaml.safe_load((K8S / "values.yaml").read_text())["image"]["name"] == f"rollout:{__version__}"
    assert run("package", str(K8S), "--destination", str(tmp_path)).returncode == 0
    packed = str(tmp_path / f"rollout-{__version__}.tgz")
    assert run("template", "x", packed).stdout == run("template", "x", str(K8S)).stdout
    notes = run("install", "rollout", packed, "--dry-run=client", "--namespace", "ml").stdout
    assert "kubectl -n ml create secret generic rollout" in notes
