"""What the tests of sending and of fetching bundles share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rollout.bundle.exchange import push_bundle
from tests.bundle.two import Linear, pack_two


@pytest.fixture(scope="session")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to which ``two:sent`` was pushed."""
    pack_two("sent", Linear().eval())
    folder = tmp_path_factory.mktemp("sent")
    push_bundle("two:sent", str(folder))
    return folder


@pytest.fixture
def there(sent: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(sent, tmp_path / "there")
