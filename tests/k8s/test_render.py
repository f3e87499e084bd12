"""Everything under ``k8s/`` renders, and what is rendered is what was meant."""

from __future__ import annotations

import pytest

from rollout.__about__ import __version__
from tests.k8s.rendering import ALL, COMPONENTS, K8S, OVERLAYS, containers, name_of, of_kind, pod_owners, render

OWN = "rollout"


def test_all_that_the_readers_are_promised_is_there() -> None:
    assert {"local", "production", "argo-rollouts", "flagger"} <= set(OVERLAYS)
    assert {"redis", "monitoring", "gateway", "models-from-s3", "gpu", "keda"} <= set(COMPONENTS)


@pytest.mark.parametrize("name", ALL)
def test_it_renders_into_one_namespace_without_doubles(name: str) -> None:
    resources = render(name)
    names = [name_of(resource) for resource in resources]
    assert len(names) == len(set(names))
    assert {resource["metadata"].get("namespace", "rollout") for resource in resources} == {"rollout"}
    assert [name_of(resource) for resource in resources if "namespace" not in resource["metadata"]] == [
        "Namespace/rollout"
    ]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_runs_one_image_in_all_its_pods(overlay: str) -> None:
    ours = {
        container["image"]
        for owner in pod_owners(render(overlay))
        for container in containers(owner)
        if container["image"].rpartition("/")[2].startswith(f"{OWN}:")
    }
    assert len(ours) == 1
    expected = {f"{OWN}:demo"} if overlay == "local" else {f"registry.example/{OWN}:{__version__}"}
    assert ours == expected


def test_manifests_name_this_version_wherever_they_name_one() -> None:
    assert (
        of_kind(render("base+gpu"), "Deployment")[0]["metadata"]["labels"]["app.kubernetes.io/version"]
        == __version__
    )
    named = {
        line.strip()
        for file in [*K8S.glob("base/*.yaml"), *K8S.glob("components/*/*.yaml"), *K8S.glob("overlays/*/*.yaml")]
        for line in file.read_text().splitlines()
        if line.strip().startswith((f"image: {OWN}", "app.kubernetes.io/version:", "newTag:"))
    }
    assert named <= {
        f"image: {OWN}:{__version__}",
        f"image: {OWN}-train:{__version__}",
        f"app.kubernetes.io/version: {__version__}",
        f"newTag: {__version__}",
        "newTag: demo",
    }


def test_without_images_from_a_registry_the_local_overlay_takes_the_loaded_one_only() -> None:
    policies = {
        container.get("imagePullPolicy")
        for owner in pod_owners(render("local"))
        for container in containers(owner)
        if container["image"] == f"{OWN}:demo"
    }
    assert policies == {"Never"}


def test_keda_is_the_only_autoscaler_where_it_is_used() -> None:
    assert not of_kind(render("base+keda"), "HorizontalPodAutoscaler")
    assert of_kind(render("base+gpu"), "HorizontalPodAutoscaler")


def test_what_flagger_starts_from_can_be_applied_without_its_canary() -> None:
    late = {
        thing["kind"]
        for thing in render("flagger")
        if thing["metadata"]["labels"].get("app.kubernetes.io/component") == "canary"
    }
    assert late == {"Canary", "MetricTemplate", "NetworkPolicy"}
