"""A test that hangs is ended, and says where every thread and every task stood; tests are sorted by what they need."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

HANGS = """
import asyncio


async def test_it_waits_for_ever():
    async def wait_in_the_background():
        await asyncio.Event().wait()

    waiting = asyncio.create_task(wait_in_the_background())
    await asyncio.sleep(60)
"""
STARTS = """
import re
import subprocess


def test_it_starts_a_process():
    subprocess.run(["true"], check=True)
"""


def run(tmp_path: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a test of its own among ours."""
    file = ROOT / "tests" / f"test_{tmp_path.name}.py"
    file.write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(file)]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    finally:
        file.unlink()


def test_a_test_that_hangs_shows_its_threads_and_tasks(tmp_path: Path) -> None:
    done = run(tmp_path, HANGS, "--timeout", "2")
    assert done.returncode == 1
    shown = done.stdout + done.stderr
    assert "Timeout (>2.0s)" in shown
    assert "wait_in_the_background" in shown
    assert "Stack of task" in shown


@pytest.mark.parametrize(("options", "outcome"), [((), "1 passed"), (("-m", "not process"), "1 deselected")])
def test_one_that_starts_a_process_is_known_by_its_imports(
    tmp_path: Path, options: tuple[str, ...], outcome: str
) -> None:
    assert outcome in run(tmp_path, STARTS, *options).stdout


def test_one_that_starts_a_process_unseen_fails_in_make_check(tmp_path: Path) -> None:
    hidden = STARTS.replace("import subprocess\n", "").replace(
        "    subprocess", "    import subprocess\n    subprocess"
    )
    done = run(tmp_path, hidden, "-m", "not process")
    assert "a test without the marker `process` starts" in done.stdout


def test_the_tests_of_a_file_share_a_process(tmp_path: Path) -> None:
    """What a file starts once is started once; xdist's groups by marker are not read by this pytest."""
    text = f"""
import os
import pathlib

import pytest


@pytest.mark.parametrize("number", range(12))
def test_it(number):
    with pathlib.Path({str(tmp_path / "pids")!r}).open("a") as file:
        print(os.getpid(), file=file)
"""
    (options,) = re.findall(r"--numprocesses .*--no-loadscope-reorder", (ROOT / "Makefile").read_text())
    done = run(tmp_path, text, *options.replace("$(PROCESSES)", "2").split())
    assert "12 passed" in done.stdout, done.stdout
    assert len(set((tmp_path / "pids").read_text().split())) == 1
