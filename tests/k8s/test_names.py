"""Every variable, port, path, command and metric that a manifest names exists in the code."""

from __future__ import annotations

import base64
import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
from prometheus_client.metrics import MetricWrapperBase
from starlette.routing import Match

from rollout import metrics
from rollout.cli import cli
from rollout.config import Settings, load_settings
from rollout.http.routes import GatedRoute
from service.service import Predictor, all_routes
from tests.k8s.rendering import ALL, K8S, Resource, containers, name_of, of_kind, pod_owners, render, strings

SUFFIXES = {
    "counter": ("_total", "_created"),
    "histogram": ("_bucket", "_sum", "_count", "_created"),
    "gauge": ("",),
}
MODEL = "digits"


def _files() -> Iterator[Path]:
    yield from (file for file in K8S.rglob("*") if file.suffix in {".yaml", ".env", ".json", ".mk", ".md"})


def _services(resources: list[Resource]) -> dict[str, list[dict[str, Any]]]:
    services = {one["metadata"]["name"]: one["spec"]["ports"] for one in of_kind(resources, "Service")}
    for canary in of_kind(resources, "Canary"):  # Flagger makes them
        port = {"name": "http", "port": canary["spec"]["service"]["port"]}
        name = canary["spec"]["targetRef"]["name"]
        services |= {f"{name}{suffix}": [port] for suffix in ("", "-primary", "-canary")}
    return services


def unknown_settings(text: str) -> set[str]:
    """Returns the variables of ours in a text that are no settings."""
    settings = {f"ROLLOUT_{name.upper()}" for name in Settings.__struct_fields__}
    return set(re.findall(r"\bROLLOUT_[A-Z_]+[A-Z]\b", text)) - settings


def test_every_variable_is_a_setting() -> None:
    for file in _files():
        assert not unknown_settings(file.read_text()), file
    assert unknown_settings("ROLLOUT_GRACE_SECONDS=10, ROLLOUT_GRACE_S=10") == {"ROLLOUT_GRACE_SECONDS"}


@pytest.mark.parametrize("name", ALL)
def test_the_service_takes_the_variables_that_it_gets(name: str) -> None:
    resources = render(name)
    data = {one["metadata"]["name"]: one["data"] for one in of_kind(resources, "ConfigMap")}
    for secret in of_kind(resources, "Secret"):
        values = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
        data[secret["metadata"]["name"]] = values
    for owner in pod_owners(resources):
        for container in containers(owner):
            environment: dict[str, str] = {}
            for source in container.get("envFrom", ()):
                environment |= data.get((source.get("configMapRef") or source["secretRef"])["name"], {})
            settings = load_settings(environment)
            if container["name"] == "rollout":
                assert settings.workers == Settings().workers, "workers follow from the CPU limit"
                assert [port["containerPort"] for port in container["ports"]] == [settings.port]
                assert not settings.listens_on_loopback
                assert str(settings.home) in {mount["mountPath"] for mount in container["volumeMounts"]}


def commands(script: str) -> Iterator[list[str]]:
    """Yields the words of each `rollout` command in a shell script."""
    words: list[str] | None = None
    for word in [*shlex.shlex(script, posix=True, punctuation_chars=True), ";"]:
        if word == "rollout" and words is None:
            words = []
        elif word in ("||", "&&", ";", "|", ">"):
            if words is not None:
                yield words
            words = None
        elif words is not None:
            words.append(word)


def parse(words: list[str]) -> None:
    """Raises if the command line does not take these words."""
    command: click.Command = cli
    context = click.Context(cli, info_name="rollout")
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0]) if words else None
        assert found is not None, f"there is no command rollout {' '.join(words)}"
        command, words = found, words[1:]
    command.make_context(command.name, list(words), parent=context)


@pytest.mark.parametrize("name", ALL)
def test_every_command_is_one_that_the_command_line_takes(name: str) -> None:
    for owner in pod_owners(render(name)):
        for container in containers(owner):
            line = [*container.get("command", ["rollout"]), *container.get("args", ())]
            if line[0] == "valkey-server":
                continue
            found = list(commands(line[2])) if line[:2] == ["sh", "-c"] else [line[1:]]
            assert found, name_of(owner)
            for words in found:
                parse(words)


def test_every_command_that_is_recommended_is_one_that_the_command_line_takes() -> None:
    recommended = [
        (file, text) for file in _files() for text in re.findall(r"`(rollout [a-z][^`…|]*)`", file.read_text())
    ]
    assert recommended
    for file, text in recommended:
        line = re.sub(r"{{.*?}}|\bSHARE\b", lambda match: "5%" if match[0] == "SHARE" else "NAME", text)
        words = shlex.split(line)[1:]
        try:
            parse(words)
        except click.MissingParameter:
            pass  # a command by its name only
        except (AssertionError, click.UsageError) as error:
            raise AssertionError(f"{file}: `{text}`: {error}") from error


