"""The rules, their runbook and the dashboard: every alert fires when it should, and each name in them exists."""

from __future__ import annotations

import math
import re
import shlex
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from rollout.cli import cli
from rollout.judge import sample_ratio, verdict
from tests.conftest import ROOT, need
from tests.k8s import promql

ALERTS = {rule["alert"]: rule for rule in promql.rules("alert")}
CASES = sorted((Path(__file__).parent / "alerts").glob("*.yaml"))
RUNBOOK = (promql.MONITORING / "RUNBOOK.md").read_text()
FIRING = re.compile(r'(\w+)="([^"]*)"')
# A case is called "ALERT fires: …" or "ALERT is quiet: …".
OUTCOMES = ("fires", "is quiet")


def promtool(*line: str | Path) -> None:
    """Runs promtool, which must be content."""
    need("promtool", "prometheus")
    run = subprocess.run(["promtool", *line], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def write(file: Path, rules: Any) -> Path:
    """Writes what promtool takes; in the cluster the operator takes it out of the PrometheusRule."""
    file.write_text(yaml.safe_dump(rules, sort_keys=False))
    return file


def rendered(overlay: str) -> list[dict[str, Any]]:
    """Returns what an overlay applies."""
    need("kubectl")
    run = subprocess.run(
        ["kubectl", "kustomize", ROOT / "k8s" / "overlays" / overlay], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return list(yaml.safe_load_all(run.stdout))


def cases(alert: str, outcome: str) -> list[list[dict[str, str]]]:
    """Returns, for each case about an alert, the labels of whatever fires at some time in it."""
    found = []
    for file in CASES:
        for case in yaml.safe_load(file.read_text())["tests"]:
            if case["name"].startswith(f"{alert} {outcome}: "):
                samples = [
                    dict(FIRING.findall(sample["labels"]))
                    for test in case["promql_expr_test"]
                    for sample in test.get("exp_samples", ())
                ]
                found.append(samples)
    return found


def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    promtool("check", "rules", "--lint-fatal", write(tmp_path / "rules.yaml", promql.RULES))


@pytest.mark.parametrize("file", CASES, ids=lambda file: str(file.stem))
def test_alerts_fire_when_they_should_and_only_then(file: Path, tmp_path: Path) -> None:
    write(tmp_path / "rules.yaml", promql.RULES)
    promtool("test", "rules", shutil.copy(file, tmp_path))


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_case_in_which_it_fires_and_a_harmless_one(alert: str) -> None:
    fires, quiet = (cases(alert, outcome) for outcome in OUTCOMES)
    assert fires
    assert all(alert in [labels.get("alertname") for labels in samples] for samples in fires)
    assert quiet


def test_every_case_is_about_an_alert() -> None:
    names = [case["name"] for file in CASES for case in yaml.safe_load(file.read_text())["tests"]]
    assert {
        name for name in names if not re.match(rf"({'|'.join(ALERTS)}) ({'|'.join(OUTCOMES)}): ", name)
    } == set()


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_what_to_do_first(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    notes = rule["annotations"]
    assert {"summary", "description", "runbook_url"} == set(notes)
    assert len(notes["summary"]) < 150
    assert notes["runbook_url"] == f"https://rollout.example/runbook#{alert.lower()}"
    used = set(re.findall(r"\$labels\.(\w+)", notes["summary"] + notes["description"]))
    for samples in cases(alert, "fires"):
        for labels in samples:
            if labels["alertname"] == alert:
                assert used <= set(labels), "a label that this alert does not have is shown as nothing"


def test_the_runbook_has_a_heading_for_each_alert() -> None:
    assert re.findall(r"^## (.*)$", RUNBOOK, re.MULTILINE) == list(ALERTS)
    links = set(re.findall(r"\]\(#([^)]*)\)", RUNBOOK))
    assert links <= {alert.lower() for alert in ALERTS}
    for section in RUNBOOK.split("\n## ")[1:]:
        assert all(f"**{part}:**" in section for part in ("Means", "Look", "Do")), section.partition("\n")[0]


def commands() -> list[str]:
    """Returns the lines of ``rollout`` in the runbook and in what the alerts say, with an example for each gap."""
    said = RUNBOOK + "\n".join(rule["annotations"]["description"] for rule in ALERTS.values())
    said = re.sub(r"{{ \$labels\.model }}", "digits", said)
    lines = re.findall(r"`(rollout [a-z][^`]*)`", said) + re.findall(r"^(rollout .*)$", said, re.MULTILINE)
    return sorted({*lines, *re.findall(r"-- (rollout .*)$", said, re.MULTILINE)})


@pytest.mark.parametrize("line", commands())
def test_every_command_that_is_recommended_exists(line: str) -> None:
    _, *words = shlex.split(line)
    group: click.Command = cli
    context = click.Context(cli, info_name="rollout")
    while isinstance(group, click.Group):
        _, command, words = group.resolve_command(context, words)
        assert command is not None
        group = command
        if not isinstance(group, click.Group):
            group.make_context("rollout", words, parent=context)


def test_there_is_a_command_in_most_of_what_is_recommended() -> None:
    assert len(commands()) > 10


def test_every_expression_is_promql(tmp_path: Path) -> None:
    found = promql.expressions()
    for source in ("rules.yaml", "rollout.json", "adapter", "argo-rollouts", "flagger", "keda"):
        assert [where for where in found if source in where], source
    rules = [{"record": "expression", "expr": text, "labels": {"at": where}} for where, text in found.items()]
    promtool("check", "rules", write(tmp_path / "all.yaml", {"groups": [{"name": "all", "rules": rules}]}))


@pytest.mark.parametrize("where", promql.expressions())
def test_every_metric_and_label_in_an_expression_exists(where: str) -> None:
    text = promql.expressions()[where]
    known = promql.own_metrics() | promql.OTHERS
    found = list(promql.selectors(text))
    assert found
    for name, matchers in found:
        assert name in known, text
        for label, operator, value in matchers:
            absent = {"=~": value.startswith("|"), "=": value == ""}
            assert label in known[name] | promql.SCRAPE or absent.get(operator, False), f"{name} has no {label}"
    labels = set.union(*(known[name] for name, _ in found))
    assert promql.groupings(text) <= labels | promql.SCRAPE, text


def test_names_are_found_in_expressions() -> None:
    text = (
        'sum by (a) (rate(m_total{x="1",y=~"b{2}|c"}[5m] offset 1m)) / on (p, q) group_left (r) n > 1e-6 '
        'unless {__name__=~"k|l", z!=""} and label_replace(o, "s", "t", "", "")'
    )
    text = text.replace("b{2}", "b")
    assert [name for name, _ in promql.selectors(text)] == ["m_total", "k", "l", "n", "o"]
    assert next(promql.selectors(text)).matchers == [("x", "=", "1"), ("y", "=~", "b|c")]
    assert promql.groupings(text) == {"a", "p", "q", "r"}


def test_the_budget_counts_what_is_the_servers_fault() -> None:
    (recorded,) = [rule["expr"] for rule in promql.rules("record") if rule["record"] == "rollout:faults_total"]
    ((_, matchers),) = promql.selectors(recorded)
    assert set(matchers[0][2].split("|")) == promql.FAULTS


def test_alerts_judge_as_the_verdict_does() -> None:
    recorded = {rule["record"]: rule["expr"] for rule in promql.rules("record")}
    mismatch = ALERTS["RolloutSampleRatioMismatch"]["expr"]
    worth = recorded["namespace_model_revision:rollout_trial_clients_worth:max"]
    assert f"{sample_ratio.COUNTING_ERROR} ^ 2" in worth
    assert [int(prior) for prior in re.findall(r"worth:max \+ (\d+)", mismatch)] == list(sample_ratio.PRIORS)
    assert f">= {sample_ratio.REFUSED:g} " in mismatch


@pytest.mark.parametrize(
    "counts", [(5_000, 5_800), (48_000, 50_000), (700, 800), (100, 130), (980_000, 1_030_000)]
)
def test_the_alerts_e_value_is_the_verdicts(counts: tuple[int, int]) -> None:
    """What ``RolloutSampleRatioMismatch`` computes, without beta functions."""
    worth = sum(sample_ratio.as_counted(counts))
    away = ((counts[0] - counts[1]) / sum(counts) * worth) ** 2 / 2
    found = (
        sum(math.exp(away / (worth + prior)) / math.sqrt(1 + worth / prior) for prior in sample_ratio.PRIORS) / 2
    )
    exact = sample_ratio.e_value(sample_ratio.as_counted(counts), (1, 1))
    assert math.log(found) == pytest.approx(math.log(exact), abs=0.1)
    assert f">= {verdict.EXPECTED} " in ALERTS["RolloutSilentArm"]["expr"]


def test_limits_in_alerts_are_those_that_the_pods_get() -> None:
    settings = dict(
        line.split("=", 1)
        for line in (ROOT / "k8s" / "base" / "settings.env").read_text().splitlines()
        if not line.startswith("#")
    )
    assert f'le="{int(settings["ROLLOUT_TIMEOUT_MS"]) / 2000}"' in ALERTS["RolloutSlow"]["expr"]
    assert ALERTS["RolloutSpoolNearlyFull"]["expr"].endswith(f"> 0.8 * {settings['ROLLOUT_SPOOL_BYTES']}")


@pytest.mark.parametrize("overlay", ["production", "argo-rollouts", "flagger"])
def test_each_pod_is_scraped_once(overlay: str) -> None:
    things = rendered(overlay)
    (monitor,) = [thing for thing in things if thing["kind"] == "ServiceMonitor"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    services = [
        thing for thing in things if thing["kind"] == "Service" and wanted <= thing["metadata"]["labels"].items()
    ]
    assert len(services) == 1, "each of several would scrape the same pods again"
    (service,) = services
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "rollout"
    (endpoint,) = monitor["spec"]["endpoints"]
    (port,) = service["spec"]["ports"]
    assert endpoint["port"] == port["name"]
    pods = [thing["spec"]["template"] for thing in things if thing.get("spec", {}).get("template")]
    selected = [pod for pod in pods if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()]
    (pod,) = selected
    assert monitor["spec"]["podTargetLabels"][0] in pod["metadata"]["labels"]
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", ())]
    assert [one["containerPort"] for one in ports if one["name"] == port["targetPort"]] == [port["port"]]


def test_the_dashboard_is_found_and_its_panels_do_not_overlap() -> None:
    (config,) = [thing for thing in rendered("production") if thing["metadata"]["name"] == "rollout-dashboard"]
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config["data"]["rollout.json"] == (promql.MONITORING / "rollout.json").read_text()
    panels = promql.DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


def test_the_autoscaler_asks_for_what_the_adapter_gives() -> None:
    (autoscaler,) = [thing for thing in rendered("production") if thing["kind"] == "HorizontalPodAutoscaler"]
    asked = [one["pods"]["metric"]["name"] for one in autoscaler["spec"]["metrics"] if one["type"] == "Pods"]
    assert asked == [rule["name"]["as"] for rule in promql.ADAPTER]


def test_an_idle_pod_has_waited_for_no_time(tmp_path: Path) -> None:
    (text,) = [text for where, text in promql.expressions().items() if "metricsQuery" in where]
    series = [
        {"series": f'rollout_queue_seconds_{part}{{namespace="rollout",pod="{pod}"}}', "values": values}
        for pod, part, values in (
            ("a", "sum", "0+3x20"),
            ("a", "count", "0+60x20"),
            ("b", "sum", "9x20"),
            ("b", "count", "9x20"),
        )
    ]
    samples = [{"labels": '{pod="a"}', "value": 0.05}, {"labels": '{pod="b"}', "value": 0}]
    asked = [{"expr": text, "eval_time": "10m", "exp_samples": samples}]
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": asked}]
    promtool("test", "rules", write(tmp_path / "adapter.yaml", {"tests": tests}))
