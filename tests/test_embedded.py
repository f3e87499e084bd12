"""The embedded Valkey: there as long as somebody uses it, and no longer."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as NoConnectionError
from redis.exceptions import RedisError

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


def kill(home: Path) -> int:
    """Kills the server of a home, and returns which process it was."""
    (server,) = servers(home)
    os.kill(server, signal.SIGKILL)
    return server


def wait_for_another(home: Path, killed: int, redis: Redis, seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while killed in servers(home) or not answers(redis):
        assert time.monotonic() < give_up
        time.sleep(0.02)


def answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisError:
        return False


def test_one_that_was_killed_is_there_again_with_its_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(home=tmp_path)
    with running_redis(settings) as url, running_redis(settings), client(url) as redis:
        redis.set("key", "kept")
        wait_for_another(tmp_path, kill(tmp_path), redis, 2)
        assert redis.get("key") == b"kept"
        assert len(servers(tmp_path)) == 1, "two users start one server"
    assert servers(tmp_path) == [], "it is not started again once nobody uses it"
    said = [record.getMessage() for record in caplog.records]
    assert any("has ended (signal 9; its log: " in line for line in said)
    assert all("\n" not in line for line in said)


def test_one_that_cannot_start_is_waited_for_longer_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_redis(Settings(home=tmp_path)) as url, client(url) as redis:
        redis.set("key", "kept")
        monkeypatch.setattr(embedded, "server_program", lambda: "/bin/false")
        killed = kill(tmp_path)
        give_up = time.monotonic() + 20
        while len(pauses := re.findall(r"same data(?: in (\d+) s)?$", caplog.text, re.M)) < 3:
            assert time.monotonic() < give_up
            time.sleep(0.05)
        assert pauses[:3] == ["", "1", "2"]
        assert "(exit status 1; its log: " in caplog.text
        monkeypatch.undo()
        wait_for_another(tmp_path, killed, redis, 20)
        assert redis.get("key") == b"kept"
