"""What Argo Rollouts and Flagger ask about a new image, asked of Prometheus' own test bench. No data never promotes."""

from __future__ import annotations

import math
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from rollout.http.gates import OPEN_ON
from rollout.http.gates import PATH as GATES
from rollout.http.known import PATH
from rollout.judge.verdict import Decision
from tests.conftest import ROOT, need
from tests.k8s import promql
from tests.k8s.rendering import of_kind, render, selects

OVERLAYS = ROOT / "k8s" / "overlays"
ANALYSIS = yaml.safe_load((OVERLAYS / "argo-rollouts" / "analysis.yaml").read_text())["spec"]
METRICS = {metric["name"]: metric for metric in ANALYSIS["metrics"]}
TEMPLATES = {
    template["metadata"]["name"].removeprefix("rollout-"): template["spec"]["query"]
    for template in yaml.safe_load_all((OVERLAYS / "flagger" / "metrics.yaml").read_text())
}
CANARY = yaml.safe_load((OVERLAYS / "flagger" / "canary.yaml").read_text())["spec"]
ARGUMENTS = {"namespace": "rollout", "canary": "c1", "stable": "s1", "target": "rollout", "interval": "2m"}
# The first of these that selects the pods of a Deployment has another value in the copy that Flagger makes.
FLAGGER_LABELS = ("app", "name", "app.kubernetes.io/name")
PODS = {
    "canary": 'namespace="rollout", rollouts_pod_template_hash="c1", pod="rollout-6f7-x2x"',
    "stable": 'namespace="rollout", rollouts_pod_template_hash="s1", pod="rollout-primary-5d4-abc"',
}


class Load(NamedTuple):
    """What all pods of one kind answer from one scrape to the next, in 15 s."""

    answered: int = 0
    slow: int = 0
    failed: int = 0
    refused: int = 0

    def series(self, kind: str) -> list[dict[str, str]]:
        """Returns the metrics of ten minutes."""
        pods = PODS[kind]
        of = {
            f'rollout_request_seconds_count{{model="digits", {pods}}}': self.answered,
            f'rollout_request_seconds_bucket{{model="digits", le="0.02", {pods}}}': self.answered - self.slow,
            f'rollout_request_seconds_bucket{{model="digits", le="0.05", {pods}}}': self.answered,
            f'rollout_request_seconds_bucket{{model="digits", le="+Inf", {pods}}}': self.answered,
            f'rollout_errors_total{{model="digits", type="prediction-failed", {pods}}}': self.failed,
            f'rollout_errors_total{{model="digits", type="invalid-request", {pods}}}': self.refused,
        }
        return [{"series": name, "values": f"0+{step}x40"} for name, step in of.items()]


def query(tool: str, name: str) -> str:
    """Returns what a tool asks Prometheus."""
    text: str = METRICS[name]["provider"]["prometheus"]["query"] if tool == "argo-rollouts" else TEMPLATES[name]
    return re.sub(r"{{ ?(?:args\.)?(\w+) ?}}", lambda found: ARGUMENTS[found[1]], text)


def ask(tmp_path: Path, text: str, series: list[dict[str, str]], answer: float | None) -> None:
    """Checks the answer of Prometheus: a number, or none at all."""
    need("promtool", "prometheus")
    samples = [] if answer is None else [{"labels": "{}", "value": answer}]
    test = {"expr": text, "eval_time": "10m", "exp_samples": samples}
    file = tmp_path / "test.yaml"
    file.write_text(
        yaml.safe_dump({"tests": [{"interval": "15s", "input_series": series, "promql_expr_test": [test]}]})
    )
    run = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def outcome(name: str, result: Any) -> str:
    """Returns what Argo Rollouts makes of the result of a metric."""
    facts = {"result": result, "len": len}

    def holds(condition: str) -> bool:
        python = METRICS[name][condition].replace("&&", "and").replace("||", "or")
        return bool(eval(python, {"__builtins__": {}}, facts))  # noqa: S307  our own manifest

    success, failure = holds("successCondition"), holds("failureCondition")
    assert not (success and failure)
    return "good" if success else "bad" if failure else "inconclusive"


STABLE = Load(answered=1000, slow=0)
both = pytest.mark.parametrize("tool", ["argo-rollouts", "flagger"])


