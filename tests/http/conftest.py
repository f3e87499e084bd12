"""A service with every kind of model, that answers over HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.conftest import TRIAL, Service, free_port, run_service, set_split

HOST = "127.0.0.1"


class Endpoints(NamedTuple):
    """A running service, and where the clients of the Open Inference Protocol find it.

    Attributes:
        service: The service.
        http: Host and port.
        grpc: Host and port.
    """

    service: Service
    http: str
    grpc: str


@pytest.fixture(scope="session")
def endpoints(more_bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """Two workers; digits has v2 on trial, v2 is the champion of languages and v1 that of departures."""
    home = tmp_path_factory.mktemp("endpoints")
    set_split(home, *TRIAL)
    for model, champion in (("languages", "v2"), ("departures", "v1")):
        set_split(home, "--champion", champion, model=model)
    port = free_port()
    with run_service(home, ROLLOUT_GRPC_PORT=str(port)) as running:
        yield Endpoints(running, running.base.removeprefix("http://"), f"{HOST}:{port}")


@pytest.fixture(scope="module", params=["rollout serve", "bentoml serve"])
def either(
    request: pytest.FixtureRequest, bundles: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The service under one of its two servers."""
    if request.param == "rollout serve":
        yield request.getfixturevalue("service")
        return
    from tests.service.test_bentoml import SERVE

    home = tmp_path_factory.mktemp("bentoml")
    set_split(home, *TRIAL)
    with run_service(home, SERVE, ROLLOUT_WORKERS="1") as running:
        yield running
