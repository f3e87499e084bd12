"""What runs of several replicas take."""

from __future__ import annotations

import pytest

from tests.conftest import need


@pytest.fixture
def haproxy() -> None:
    """The load balancer."""
    need("haproxy")
