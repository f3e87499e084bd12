"""Every PromQL expression under ``k8s/``, and which metrics and labels it names."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from rollout import metrics
from rollout.errors import HTTP_ERRORS
from tests.conftest import ROOT

K8S = ROOT / "k8s"
MONITORING = K8S / "components" / "monitoring"
RULES = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]
DASHBOARD = json.loads((MONITORING / "rollout.json").read_text())
ADAPTER = yaml.safe_load((MONITORING / "adapter-values.yaml").read_text())["rules"]["custom"]
# Whose `query` is PromQL.
KINDS = ("AnalysisTemplate", "ClusterAnalysisTemplate", "MetricTemplate", "ScaledObject")

# Problems of the server. An explanation that is not made says nothing of predictions.
FAULTS = {error.type for error in HTTP_ERRORS if error.status >= 500} - {"explain-unavailable", "explain-timeout"}

SCRAPE = {"namespace", "pod", "job", "instance", "service", "endpoint", "container"}
SCRAPE |= {"app_kubernetes_io_version", "rollouts_pod_template_hash"}
OTHERS = {
    "up": set[str](),
    "container_cpu_usage_seconds_total": {"container"},
    "container_memory_working_set_bytes": {"container"},
    "kube_horizontalpodautoscaler_status_desired_replicas": {"horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_spec_max_replicas": {"horizontalpodautoscaler"},
}

WORDS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
OPERATORS = {"and", "or", "unless", "bool", "offset"}
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
MATCHER = re.compile(rf'({NAME})\s*(=~|!~|!=|=)\s*"([^"]*)"')
PLACEHOLDERS = (
    (r"<<\.LabelMatchers>>", 'namespace="rollout",pod=~"a|b"'),
    (r"<<\.GroupBy>>", "pod"),
    (r"\$__rate_interval|{{ *interval *}}", "5m"),
    (r"{{ *(?:args\.)?([\w-]+) *}}", r"\1"),
)


class Selector(NamedTuple):
    """A metric in an expression.

    Attributes:
        name: Of the metric.
        matchers: Label, operator and value.
    """

    name: str
    matchers: list[tuple[str, str, str]]


@functools.cache
def own_metrics() -> dict[str, set[str]]:
    """Returns what the service exposes, and what the rules record: names with their labels."""
    found: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        if not isinstance(metric, MetricWrapperBase):
            continue
        name, labels = metric._name, set(metric._labelnames)
        if isinstance(metric, Counter):
            found[f"{name}_total"] = labels
        elif isinstance(metric, Histogram):
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        else:
            found[name] = labels
    for rule in rules("record"):
        level = rule["record"].partition(":")[0]
        found[rule["record"]] = found["rollout_errors_total"] if level == "rollout" else set(level.split("_"))
    return found


def rules(kind: str) -> list[dict[str, Any]]:
    """Returns the rules that ``record`` or ``alert``."""
    return [rule for group in RULES["groups"] for rule in group["rules"] if kind in rule]


@functools.cache
def expressions() -> dict[str, str]:
    """Returns every expression, by where it stands, with an example in the place of what is filled in."""
    found = {f"rules.yaml {rule.get('record') or rule.get('alert')}": rule["expr"] for rule in _all_rules()}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            found[f"rollout.json {panel['title']} {target['refId']}"] = target["expr"]
    for one in DASHBOARD["annotations"]["list"]:
        found[f"rollout.json {one['name']}"] = one["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert asked is not None
            found[f"rollout.json ${variable['name']}"] = f"count by ({asked[2]}) ({asked[1]})"
    for number, rule in enumerate(ADAPTER):
        for part in ("seriesQuery", "metricsQuery"):
            found[f"adapter-values.yaml {number} {part}"] = rule[part]
    for file in sorted(set(K8S.rglob("*.yaml")) - set(K8S.glob("templates/*"))):  # which are Helm's, and no YAML
        for number, (path, text) in enumerate(_queries(file)):
            found[f"{path} {number}"] = text
    return {where: _fill(text) for where, text in found.items()}


def selectors(text: str) -> Iterator[Selector]:
    """Yields the metrics that an expression names, those in ``__name__`` too."""
    for inside in re.findall(rf"(?:{NAME})?\{{[^}}]*\}}", text):
        name, _, body = inside.partition("{")
        matchers = MATCHER.findall(body)
        names = [value for label, _, value in matchers if label == "__name__"] or [name]
        for one in names[0].split("|"):
            yield Selector(one, [matcher for matcher in matchers if matcher[0] != "__name__"])
    for name in re.findall(rf"(?<![\w.:]){NAME}(?![\w:])(?!\s*\()", _bare(text)):
        if name not in WORDS | OPERATORS:
            yield Selector(name, [])


def groupings(text: str) -> set[str]:
    """Returns the labels that an expression groups and joins by."""
    lists = re.findall(rf"\b(?:{'|'.join(WORDS)})\s*\(([^)]*)\)", text)
    return {label.strip() for labels in lists for label in labels.split(",") if label.strip()}


def _all_rules() -> list[dict[str, Any]]:
    return rules("record") + rules("alert")


def _queries(file: Path) -> Iterator[tuple[str, str]]:
    for document in yaml.safe_load_all(file.read_text()):
        if isinstance(document, dict) and document.get("kind") in KINDS:
            for text in _under(document, "query"):
                yield str(file.relative_to(K8S)), text


def _under(node: Any, key: str) -> Iterator[str]:
    """Yields the strings under a key, however deep."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        if name == key and isinstance(child, str):
            yield child
        yield from _under(child, key)


def _fill(text: str) -> str:
    for pattern, example in PLACEHOLDERS:
        text = re.sub(pattern, example, text)
    return text


def _bare(text: str) -> str:
    """Takes away selectors, strings, ranges and groupings, so that other metrics and functions are left."""
    text = re.sub(rf"(?:{NAME})?\{{[^}}]*\}}", " ", text)
    text = re.sub(r'"[^"]*"|\[[^\]]*\]|offset \w+', " ", text)
    return re.sub(rf"\b(?:{'|'.join(WORDS)})\s*\([^)]*\)", " ", text)
