"""What an SRE would ask of every pod and of everything that refers to it, in every overlay and component."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rollout.cli.serve import DRAIN_S
from rollout.config import Settings
from tests.k8s.rendering import ALL, Resource, containers, name_of, of_kind, pod_owners, render, selects

LONG_RUNNING = ("Deployment", "StatefulSet", "DaemonSet", "Rollout")
VERSION = "app.kubernetes.io/version"
# What the review items of a stopping worker may take to become durable.
SLACK_S = 10


@pytest.fixture(params=ALL)
def resources(request: pytest.FixtureRequest) -> list[Resource]:
    """One overlay, or the base with one component, as it is applied."""
    return render(request.param)


def _labels(owner: Resource) -> dict[str, str]:
    labels: dict[str, str] = owner["spec"]["template"]["metadata"]["labels"]
    return labels


def _pods(resources: list[Resource]) -> Iterator[tuple[str, dict[str, Any]]]:
    for owner in pod_owners(resources):
        yield name_of(owner), owner["spec"]["template"]["spec"]


def _all_containers(resources: list[Resource]) -> Iterator[tuple[str, dict[str, Any]]]:
    for owner in pod_owners(resources):
        for container in containers(owner):
            yield f"{name_of(owner)}/{container['name']}", container


def test_every_pod_is_restricted(resources: list[Resource]) -> None:
    for name, pod in _pods(resources):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
    for name, container in _all_containers(resources):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name


def test_no_pod_has_a_token_or_the_addresses_of_services_in_its_environment(resources: list[Resource]) -> None:
    for name, pod in _pods(resources):
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
    for account in of_kind(resources, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_state_is_in_redis_only(resources: list[Resource]) -> None:
    for name, pod in _pods(resources):
        for volume in pod.get("volumes", ()):
            kinds = set(volume) - {"name"}
            assert kinds <= {"emptyDir", "secret", "configMap"}, f"{name}: {volume}"
            # Going over the limit kills the pod: what pushed bundles fill has none.
            assert "emptyDir" not in volume or ("sizeLimit" in volume["emptyDir"]) == (volume["name"] != "home")
    claims = {name_of(owner) for owner in pod_owners(resources) if owner["spec"].get("volumeClaimTemplates")}
    assert claims <= {"StatefulSet/valkey"}
    assert not of_kind(resources, "PersistentVolumeClaim", "PersistentVolume")


def test_every_mount_has_its_volume(resources: list[Resource]) -> None:
    for owner in pod_owners(resources):
        volumes = {volume["name"] for volume in owner["spec"]["template"]["spec"].get("volumes", ())}
        volumes |= {claim["metadata"]["name"] for claim in owner["spec"].get("volumeClaimTemplates", ())}
        mounts = {mount["name"] for container in containers(owner) for mount in container.get("volumeMounts", ())}
        assert mounts == volumes, name_of(owner)


def test_every_container_says_what_it_takes(resources: list[Resource]) -> None:
    for name, container in _all_containers(resources):
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][kind]), name
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert limits["memory"] == requests["memory"] or "valkey" in name, (
            f"{name} may be killed for what it may take"
        )


def test_every_image_has_a_tag_that_stays(resources: list[Resource]) -> None:
    for name, container in _all_containers(resources):
        _, _, tag = container["image"].rpartition("/")[2].partition(":")
        assert tag not in ("", "latest"), f"{name}: {container['image']}"


def test_what_serves_is_probed_and_alive_is_less_than_ready(resources: list[Resource]) -> None:
    for owner in of_kind(pod_owners(resources), *LONG_RUNNING):
        for container in owner["spec"]["template"]["spec"]["containers"]:
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container), name_of(owner)
            assert container["livenessProbe"] != container["readinessProbe"], name_of(owner)
            if container["name"] == "rollout":
                paths = [
                    container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")
                ]
                assert paths == ["/readyz", "/livez", "/readyz"]


def test_a_pod_has_the_time_to_stop_that_the_service_takes(resources: list[Resource]) -> None:
    (rollout,) = [
        owner for owner in pod_owners(resources) if name_of(owner) in ("Deployment/rollout", "Rollout/rollout")
    ]
    pod = rollout["spec"]["template"]["spec"]
    (container,) = [one for one in pod["containers"] if one["name"] == "rollout"]
    (settings,) = _settings(resources)
    takes = (
        container["lifecycle"]["preStop"]["sleep"]["seconds"]
        + float(settings["ROLLOUT_GRACE_S"])
        + DRAIN_S
        + SLACK_S
    )
    assert pod["terminationGracePeriodSeconds"] >= takes
    # It goes on serving for longer than a probe takes to find out that it is not ready any more.
    probe = container["readinessProbe"]
    assert float(settings["ROLLOUT_GRACE_S"]) > probe["periodSeconds"] * probe["failureThreshold"]
    scaling = [resource["spec"]["behavior"] for resource in of_kind(resources, "HorizontalPodAutoscaler")]
    scaling += [
        resource["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        for resource in of_kind(resources, "ScaledObject")
    ]
    for behavior in scaling:
        for policy in behavior["scaleDown"]["policies"]:
            assert policy["periodSeconds"] >= pod["terminationGracePeriodSeconds"]


def _settings(resources: list[Resource]) -> list[dict[str, str]]:
    return [
        resource["data"] for resource in of_kind(resources, "ConfigMap") if "ROLLOUT_PORT" in resource["data"]
    ]


def test_the_spool_and_the_bundles_fit_the_volume(resources: list[Resource]) -> None:
    (settings,) = _settings(resources)
    assert int(settings["ROLLOUT_SPOOL_BYTES"]) == Settings().spool_bytes
    for owner in of_kind(pod_owners(resources), "Deployment", "Rollout"):
        (container,) = [one for one in containers(owner) if one["name"] == "rollout"]
        gibibytes = int(container["resources"]["requests"]["ephemeral-storage"].removesuffix("Gi"))
        assert gibibytes * 2**30 >= 4 * int(settings["ROLLOUT_SPOOL_BYTES"])


def test_every_selector_finds_pods_and_none_holds_on_to_a_version(resources: list[Resource]) -> None:
    owners = pod_owners(resources)
    for owner in owners:
        if selector := owner["spec"].get("selector"):
            assert selects(selector, _labels(owner)), name_of(owner)
            assert VERSION not in str(selector), name_of(owner)
        for spread in owner["spec"]["template"]["spec"].get("topologySpreadConstraints", ()):
            assert selects(spread["labelSelector"], _labels(owner)), name_of(owner)
    selectors = [
        (service, {"matchLabels": service["spec"]["selector"]}) for service in of_kind(resources, "Service")
    ]
    selectors += [(budget, budget["spec"]["selector"]) for budget in of_kind(resources, "PodDisruptionBudget")]
    selectors += [(policy, policy["spec"]["podSelector"]) for policy in of_kind(resources, "NetworkPolicy")]
    for resource, selector in selectors:
        assert any(selects(selector, _labels(owner)) for owner in owners), name_of(resource)
        assert VERSION not in str(selector), name_of(resource)


def test_a_service_reaches_ports_that_its_pods_have(resources: list[Resource]) -> None:
    for service in of_kind(resources, "Service"):
        behind = [
            owner
            for owner in pod_owners(resources)
            if selects({"matchLabels": service["spec"]["selector"]}, _labels(owner))
        ]
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            for owner in behind:
                assert target in _ports(owner), f"{name_of(service)} asks for {target} of {name_of(owner)}"


def _ports(owner: Resource) -> set[Any]:
    ports = [port for container in containers(owner) for port in container.get("ports", ())]
    return {port["name"] for port in ports} | {port["containerPort"] for port in ports}


def test_probes_and_network_policies_name_ports_that_pods_have(resources: list[Resource]) -> None:
    for owner in pod_owners(resources):
        for container in containers(owner):
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                how = container.get(kind, {})
                port = (how.get("httpGet") or how.get("tcpSocket") or {}).get("port")
                assert port is None or port in _ports(owner), name_of(owner)
    for policy in of_kind(resources, "NetworkPolicy"):
        held = [
            owner for owner in pod_owners(resources) if selects(policy["spec"]["podSelector"], _labels(owner))
        ]
        asked = {port["port"] for rule in policy["spec"].get("ingress", ()) for port in rule["ports"]}
        assert asked <= set().union(*map(_ports, held)), name_of(policy)


def test_all_traffic_that_is_not_named_is_refused(resources: list[Resource]) -> None:
    policies = of_kind(resources, "NetworkPolicy")
    for owner in pod_owners(resources):
        held = [policy for policy in policies if selects(policy["spec"]["podSelector"], _labels(owner))]
        kinds = {kind for policy in held for kind in policy["spec"]["policyTypes"]}
        assert kinds == {"Ingress", "Egress"}, f"{name_of(owner)} is not held by a NetworkPolicy"
    for policy in policies:
        for rule in policy["spec"].get("ingress", ()):
            assert rule["from"], f"{name_of(policy)} lets everybody in"
            assert rule["ports"], f"{name_of(policy)} opens every port"
        out = {port["port"] for rule in policy["spec"].get("egress", ()) for port in rule["ports"]}
        assert out <= {53, 6379, 443}, name_of(policy)


def test_only_bundles_from_object_storage_take_a_way_to_the_outside(resources: list[Resource]) -> None:
    (policy,) = [one for one in of_kind(resources, "NetworkPolicy") if one["metadata"]["name"] == "rollout"]
    out = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
    from_storage = any(
        "$(MODELS_URL)" in container.get("args", ()) for _, container in _all_containers(resources)
    )
    assert (443 in out) is from_storage


def test_what_scales_exists_and_is_scaled_once(resources: list[Resource]) -> None:
    there = {(one["apiVersion"], one["kind"], one["metadata"]["name"]) for one in resources}
    targets = [
        (target["apiVersion"], target["kind"], target["name"])
        for scaler in of_kind(resources, "HorizontalPodAutoscaler", "ScaledObject")
        for target in [scaler["spec"]["scaleTargetRef"]]
    ]
    assert len(targets) == 1
    assert set(targets) <= there
    # Both would write the number of replicas: the autoscaler, and each `kubectl apply`.
    (scaled,) = [one for one in resources if (one["apiVersion"], one["kind"], one["metadata"]["name"]) in targets]
    assert "replicas" not in scaled["spec"]


def test_a_route_leads_to_services_that_exist(resources: list[Resource]) -> None:
    ports = {
        (service["metadata"]["name"], port["port"])
        for service in of_kind(resources, "Service")
        for port in service["spec"]["ports"]
    }
    for route in of_kind(resources, "HTTPRoute"):
        (settings,) = _settings(resources)
        ways = [[(one["name"], one["port"]) for one in rule["backendRefs"]] for rule in route["spec"]["rules"]]
        assert {end for way in ways for end in way} <= ports
        # A canary that got its share of some calls only would be judged by those.
        assert all(way == ways[0] for way in ways)
        for rule in route["spec"]["rules"]:
            seconds = _seconds(rule["timeouts"]["request"])
            assert seconds == 0 or seconds * 1000 >= 2 * int(settings["ROLLOUT_TIMEOUT_MS"])


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


def test_configuration_that_is_referred_to_is_there_or_is_a_secret_that_its_reader_makes(
    resources: list[Resource],
) -> None:
    maps = {one["metadata"]["name"] for one in of_kind(resources, "ConfigMap")}
    secrets = {one["metadata"]["name"] for one in of_kind(resources, "Secret")} or {"rollout", "models", "valkey"}
    for name, container in _all_containers(resources):
        for source in container.get("envFrom", ()):
            known, reference = (maps, "configMapRef") if "configMapRef" in source else (secrets, "secretRef")
            assert source[reference]["name"] in known, name
        for variable in container.get("env", ()):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                assert reference["name"] in secrets, name


def test_service_accounts_that_pods_run_as_exist(resources: list[Resource]) -> None:
    accounts = {one["metadata"]["name"] for one in of_kind(resources, "ServiceAccount")} | {"default"}
    for name, pod in _pods(resources):
        assert pod.get("serviceAccountName", "default") in accounts, name


def test_the_namespace_lets_in_nothing_that_is_not_restricted(resources: list[Resource]) -> None:
    (namespace,) = of_kind(resources, "Namespace")
    for mode in ("enforce", "audit", "warn"):
        assert namespace["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] == "restricted"
