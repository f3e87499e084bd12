"""What the Dockerfile says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout.__about__ import __version__
from rollout.config import Settings, load_settings
from tests.image.dockerfile import Stage, read_stages
from tests.image.root import ROOT, make_context
from tests.image.serving import VOLUMES

STAGES = read_stages(ROOT / "Dockerfile")
IMAGES = ("serve", "torch", "demo")


def needed_by(name: str) -> Iterator[Stage]:
    """Yields a stage and all that it is made of."""
    if name in STAGES:
        yield STAGES[name]
        for one in STAGES[name].inputs:
            yield from needed_by(one)


def runs(name: str) -> str:
    return "\n".join(step.text for stage in needed_by(name) for step in stage.steps if step.name == "RUN")


def test_one_base_is_pinned_by_digest_and_serve_is_the_default() -> None:
    bases = {stage.base for stage in STAGES.values() if stage.base not in STAGES}
    (base,) = bases
    assert re.fullmatch(r"python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", base)
    assert list(STAGES)[-1] == "serve"


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_rollout_serve_as_a_user_without_a_name(name: str) -> None:
    image = STAGES[name]
    assert image.last("USER") == "65532:65532"
    assert image.words("ENTRYPOINT") == ["rollout"]
    assert image.words("CMD") == ["serve"]
    assert int(image.last("EXPOSE")) == Settings().port
    assert image.labels["org.opencontainers.image.version"] == __version__
    settings = load_settings(image.environment)
    assert not settings.listens_on_loopback
    assert str(settings.home) in VOLUMES
    assert image.environment["BENTOML_HOME"].startswith(f"{settings.home}/")


def test_torch_is_in_the_image_for_torchscript_alone_and_nothing_is_compiled() -> None:
    installs = re.compile(r"\btorch\b|\[demo\]|\[pack\]")
    assert not installs.search(runs("serve"))
    assert installs.search(runs("torch"))
    venvs = [step.flag("from") for step in STAGES["demo"].steps if "venv" in step.text]
    assert venvs == ["build"]
    for name in IMAGES:
        assert runs(name).count(" install ") == runs(name).count("--only-binary :all:")
        assert "apt" not in runs(name)


def test_an_engine_is_sent_what_the_dockerfile_copies_and_nothing_else(tmp_path: Path) -> None:
    make_context(ROOT, tmp_path)
    copied = {
        source
        for stage in STAGES.values()
        for step in stage.steps
        if step.name == "COPY" and not step.flag("from")
        for source in step.text.split()[:-1]
    }
    assert {path.name for path in tmp_path.iterdir()} == copied
    assert (tmp_path / "service" / "console" / "templates" / "base.html").exists()
    assert not list(tmp_path.rglob("__pycache__"))
