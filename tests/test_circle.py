"""The circle of docs/circle.md, as it is written: from what a scanner gives to the next champion."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import BIN, ROOT, free_port
from tests.site.blocks import BLOCK, copy_bundles, running, tree

__all__ = ["tree"]

SCORE = re.compile(r"^(\S+) reads ([\d.]+)% of 1,080 scans right$", re.M)


@pytest.mark.timeout(1800)
def test_the_circle_runs_and_reads_scans_better(tree: Path) -> None:
    copy_bundles(tree, "v1", "v2")
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "BENTOML_HOME"}
    environment |= {"PORT": str(port), "ROLLOUT_PORT": str(port), "ROLLOUT_WORKERS": "1"}
    said = []
    with contextlib.ExitStack() as server:
        for kind, text in BLOCK.findall((ROOT / "docs" / "circle.md").read_text()):
            assert kind == "bash"
            if text == ".venv/bin/rollout demo\n":
                server.enter_context(running(text, tree, environment, port))
                continue
            done = subprocess.run(
                ["bash", "-ec", text], cwd=tree, env=environment, check=False, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
            said.append(done.stdout)
        split = subprocess.run(
            [BIN / "rollout", "split", "show", "digits", "--json"],
            cwd=tree,
            env=environment,
            check=True,
            capture_output=True,
        )
    assert json.loads(split.stdout)["champion"] == "v2.1"
    (before, was), (after, now) = SCORE.findall("".join(said))
    assert (before, after) == ("v2", "v2.1")
    assert float(now) > float(was) + 3
    assert "0 labels are new" in said[-1]
    assert "identical" in said[-1]