@both
@pytest.mark.parametrize(
    ("canary", "faults"),
    [
        (Load(answered=50), 0),
        (Load(answered=50, refused=50), 0),
        (Load(answered=95, failed=5), 0.05),
        (Load(failed=50), 1),
    ],
    ids=["well", "only what callers got wrong", "one in twenty fails", "all fail"],
)
def test_faults_are_those_of_the_server_beyond_the_stable_pods(
    tmp_path: Path, tool: str, canary: Load, faults: float
) -> None:
    series = canary.series("canary") + STABLE.series("stable")
    ask(tmp_path, query(tool, "faults"), series, faults)


@both
def test_what_fails_in_the_stable_pods_as_well_is_not_the_image(tmp_path: Path, tool: str) -> None:
    series = Load(answered=90, failed=10).series("canary") + Load(answered=900, failed=100).series("stable")
    ask(tmp_path, query(tool, "faults"), series, 0)


@both
def test_a_pod_without_a_fault_so_far_has_no_counter_of_them(tmp_path: Path, tool: str) -> None:
    series = Load(answered=50).series("canary") + STABLE.series("stable")
    ask(tmp_path, query(tool, "faults"), [one for one in series if "errors" not in one["series"]], 0)


@both
@pytest.mark.parametrize("name", ["faults", "latency"])
@pytest.mark.parametrize("canary", [None, Load(), Load(answered=1)], ids=["no pods", "no traffic", "too little"])
def test_without_data_there_is_no_answer(tmp_path: Path, tool: str, name: str, canary: Load | None) -> None:
    series = (canary.series("canary") if canary else []) + STABLE.series("stable")
    ask(tmp_path, query(tool, name), series, None)


@both
def test_the_latency_of_the_canary_is_that_of_the_stable_pods_times_something(tmp_path: Path, tool: str) -> None:
    # 95 % of 50 requests: 40 below 20 ms, the others between 20 and 50 ms.
    series = Load(answered=50, slow=10).series("canary") + STABLE.series("stable")
    ask(tmp_path, query(tool, "latency"), series, 0.0425 / 0.019)


def test_flagger_counts_the_breakers_of_the_canary_alone(tmp_path: Path) -> None:
    series = [
        {"series": f'rollout_breaker_open{{model="digits", {PODS[kind]}}}', "values": f"{workers}x40"}
        for kind, workers in (("canary", 1), ("stable", 2))
    ]
    ask(tmp_path, query("flagger", "breaker"), series, 1)
    ask(tmp_path, query("flagger", "breaker"), series[1:], None)


def test_flagger_goes_by_the_verdict_whichever_pod_says_it(tmp_path: Path) -> None:
    series = [
        {
            "series": f'rollout_verdict{{model="digits", verdict="{verdict}", {PODS[kind]}}}',
            "values": f"{value}x40",
        }
        for kind, verdict, value in (("canary", "rollback", 0), ("stable", "rollback", 1), ("stable", "hold", 1))
    ]
    ask(tmp_path, query("flagger", "rollback"), series, 1)
    ask(tmp_path, query("flagger", "rollback"), [series[0], series[2]], 0)
    ask(tmp_path, query("flagger", "rollback"), series[2:], None)


@pytest.mark.parametrize("name", ["faults", "latency"])
def test_argo_goes_on_with_data_only(name: str) -> None:
    assert outcome(name, []) == outcome(name, [math.nan]) == "inconclusive"
    assert outcome(name, [0.0]) == "good"
    assert outcome(name, [math.inf]) == "bad"


def test_argo_goes_on_with_every_verdict_but_a_rollback() -> None:
    verdicts = Decision.__args__  # type: ignore[attr-defined]
    assert {verdict: outcome("verdict", verdict) for verdict in verdicts} == {
        "promote": "good",
        "hold": "good",
        "rollback": "bad",
    }
    assert outcome("verdict", "") == "inconclusive"


def test_most_of_what_argo_measures_must_be_good() -> None:
    for metric in METRICS.values():
        assert metric.get("failureLimit", 0) < metric["count"] / 2
        assert metric.get("inconclusiveLimit", 0) < metric["count"] / 2


def test_both_ask_with_the_same_thresholds() -> None:
    for metric in CANARY["analysis"]["metrics"]:
        if metric["name"] in METRICS:
            limit = metric["thresholdRange"]["max"]
            assert outcome(metric["name"], [limit]) == "good"
            assert outcome(metric["name"], [limit + 0.001]) == "bad"


