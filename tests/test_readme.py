"""Every block of the README runs, in order, in a copy of the tree and as it is written."""

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

import httpx
import pytest

from tests.conftest import BIN, ROOT, free_port, wait_ready
from tests.k8s import kubectl_here
from tests.k8s.rendering import kubectl

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
SERVERS = ("make serve", "rollout serve", "bentoml serve")
RUN_BY_WHOEVER_RUNS_THIS = "make test\n"


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
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)  # with its time: make would install anew into the environment
    (copy / ".venv").symlink_to(BIN.parent)
    return copy


@pytest.mark.timeout(1800)
def test_every_block_runs(tree: Path) -> None:
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "BENTOML_HOME"}
    # The environment is the one that runs this test: nothing is to be installed into it from the copy.
    environment["MAKEFLAGS"] = "--old-file=.venv/.installed-demo"
    environment |= {"PORT": str(port), "ROLLOUT_PORT": str(port), "BENTOML_PORT": str(port)}
    blocks = [
        (kind, text.replace("127.0.0.1:3000", f"127.0.0.1:{port}"))
        for kind, text in BLOCK.findall((ROOT / "README.md").read_text())
    ]
    answers: list[str] = []
    there = tree.parent / "cluster"
    there.mkdir()
    cluster = environment | kubectl_here.install(there, kubectl(), "local") | {"USER": "ada"}
    with contextlib.ExitStack() as server:
        for kind, text in blocks:
            if kind == "json":
                shown = json.loads(text.replace('"…": 0.0', '"9": 0.0'))
                answer = json.loads(answers[-1])
                assert {name: shown[name] for name in shown if name != "scores"} == {
                    name: answer[name] for name in answer if name != "scores"
                }
            elif kind == "python" and text.startswith("# models/"):
                recipe = tree / text.splitlines()[0].removeprefix("# ")
                recipe.parent.mkdir(parents=True)
                recipe.write_text(text)
            elif kind == "python":
                subprocess.run([BIN / "python", "-c", text], cwd=tree, env=environment, check=True)
            elif text == RUN_BY_WHOEVER_RUNS_THIS:
                subprocess.run(["make", "--dry-run", "test"], cwd=tree, check=True, capture_output=True)
            elif any(command in text for command in SERVERS):
                server.close()
                server.enter_context(running(text, tree, environment, port))
            else:
                place = cluster if text.startswith("kind create cluster") else environment
                done = subprocess.run(
                    ["bash", "-ec", text], cwd=tree, env=place, check=True, capture_output=True, text=True
                )
                answers.append(done.stdout)
                assert "urn:rollout:problem" not in done.stdout
    assert len(blocks) >= 11


def test_the_tree_that_is_served_is_the_readmes_tree(tree: Path) -> None:
    """The copy is whole: what git does not know is missing there, as it would be for a new user."""
    assert (tree / "Makefile").exists()
    assert not (tree / ".rollout").exists()


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