def test_a_command_or_an_option_that_does_not_exist_is_seen() -> None:
    parse(["split", "ramp", MODEL, "5%", "--yes"])
    with pytest.raises(AssertionError):
        parse(["splits", "ramp", MODEL, "5%"])
    with pytest.raises(click.NoSuchOption):
        parse(["split", "ramp", MODEL, "5%", "--sure"])
    script = "rollout split show digits >x || rollout serve && [ $? -eq 2 ]"
    assert list(commands(script)) == [["split", "show", "digits"], ["serve"]]


@functools.cache
def _routes() -> list[GatedRoute]:
    return all_routes(Predictor.to_asgi())  # type: ignore[attr-defined]  # the decorator made it a Service


def is_answered(path: str, method: str = "GET") -> bool:
    """Says whether there is a route for a path."""
    scope = {"type": "http", "path": path, "method": method, "root_path": "", "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in _routes())


def is_prefix(path: str, method: str | None) -> bool:
    """Says whether routes begin with a path, and take a method."""
    return any(
        f"{route.path}/".startswith(f"{path}/") and (method is None or method in (route.methods or ()))
        for route in _routes()
    )


def test_paths_are_told_from_those_that_nobody_answers() -> None:
    assert is_answered("/livez")
    assert is_answered("/metrics")
    assert is_answered(f"/v1/models/{MODEL}/predict", "POST")
    assert not is_answered("/healthcheck")
    assert not is_answered(f"/v1/models/{MODEL}/verdicts")
    assert is_prefix("/v2", "POST")
    assert not is_prefix("/v3", None)


@pytest.mark.parametrize("name", ALL)
def test_every_path_is_answered(name: str) -> None:
    resources = render(name)
    for owner in pod_owners(resources):
        for container in (one for one in containers(owner) if one["name"] == "rollout"):
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert is_answered(container[kind]["httpGet"]["path"]), name_of(owner)
    for monitor in of_kind(resources, "ServiceMonitor"):
        for endpoint in monitor["spec"]["endpoints"]:
            assert is_answered(endpoint["path"]), name_of(monitor)
    for route in of_kind(resources, "HTTPRoute"):
        for match in (match for rule in route["spec"]["rules"] for match in rule["matches"]):
            path, method = match["path"], match.get("method")
            answered = is_prefix if path["type"] == "PathPrefix" else is_answered
            assert answered(path["value"], method or "GET" if path["type"] == "Exact" else method), name_of(route)
    for canary in of_kind(resources, "Canary"):
        for match in canary["spec"]["service"].get("match", ()):
            for how, path in match.get("uri", {}).items():
                assert (is_answered if how == "exact" else is_prefix)(path, "GET"), name_of(canary)


@pytest.mark.parametrize("name", ALL)
def test_every_address_of_ours_leads_to_a_service_and_a_path_that_is_answered(name: str) -> None:
    resources = render(name)
    services = _services(resources)
    for resource in resources:
        for text in strings(resource):
            for address in re.findall(r"https?://[^\s\"'`]+", text):
                host, _, rest = urlsplit(re.sub(r"{{.*?}}", MODEL, address)).netloc.partition(".")
                if host.partition("-")[0] != "rollout" or rest.startswith("example"):
                    continue
                assert host in services, f"{name_of(resource)}: {address}"
                parts = urlsplit(re.sub(r"{{.*?}}", MODEL, address))
                assert (parts.port or 80) in {port["port"] for port in services[host]}, (
                    f"{name_of(resource)}: {address}"
                )
                method = "POST" if resource["kind"] == "Canary" else "GET"  # its webhooks
                assert is_answered(parts.path, method), f"{name_of(resource)}: {address}"


@pytest.mark.parametrize("name", ALL)
def test_a_service_monitor_finds_a_port_of_a_service(name: str) -> None:
    resources = render(name)
    for monitor in of_kind(resources, "ServiceMonitor"):
        found = [
            service
            for service in of_kind(resources, "Service")
            if monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        ]
        assert len(found) == 1, "each pod is scraped once"
        ports = {port.get("name") for port in found[0]["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def exposed() -> set[str]:
    """Returns the names of all series that the service exposes."""
    return {
        family.name + suffix
        for metric in vars(metrics).values()
        if isinstance(metric, MetricWrapperBase)
        for family in metric.describe()
        for suffix in SUFFIXES[family.type]
    }


def unknown_metrics(text: str, defined: set[str]) -> set[str]:
    """Returns the names in a text that look like our metrics and are none."""
    found = set(re.findall(r"(?<![\w:/.-])rollout_[a-z_]+[a-z](?![\w:]|-)", text))
    return found - exposed() - defined


def test_every_metric_is_exposed_or_made_by_a_rule() -> None:
    texts = {file: file.read_text() for file in _files() if file.suffix != ".mk"}
    # What prometheus-adapter calls it; recording rules have a colon in their names.
    defined = set(re.findall(r"^\s*as: (rollout_\w+)$", "\n".join(texts.values()), re.MULTILINE))
    for file, text in texts.items():
        assert not unknown_metrics(text, defined), file
    assert unknown_metrics("rate(rollout_prediction_total[5m]) / rollout_predictions_total", set()) == {
        "rollout_prediction_total"
    }
