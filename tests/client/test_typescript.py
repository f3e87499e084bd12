"""The TypeScript client, in Node, against a running service; its types are those of that service's description."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import ROOT, Service, need

FOLDER = ROOT / "client" / "typescript"
PAGE = (ROOT / "docs" / "typescript.md").read_text()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with what it is locked to."""
    need("node", "nodejs")
    need("npm")
    place = tmp_path_factory.mktemp("typescript") / "client"
    shutil.copytree(FOLDER, place, ignore=shutil.ignore_patterns("node_modules", "dist", "models.ts"))
    run(place, "npm", "ci", "--no-audit", "--no-fund")
    return place


def run(place: Path, *command: str, **environment: str) -> str:
    """Runs a command, and returns what it said."""
    done = subprocess.run(
        command, cwd=place, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_does_in_node_what_it_says(package: Path, served: Service, tmp_path: Path) -> None:
    with served.client() as client:
        (tmp_path / "openapi.json").write_bytes(client.get("/openapi.json").content)
    run(package, "npm", "run", "generate", "--", str(tmp_path / "openapi.json"), "-o", "test/models.ts")
    (block,) = re.findall(r"```typescript\n(.*?)```", PAGE, re.S)
    page = block.replace('"rollout-client"', '"../src/index.js"').replace("http://localhost:3000", served.base)
    page = page.replace("order-17", f"order-{uuid4()}")  # others report what is right of that one, too
    (package / "test" / "page.test.ts").write_text(page)
    said = run(package, "npm", "test", ROLLOUT_URL=served.base)
    assert "# fail 0" in said
    assert int(re.findall(r"# pass (\d+)", said)[0]) >= 9


def test_what_is_generated_is_current(package: Path, tmp_path: Path) -> None:
    described = run(ROOT, sys.executable, "scripts/describe")
    (tmp_path / "openapi.json").write_text(described)
    run(package, "npm", "run", "generate", "--", str(tmp_path / "openapi.json"), "-o", "again.ts")
    current = (package / "again.ts").read_text() == (FOLDER / "src" / "api.ts").read_text()
    assert current, "run make typescript"


def test_nothing_is_fetched_from_anywhere_but_the_registry() -> None:
    lock = json.loads((FOLDER / "package-lock.json").read_text())
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert len(packages) > 10
    for one in packages.values():
        assert one["integrity"].startswith("sha512-")
        assert one.get("resolved", "https://registry.npmjs.org/").startswith("https://registry.npmjs.org/")