@both
def test_faults_are_all_problems_of_the_server(tool: str) -> None:
    found = re.findall(r'type=~"\|?([a-z|-]+)"', query(tool, "faults"))
    assert len(found) == 4
    assert all(set(one.split("|")) == promql.FAULTS for one in found)


def test_argo_changes_the_weights_of_every_rule() -> None:
    (route,) = of_kind(render("argo-rollouts"), "HTTPRoute")
    (rollout,) = of_kind(render("argo-rollouts"), "Rollout")
    canary = rollout["spec"]["strategy"]["canary"]
    for rule in route["spec"]["rules"]:
        assert [(one["name"], one["weight"]) for one in rule["backendRefs"]] == [
            (canary["stableService"], 100),
            (canary["canaryService"], 0),
        ]


def test_flagger_has_the_route_of_production() -> None:
    (route,) = of_kind(render("production"), "HTTPRoute")
    service = CANARY["service"]
    assert service["hosts"] == route["spec"]["hostnames"]
    assert service["gatewayRefs"] == route["spec"]["parentRefs"]
    paths = {match["path"]["value"] for rule in route["spec"]["rules"] for match in rule["matches"]}
    assert {value for match in service["match"] for value in match["uri"].values()} == paths
    assert not of_kind(render("flagger"), "HTTPRoute")


def test_the_canary_of_flagger_is_the_service_of_production() -> None:
    (service,) = (one for one in of_kind(render("production"), "Service") if one["metadata"]["name"] == "rollout")
    (port,) = service["spec"]["ports"]
    written = CANARY["service"]
    assert (written["portName"], written["port"], written["targetPort"], written["appProtocol"]) == (
        port["name"],
        port["port"],
        port["targetPort"],
        port["appProtocol"],
    )
    assert [one["metadata"]["name"] for one in of_kind(render("flagger"), "Service")] == ["rollout-metrics"]


def test_what_flagger_copies_is_still_seen_by_everything_that_selects_pods() -> None:
    resources = render("flagger")
    (deployment,) = of_kind(resources, "Deployment")
    label = next(name for name in FLAGGER_LABELS if name in deployment["spec"]["selector"]["matchLabels"])
    copied = deployment["spec"]["template"]["metadata"]["labels"] | {label: "rollout-primary"}
    for one in of_kind(resources, "PodDisruptionBudget"):
        assert selects(one["spec"]["selector"], copied)
    for one in of_kind(resources, "NetworkPolicy"):
        assert selects(one["spec"]["podSelector"], copied)
    for spread in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]:
        assert selects(spread["labelSelector"], copied)
    assert not selects(deployment["spec"]["selector"], copied)


def test_argo_lets_its_controller_ask_for_the_verdict() -> None:
    url = METRICS["verdict"]["provider"]["web"]["url"]
    assert url == "http://rollout-canary.{{args.namespace}}.svc/v1/models/{{args.model}}/verdict"
    assert url.endswith(f"{PATH}/verdict".replace("{model}", "{{args.model}}"))
    assert "rollout-verdict" in {
        one["metadata"]["name"] for one in of_kind(render("argo-rollouts"), "NetworkPolicy")
    }


def test_flagger_asks_gates_that_exist_and_may_reach_them() -> None:
    asked = {hook["type"]: hook["url"] for hook in CANARY["analysis"]["webhooks"]}
    service = "http://rollout-canary.rollout.svc"
    assert asked == {
        "rollback": f"{service}{GATES.replace('{model}', 'digits')}/rollback",
        "confirm-promotion": f"{service}{GATES.replace('{model}', 'digits')}/go-on",
    }
    assert OPEN_ON["rollback"] == ("rollback",)
    assert set(OPEN_ON["go-on"]) == set(Decision.__args__) - {"rollback"}  # type: ignore[attr-defined]
    assert "rollout-gates" in {one["metadata"]["name"] for one in of_kind(render("flagger"), "NetworkPolicy")}


@both
def test_no_gateway_leads_to_the_gates(tool: str) -> None:
    (route,) = of_kind(render("production"), "HTTPRoute")
    served = [match["path"]["value"] for rule in route["spec"]["rules"] for match in rule["matches"]]
    if tool == "flagger":
        served = [value for match in CANARY["service"]["match"] for value in match["uri"].values()]
    assert served
    assert not any(GATES.startswith(path) for path in served)
