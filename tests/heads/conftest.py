"""One service with a tiny model of each kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.heads.serving import Running, running_tiny


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A running service, and what it serves."""
    with running_tiny(tmp_path_factory.mktemp("tiny")) as running:
        yield running
