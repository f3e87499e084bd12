"""A model that never ends keeps nobody who runs it from ending."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rollout.bundle.archive import unpack
from tests.bundle.test_exchange import NAME, TAG, loop_for_ever
from tests.conftest import BIN, free_port, set_split

SOON_S = 20


@pytest.fixture
def environment(there: Path, tmp_path: Path) -> dict[str, str]:
    """Of commands whose store has one model, which adds to nothing for ever."""
    folder = tmp_path / "store" / "models" / TAG.replace(":", "/")
    folder.mkdir(parents=True)
    unpack(there / NAME, folder)
    loop_for_ever(folder)
    places = {"BENTOML_HOME": tmp_path / "store", "ROLLOUT_HOME": tmp_path / "home", "TMPDIR": tmp_path}
    return {name: str(place) for name, place in places.items()}


@pytest.fixture
def begun(environment: dict[str, str], tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are ended, whatever comes."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            for below in psutil.Process(process.pid).children(recursive=True):
                below.kill()
            process.kill()
            process.wait()


def wait_until_it_runs(process: psutil.Process) -> None:
    """Waits for the seconds of CPU time that no start of ours takes."""
    give_up = time.monotonic() + 120
    while sum(process.cpu_times()[:2]) < 8:
        assert time.monotonic() < give_up
        time.sleep(0.1)


@pytest.mark.parametrize("command", ["verify", "cost"])
def test_ctrl_c_ends_a_command(
    environment: dict[str, str], begun: list[subprocess.Popen[bytes]], command: str
) -> None:
    by_default = ["env", "--default-signal=INT"]  # what a shell runs in the background ignores it
    begun.append(subprocess.Popen([*by_default, BIN / "rollout", command, TAG], env=os.environ | environment))
    wait_until_it_runs(psutil.Process(begun[0].pid))
    begun[0].send_signal(signal.SIGINT)
    assert begun[0].wait(SOON_S) == 128 + signal.SIGINT


def test_sigterm_ends_a_start(
    environment: dict[str, str], begun: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    set_split(tmp_path / "home", "--champion", "sent", model="two", **environment)
    command = [str(BIN / "rollout"), "serve", "--port", str(free_port()), "--workers", "1"]
    begun.append(subprocess.Popen(command, env=os.environ | environment))
    served = psutil.Process(begun[0].pid)
    give_up = time.monotonic() + 60
    while not (busy := [one for one in served.children(recursive=True) if sum(one.cpu_times()[:2]) > 5]):
        assert time.monotonic() < give_up
        time.sleep(0.1)
    begun[0].send_signal(signal.SIGTERM)
    assert begun[0].wait(SOON_S) == 0
    assert not busy[0].is_running()
