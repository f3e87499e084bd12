"""The scripts that a new machine runs first."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / script, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("version", "words"), [("Python 3.9.2", "is too old"), (None, "on the PATH")])
def test_an_old_or_missing_python_is_said_in_one_line(tmp_path: Path, version: str | None, words: str) -> None:
    python = tmp_path / "python"
    if version is not None:
        python.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo {version} && exit 0\nexit 1\n')
        python.chmod(0o755)
    done = run("install", "demo", PYTHON=str(python))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("rollout: ")
    assert words in line
    assert "Python 3.11 or later" in line


def test_a_missing_program_is_named() -> None:
    assert run("need", "bash").returncode == 0
    done = run("need", "no-such-program-anywhere", PATH="/bin:/usr/bin")
    assert done.returncode == 1
    assert "no-such-program-anywhere is missing" in done.stderr.splitlines()[-1]
