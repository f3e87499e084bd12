"""What is kept under ``ROLLOUT_HOME`` is for its owner alone."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from rollout.home import prepare_home
from tests.conftest import TRIAL, run_service, set_split
from tests.images import row, three_or_eight
from tests.service.test_bentoml import SERVE


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_home_that_others_can_read_is_narrowed_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new, wide = tmp_path / "a" / "new", tmp_path / "wide"
    prepare_home(new)
    assert mode(new) == 0o700
    assert not caplog.records
    wide.mkdir(mode=0o755)
    with caplog.at_level(logging.WARNING):
        prepare_home(wide)
        prepare_home(wide)
    assert mode(wide) == 0o700
    (record,) = caplog.records
    assert record.getMessage() == f"other users could read {wide} (mode 755): it has mode 700 now"


@pytest.mark.parametrize("command", [None, SERVE], ids=["rollout serve", "bentoml serve"])
def test_nothing_that_a_service_writes_can_be_read_by_others(
    bundles: str, tmp_path: Path, command: list[str] | None
) -> None:
    home = tmp_path / "home"
    set_split(home, *TRIAL)
    assert mode(home) == 0o700
    home.chmod(0o755)
    with run_service(home, command, ROLLOUT_WORKERS="1") as service, service.client() as client:
        body = {"client_id": "c", "key": "k", "inputs": {"image": three_or_eight()}}
        assert client.post("/v1/models/digits/predict", json=body).json()["review"] == "queued"
        assert client.post("/v1/models/digits/predict", json=row()).status_code == 200
        assert mode(home) == 0o700
        written = [path for path in home.rglob("*") if path != service.log and not path.is_socket()]
        assert {"valkey", "token"} <= {path.name for path in written}
        assert any(path.name.endswith(".aof") for path in written)
        # What is empty is there to be locked.
        assert [path for path in written if mode(path) & 0o077 and (path.is_dir() or path.stat().st_size)] == []
        assert f"other users could read {home} (mode 755): it has mode 700 now" in service.log.read_text()
