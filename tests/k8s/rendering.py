"""What ``kubectl kustomize`` makes of the manifests, and how to look through it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import BIN, ROOT, need

K8S = ROOT / "k8s"
OVERLAYS = sorted(folder.parent.name for folder in K8S.glob("overlays/*/kustomization.yaml"))
COMPONENTS = sorted(folder.parent.name for folder in K8S.glob("components/*/kustomization.yaml"))
# Every overlay as it is, and every component on its own upon the base.
ALL = [*OVERLAYS, *(f"base+{name}" for name in COMPONENTS)]
POD_OWNERS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "Rollout")

Resource = dict[str, Any]


@functools.cache
def kubectl() -> str:
    """Returns a kubectl whose kustomize knows components, which ``scripts/need`` installs where there is none."""
    need("kubectl")
    return str(BIN / "kubectl") if (BIN / "kubectl").exists() else str(shutil.which("kubectl"))


@functools.cache
def _text(name: str) -> str:
    with tempfile.TemporaryDirectory() as own:
        base, plus, component = name.partition("+")
        folder = K8S / "overlays" / name
        if plus:
            folder = Path(own)
            up = os.path.relpath(K8S, folder.resolve())
            made_of = {"resources": [f"{up}/{base}"], "components": [f"{up}/components/{component}"]}
            (folder / "kustomization.yaml").write_text(yaml.safe_dump({"namespace": "rollout", **made_of}))
        rendered = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, text=True, check=False)
        assert rendered.returncode == 0, rendered.stderr
        return rendered.stdout


def render(name: str) -> list[Resource]:
    """Renders an overlay, or with ``base+NAME`` the base with one component.

    Args:
        name: One of ``ALL``.
    """
    return [resource for resource in yaml.load_all(_text(name), yaml.CSafeLoader) if resource]


def of_kind(resources: list[Resource], *kinds: str) -> list[Resource]:
    """Returns the resources of some kinds."""
    return [resource for resource in resources if resource["kind"] in kinds]


def name_of(resource: Resource) -> str:
    """Returns ``Kind/name``."""
    return f"{resource['kind']}/{resource['metadata']['name']}"


def pod_owners(resources: list[Resource]) -> list[Resource]:
    """Returns the resources that make pods from a template of their own, a CronJob as the Job that it makes."""
    jobs = [one | {"spec": one["spec"]["jobTemplate"]["spec"]} for one in of_kind(resources, "CronJob")]
    return [*(one for one in of_kind(resources, *POD_OWNERS) if "template" in one["spec"]), *jobs]


def containers(owner: Resource) -> list[Resource]:
    """Returns all containers of an owner of pods, those that run first before the others."""
    pod = owner["spec"]["template"]["spec"]
    return [*pod.get("initContainers", ()), *pod["containers"]]


def strings(value: Any) -> Iterator[str]:
    """Yields every string within a resource, keys as well."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Says whether a label selector, of ``matchLabels`` and ``matchExpressions``, fits labels."""
    known = {"matchLabels", "matchExpressions"}
    assert set(selector) <= known, f"a selector with {set(selector) - known} is not understood"
    holds: dict[str, Callable[[str | None, list[str]], bool]] = {
        "In": lambda value, values: value in values,
        "NotIn": lambda value, values: value not in values,
        "Exists": lambda value, _: value is not None,
        "DoesNotExist": lambda value, _: value is None,
    }
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        holds[one["operator"]](labels.get(one["key"]), one.get("values", []))
        for one in selector.get("matchExpressions", ())
    )
