"""The embedded Valkey: there as long as somebody uses it, and no longer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as NoConnectionError

from rollout import embedded
from rollout.config import Settings
from rollout.embedded import running_redis


def servers(home: Path) -> list[int]:
    """The processes that run in a home."""
    return [one.pid for one in psutil.process_iter(["cwd"]) if one.info["cwd"] == str(home / "valkey")]


@contextmanager
def client(url: str) -> Iterator[Redis]:
    with Redis.from_url(url) as redis:
        yield redis


def test_whoever_uses_it_last_stops_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    first, second, third = (running_redis(settings) for _ in range(3))
    url = first.__enter__()
    assert second.__enter__() == url
    (server,) = servers(tmp_path)
    first.__exit__(None, None, None)
    with client(url) as redis:
        redis.set("key", "kept")
    assert third.__enter__() == url
    second.__exit__(None, None, None)
    assert servers(tmp_path) == [server]
    third.__exit__(None, None, None)
    assert servers(tmp_path) == []
    with client(url) as redis, pytest.raises(NoConnectionError):
        redis.ping()
    with running_redis(settings) as url, client(url) as redis:
        assert redis.get("key") == b"kept"


def test_ctrl_c_while_it_starts_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    def answers(_: str) -> bool:
        if started:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(subprocess, "Popen", Popen)
    monkeypatch.setattr(embedded, "_answers", answers)
    with pytest.raises(KeyboardInterrupt), running_redis(Settings(home=tmp_path)):
        pass
    (process,) = started
    assert process.returncode is not None
