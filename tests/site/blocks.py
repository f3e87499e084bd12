"""Blocks of the README and of the pages run, in order, in a copy of the tree and as they are written."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from tests.conftest import BIN, ROOT, built, free_port, wait_ready

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
SERVERS = ("make serve", "rollout serve", "bentoml serve")
RUN_BY_WHOEVER_RUNS_THIS = "make test\n"
# The demo's v2 is trained for a shorter time: a gate trains it again and again, and how well it reads is not tested.
EPOCHS = '"epochs": 60', '"epochs": 20'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what git would check out, with this environment in the place of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    copy = tmp_path / "rollout"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    recipe = copy / "models" / "digits" / "v2.py"
    recipe.write_text(recipe.read_text().replace(*EPOCHS))
    (copy / ".venv").mkdir()
    for part in BIN.parent.iterdir():
        if not part.name.startswith(".installed-"):
            (copy / ".venv" / part.name).symlink_to(part)
    for group in ("demo", "dev"):  # newer than what make compares it with: it installs nothing from the copy
        (copy / ".venv" / f".installed-{group}").touch()
    return copy


def copy_bundles(tree: Path, *versions: str) -> None:
    """Copies versions of ``digits``, built by the command that the demo runs, into the store of the copy."""
    bundles = built("digits", tree, "digits-of-fewer-epochs")
    store = tree / ".rollout" / "bentoml"
    store.parent.mkdir(mode=0o700)
    for version in versions:
        for place in ("models", "packed"):
            source = bundles / place / "digits" / version
            (store / place / "digits" / version).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, store / place / "digits" / version)


class Walk:
    """Somebody who reads pages one after the other, and types what they say.

    Args:
        tree: Where they are.
        cluster: What they need in addition where there is a cluster; without it no page may have one.
    """

    def __init__(self, tree: Path, cluster: dict[str, str] | None = None) -> None:
        self._tree = tree
        self._port = free_port()
        self._server = contextlib.ExitStack()
        ports = dict.fromkeys(("PORT", "ROLLOUT_PORT", "BENTOML_PORT"), str(self._port))
        self._environment = {name: value for name, value in os.environ.items() if name != "BENTOML_HOME"} | ports
        self._cluster = cluster
        self._said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def read(self, page: str) -> int:
        """Types the blocks of a page; returns how many they are."""
        blocks = BLOCK.findall((ROOT / page).read_text())
        for number, (kind, text) in enumerate(blocks):
            following = blocks[number + 1][1] if blocks[number + 1 :] else ""
            self.type(kind, text.replace("127.0.0.1:3000", f"127.0.0.1:{self._port}"))
            assert ("urn:rollout:problem" in self._said) == ("urn:rollout:problem" in following), self._said
        return len(blocks)

    def type(self, kind: str, text: str) -> None:
        """Does what a block says, or holds what the last one answered against what the page shows."""
        if kind == "json":
            check_shown(json.loads(text.replace('"…": 0.0', '"9": 0.0')), json.loads(self._said))
            self._said = ""
        elif kind == "python" and text.startswith("# models/"):
            recipe = self._tree / text.splitlines()[0].removeprefix("# ")
            recipe.parent.mkdir(parents=True)
            recipe.write_text(text)
        elif kind == "python":
            self._run([str(BIN / "python"), "-c", text], self._environment)
        elif text == RUN_BY_WHOEVER_RUNS_THIS:
            self._run(["make", "--dry-run", "test"], self._environment)
        elif any(command in text for command in SERVERS):
            self._server.close()
            self._server.enter_context(running(text, self._tree, self._environment, self._port))
        elif text.startswith(("kind ", "kubectl ")):
            assert self._cluster is not None
            self._run(["bash", "-ec", text], self._environment | self._cluster)
        else:
            assert kind == "bash", kind
            self._run(["bash", "-ec", text], self._environment)

    def _run(self, words: list[str], environment: dict[str, str]) -> None:
        done = subprocess.run(
            words, cwd=self._tree, env=environment, check=False, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{words[-1]}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        self._said = done.stdout


def check_shown(shown: dict[str, Any], answer: dict[str, Any]) -> None:
    """Holds what a page shows against an answer: every field but those that each run has of its own."""
    differ = {"scores", "queue", "variant"}
    assert {name: value for name, value in shown.items() if name not in differ} == {
        name: answer[name] for name in shown if name not in differ
    }


@contextlib.contextmanager
def running(text: str, tree: Path, environment: dict[str, str], port: int) -> Iterator[None]:
    """Runs a block that serves until the next one does, then stops it as Ctrl-C would."""
    log = tree / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            ["bash", "-ec", text], cwd=tree, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        wait_ready(f"http://127.0.0.1:{port}", process, log, seconds=300)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
        for _ in range(100):
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/livez", timeout=1)
                time.sleep(0.1)
                continue
            break
