"""``rollout`` as it is typed: in a process of its own, forked from one in which the imports are done."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload(["tests.preloaded"])


def forked(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Runs a function of a module in a process of its own, which has its imports."""
    process = _fork.Process(target=function, args=arguments)
    process.start()
    return process


class Started:
    """A command that runs, and that can be killed.

    Args:
        words: The command.
        folder: Where it is run.
        environment: All its variables.
    """

    def __init__(self, words: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._words = words
        self._place = tempfile.TemporaryDirectory()
        self._printed = Path(self._place.name, "stdout"), Path(self._place.name, "stderr")
        self._process = forked(_run, words, folder, dict(environment), self._printed)

    def poll(self) -> int | None:
        """Returns the exit code, or ``None`` while it runs."""
        return self._process.exitcode

    def kill(self) -> subprocess.CompletedProcess[str]:
        """Sends SIGKILL, and returns what it had printed."""
        self._process.kill()
        return self.end()

    def end(self, seconds: float | None = None) -> subprocess.CompletedProcess[str]:
        """Returns what it printed once it has ended, which it has to within so many seconds."""
        self._process.join(seconds)
        code = self._process.exitcode
        assert code is not None, f"{' '.join(self._words)} does not end"
        printed = [file.read_text() if file.exists() else "" for file in self._printed]
        self._place.cleanup()
        return subprocess.CompletedProcess(self._words, code, *printed)


def start(*arguments: str | Path, folder: Path = ROOT, environment: Mapping[str, str] = os.environ) -> Started:
    """Starts a command, to look at it while it runs."""
    return Started(["rollout", *map(str, arguments)], folder, environment)


def rollout(
    *arguments: str | Path, folder: Path = ROOT, environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    """Runs a command where nobody can be asked. Importing takes longer than most commands do, so it is done once.

    A command that is asked or stopped, and ``rollout serve``, are processes that start from nothing.
    """
    return start(*arguments, folder=folder, environment=environment).end()


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
