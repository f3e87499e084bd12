"""``rollout`` as it is typed: in a process of its own, forked from one in which the imports are done."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent

_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload(["tests.preloaded"])


def rollout(
    *arguments: str | Path, folder: Path = ROOT, environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    """Runs a command where nobody can be asked. Importing takes longer than most commands do, so it is done once.

    A command that is asked, stopped or killed, and ``rollout serve``, are processes that start from nothing.
    """
    with tempfile.TemporaryDirectory() as place:
        printed = Path(place, "stdout"), Path(place, "stderr")
        words = ["rollout", *map(str, arguments)]
        process = _fork.Process(target=_run, args=(words, folder, dict(environment), printed))
        process.start()
        process.join()
        return subprocess.CompletedProcess(words, process.exitcode or 0, *(file.read_text() for file in printed))


def _run(words: list[str], folder: Path, environment: dict[str, str], printed: tuple[Path, Path]) -> None:
    from rollout.cli import main

    for stream, file in zip((sys.stdout, sys.stderr), printed, strict=True):
        with file.open("wb") as place:
            os.dup2(place.fileno(), stream.fileno())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = words
    main()
