"""``bentoml containerize``: what it would build, and the Bento served by the container's own entry point."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path

import bentoml
import pytest
from bentoml.container import get_containerfile

from tests.conftest import BIN, ROOT, TRIAL, run_service, set_split
from tests.image.dockerfile import read_stages
from tests.images import row


@pytest.fixture(scope="module")
def tag(bundles: str) -> str:
    """A Bento with the demo's bundles."""
    command = [str(BIN / "bentoml"), "build", "--output", "tag"]
    built = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return built.strip().rpartition("__tag__:")[2]


def test_its_container_runs_as_a_user_and_without_torch(tag: str, tmp_path: Path) -> None:
    get_containerfile(tag, output_path=str(tmp_path / "Dockerfile"))
    (stage,) = read_stages(tmp_path / "Dockerfile").values()
    assert stage.base.startswith("python:3.11-slim")
    assert stage.last("USER") == "bentoml"
    assert stage.last("EXPOSE") == "3001"  # BentoML's own metrics, beside 3000
    requirements = (Path(bentoml.get(tag).path) / "env" / "python" / "requirements.txt").read_text()
    assert "onnxruntime" in requirements
    assert not re.search(r"^(torch|onnxscript|rollout)\b", requirements, re.MULTILINE)


def test_what_is_in_the_container_serves_with_an_empty_store(tag: str, tmp_path: Path) -> None:
    set_split(tmp_path, *TRIAL)
    archive = bentoml.export_bento(tag, str(tmp_path / "rollout.tar"), output_format="tar")
    bento = tmp_path / "bento"
    with tarfile.open(archive) as file:
        file.extractall(bento, filter="data")
    command = ["bash", str(bento / "env" / "docker" / "entrypoint.sh"), "--port", "{port}"]
    environment = {
        "PATH": f"{BIN}:/usr/bin:/bin",
        "BENTO_PATH": str(bento),
        "BENTOML_HOME": str(tmp_path / "empty"),
        "BENTOML_CONTAINERIZED": "true",
        "ROLLOUT_WORKERS": "1",
    }
    with run_service(tmp_path, command, **environment) as running, running.client() as client:
        assert client.post("/v1/models/digits/predict", json=row()).json()["model"] == "digits"
