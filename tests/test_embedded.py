"""The embedded Valkey: there as long as somebody uses it, whatever ends it, and no longer."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as NoConnectionError

from rollout import embedded
from rollout.config import Settings
from rollout.embedded import running_redis
from rollout.errors import ConfigError
from rollout.valkey_server import ValkeyServer

USE = """
import sys, time
from pathlib import Path
from rollout.config import Settings
from rollout.embedded import running_redis
with running_redis(Settings(home=Path(sys.argv[1]))) as url:
    print(url, flush=True)
    time.sleep(600)
"""


def servers(home: Path) -> list[psutil.Process]:
    """The processes that run in a home."""
    return [one for one in psutil.process_iter(["cwd"]) if one.info["cwd"] == str(home / "valkey")]


@contextmanager
def client(url: str) -> Iterator[Redis]:
    with Redis.from_url(url) as redis:
        yield redis


def wait_for(what: Callable[[], Any], seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while True:
        with suppress(NoConnectionError):
            if what():
                return
        assert time.monotonic() < give_up
        time.sleep(0.02)


def kill(home: Path) -> None:
    (server,) = servers(home)
    server.kill()  # whoever started it waits for it


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "rollout.embedded"]


def test_its_memory_has_a_bound_and_nothing_is_thrown_away(tmp_path: Path) -> None:
    with running_redis(Settings(home=tmp_path, store_bytes=123_456_789)) as url, client(url) as redis:
        found: Any = redis.config_get("maxmemory*")
    assert (found["maxmemory"], found["maxmemory-policy"]) == ("123456789", "noeviction")


@pytest.mark.parametrize("kind", ["open", "link"])
def test_its_socket_lies_where_no_other_user_can_put_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / ("deep" * 30)
    assert ValkeyServer(folder).url.startswith(f"unix://{tmp_path}/rollout-")
    (private,) = tmp_path.iterdir()
    if kind == "open":
        private.chmod(0o770)
    else:
        private.rename(tmp_path / "elsewhere")
        private.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is not a folder of this user alone: set ROLLOUT_HOME to a shorter"):
        ValkeyServer(folder)


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


def test_killed_it_is_there_again_with_its_data_within_two_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(home=tmp_path)
    with running_redis(settings) as url, running_redis(settings), client(url) as redis:
        redis.set("key", "kept")
        kill(tmp_path)
        wait_for(lambda: lines(caplog) and redis.get("key") == b"kept", 2)
        assert len(servers(tmp_path)) == 1, "one of the two who use it starts it"
        (line,) = lines(caplog)
        assert re.fullmatch(
            r"the embedded Valkey ended \(signal SIGKILL; \S+/valkey.log ends with: Ready to accept connections.*\); "
            r"starting it again in 0\.1 s",
            line,
        )
    assert servers(tmp_path) == []
    assert len(lines(caplog)) == 1, "whoever stops it does not want it back"


def test_whoever_still_uses_it_starts_it_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", USE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        url = starter.stdout.readline().strip()
        try:
            with running_redis(Settings(home=tmp_path)) as same, client(same) as redis:
                assert same == url
                redis.set("key", "kept")
                starter.kill()  # nobody's child any more
                starter.wait()
                kill(tmp_path)
                wait_for(lambda: redis.get("key") == b"kept", 2)
            assert servers(tmp_path) == []
        finally:
            starter.kill()


def test_what_keeps_ending_is_started_less_and_less_often(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "PAUSE_S", 0.02)
    with running_redis(Settings(home=tmp_path)) as url, client(url) as redis:
        redis.set("key", "kept")
        manifest = tmp_path / "valkey" / "appendonlydir" / "appendonly.aof.manifest"
        good = manifest.read_bytes()
        manifest.write_bytes(b"nonsense\n")
        kill(tmp_path)
        wait_for(lambda: len(lines(caplog)) >= 5, 20)
        manifest.write_bytes(good)
        wait_for(lambda: redis.get("key") == b"kept", 20)
        said = lines(caplog)
    assert "SIGKILL" in said[0]
    for line in said[1:]:
        assert re.match(
            r"the embedded Valkey did not start \(exit status 1; \S+ ends with: .*manifest.*\); ", line
        )
    pauses = [float(line.split()[-2]) for line in said]
    assert all(later >= earlier for earlier, later in itertools.pairwise(pauses))
    assert pauses[-1] >= 0.3
    assert servers(tmp_path) == []


def test_ctrl_c_while_it_starts_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    def trouble(_: ValkeyServer) -> str | None:
        if started:
            raise KeyboardInterrupt
        return "it is not there yet"

    monkeypatch.setattr(subprocess, "Popen", Popen)
    monkeypatch.setattr(ValkeyServer, "_trouble", trouble)
    with pytest.raises(KeyboardInterrupt), running_redis(Settings(home=tmp_path)):
        pass
    (process,) = started
    assert process.returncode is not None


def test_one_that_hangs_gets_no_second_one_on_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    is_there = ValkeyServer.is_there

    def look(server: ValkeyServer) -> bool:
        looked.append(is_there(server))
        return looked[-1]

    monkeypatch.setattr(ValkeyServer, "is_there", look)
    with running_redis(Settings(home=tmp_path)):
        (server,) = servers(tmp_path)
        server.suspend()
        looked.clear()
        second = threading.Thread(target=ValkeyServer(tmp_path / "valkey").ensure, args=(threading.Event(),))
        second.start()
        try:
            wait_for(lambda: looked, 10)
        finally:
            server.resume()
        second.join(10)
        assert not second.is_alive()
        assert set(looked) == {True}
        assert servers(tmp_path) == [server]
