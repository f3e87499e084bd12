"""A test that hangs is ended, and says where every thread and every task stood; tests are sorted by what they need."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.running import TOGETHER, Files

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
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
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


def test_files_that_share_a_service_share_a_process() -> None:
    for file in TOGETHER:
        assert (ROOT / file).exists()
        assert Files._split_scope(None, f"{file}::test_it[1]") == TOGETHER[0]  # type: ignore[arg-type]
    assert Files._split_scope(None, "tests/test_running.py::test_it") == "tests/test_running.py"  # type: ignore[arg-type]


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
    found = re.findall(r"--numprocesses .*--no-loadscope-reorder", (ROOT / "scripts" / "test").read_text())
    (options,) = {options.replace('"$processes"', "2") for options in found}
    done = run(tmp_path, text, *options.split())
    assert "12 passed" in done.stdout, done.stdout
    assert len(set((tmp_path / "pids").read_text().split())) == 1


FLAKY = """
from pathlib import Path

import pytest


def test_it_passes_the_second_time():
    again = Path("again")
    was_there = again.exists()
    again.touch()
    assert was_there


@pytest.mark.paired
def test_paired():
    pass


@pytest.mark.alone
def test_alone():
    pass
"""


@pytest.mark.parametrize(
    ("more", "status", "says"),
    [("", 0, "1 passed"), ("def test_it_never_passes(): raise AssertionError", 1, "1 failed, 1 passed")],
)
def test_what_fails_beside_others_has_to_pass_by_itself(
    tmp_path: Path, more: str, status: int, says: str
) -> None:
    """All that `make test` runs after lint, on a tree of one file."""
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(ROOT / "scripts" / "test", tmp_path / "scripts")
    (tmp_path / "test_it.py").write_text(f"{FLAKY}\n\n{more}\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    alone\n    paired\n")
    done = subprocess.run([script, "2"], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    _, said = done.stdout.split("Once more, by themselves")
    assert says in said
