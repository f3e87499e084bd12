"""What is deployed, read from ``k8s/base``: what is rehearsed waits as long as the cluster would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from loadtests.servers import ROOT

BASE = ROOT / "k8s" / "base"
GRACE = "ROLLOUT_GRACE_S"


class Probe(NamedTuple):
    """What the kubelet asks a container.

    Attributes:
        path: Where.
        period_s: How often.
        timeout_s: How long it waits for an answer.
        failures: So many in a row say no.
    """

    path: str
    period_s: float
    timeout_s: float
    failures: int

    def faster(self, times: float) -> Probe:
        """Returns it with shorter periods; what a container may take to answer stays."""
        return self._replace(period_s=self.period_s / times)


class Manifest(NamedTuple):
    """The figures of a Deployment that say how its pods come and go.

    Attributes:
        environment: The settings.
        startup: Asked until it says yes; nothing else is asked before.
        readiness: Decides who gets requests.
        liveness: Decides who is started again.
        pre_stop_s: How long a pod that is deleted goes on before SIGTERM.
        grace_s: How long after its deletion it is killed.
        surge: How many pods there may be beyond the replicas.
        unavailable: How many of the replicas may be missing.
        min_ready_s: A new pod counts once it has been ready for so long.
    """

    environment: Mapping[str, str]
    startup: Probe
    readiness: Probe
    liveness: Probe
    pre_stop_s: float
    grace_s: float
    surge: int
    unavailable: int
    min_ready_s: float

    def faster(self, times: float) -> Manifest:
        """Returns it with everything that is only waited for that much shorter, for a test."""
        return self._replace(
            environment={**self.environment, GRACE: str(float(self.environment[GRACE]) / times)},
            startup=self.startup.faster(times),
            readiness=self.readiness.faster(times),
            liveness=self.liveness.faster(times),
            pre_stop_s=self.pre_stop_s / times,
            min_ready_s=self.min_ready_s / times,
        )


def read_manifest(base: Path = BASE) -> Manifest:
    """Reads the Deployment and the settings."""
    deployment = msgspec.yaml.decode((base / "deployment.yaml").read_bytes())["spec"]
    lines = (base / "settings.env").read_text().splitlines()
    pod = deployment["template"]["spec"]
    container = pod["containers"][0]
    rolling = deployment["strategy"]["rollingUpdate"]
    return Manifest(
        environment=dict(line.split("=", 1) for line in lines if line and not line.startswith("#")),
        startup=_probe(container["startupProbe"]),
        readiness=_probe(container["readinessProbe"]),
        liveness=_probe(container["livenessProbe"]),
        pre_stop_s=container["lifecycle"]["preStop"]["sleep"]["seconds"],
        grace_s=pod["terminationGracePeriodSeconds"],
        surge=int(rolling["maxSurge"]),
        unavailable=int(rolling["maxUnavailable"]),
        min_ready_s=deployment.get("minReadySeconds", 0),
    )


def _probe(probe: Mapping[str, Any]) -> Probe:
    return Probe(
        path=probe["httpGet"]["path"],
        period_s=probe.get("periodSeconds", 10),
        timeout_s=probe.get("timeoutSeconds", 1),
        failures=probe.get("failureThreshold", 3),
    )
