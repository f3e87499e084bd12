"""``rollout-client`` is the client alone: built from this tree, and installed with nothing but what it asks for."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.client.test_client import pixels
from tests.conftest import BIN, ROOT, Service
from tests.images import png

ASK = """
import base64, sys
from rollout.client import Client, __all__
import rollout
with Client(sys.argv[1], model="digits") as client:
    answer = client.predict("c-1", {"image": base64.b64decode(sys.argv[2])})
assert rollout.__file__ is None and "numpy" not in sys.modules and client.models
print(answer.label, answer.version)
"""


def closure(names: Iterator[str]) -> set[str]:
    """Returns what distributions need, without extras, as they say here."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name not in found and (
            requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ):
            found.add(requirement.name)
            waiting += distribution(requirement.name).requires or []
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python in an environment with the wheel, and copies of what its metadata asks for."""
    place = tmp_path_factory.mktemp("wheel")
    build: list[str | Path] = [BIN / "hatchling", "build", "--target", "wheel", "--directory", place]
    subprocess.run(build, cwd=ROOT / "client", check=True, capture_output=True)
    (wheel,) = place.glob("rollout_client-*.whl")
    subprocess.run([BIN / "python", "-m", "venv", "--without-pip", place / "venv"], check=True)
    python = place / "venv" / "bin" / "python"
    pip: list[str | Path] = [BIN / "python", "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    (site,) = (place / "venv" / "lib").glob("python*/site-packages")
    (metadata,) = site.glob("rollout_client-*.dist-info/METADATA")
    asked = (
        line.partition(": ")[2]
        for line in metadata.read_text().splitlines()
        if line.startswith("Requires-Dist: ")
    )
    for name in closure(asked):
        for file in distribution(name).files or []:
            if ".." not in file.parts and file.suffix != ".pyc":
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(str(distribution(name).locate_file(file)), site / file)
    subprocess.run([*pip, "check"], check=True)
    return python


def test_it_predicts_without_the_server(python: Path, served: Service) -> None:
    command: list[str | Path] = [python, "-I", "-c", ASK, served.base, png(pixels())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["v1"]


def test_it_holds_the_client_and_nothing_else(python: Path) -> None:
    (site,) = (python.parent.parent / "lib").glob("python*/site-packages")
    assert {path.name for path in (site / "rollout").iterdir()} - {"__pycache__"} == {"client", "__about__.py"}
    assert (site / "rollout" / "client" / "py.typed").exists()
