"""One service for the clients: images, a table with times, several heads, and vectors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rollout.client import Client
from tests.conftest import TRIAL, Service, run_service, set_split
from tests.heads.serving import pack_tiny
from tests.passengers import pack_passengers

HEADS = ("tiny-heads", "tiny-embedding")


@pytest.fixture(scope="session")
def served(bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers; digits has v2 on trial."""
    home = tmp_path_factory.mktemp("client")
    pack_passengers()
    set_split(home, *TRIAL)
    set_split(home, "--champion", "v1", model="passengers")
    for name in HEADS:
        pack_tiny(name)
        set_split(home, "--champion", "v1", model=name)
    with run_service(home) as running:
        yield running


@pytest.fixture(scope="session")
def client(served: Service) -> Iterator[Client]:
    """A client of it, which means digits."""
    with Client(served.base, model="digits") as client:
        yield client
