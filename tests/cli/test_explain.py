"""``rollout explain`` on a bundle from disk."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.commands import rollout
from tests.images import image, png

SCAN = base64.b64decode(png(np.array(image(3), np.uint8)))


@pytest.fixture
def environment(bundles: str, tmp_path: Path) -> dict[str, str]:
    return os.environ | {"ROLLOUT_HOME": str(tmp_path)}


def test_file_as_json_and_as_a_picture(environment: dict[str, str], tmp_path: Path) -> None:
    scan, picture = tmp_path / "scan.png", tmp_path / "why.png"
    scan.write_bytes(SCAN)
    done = rollout(
        "explain", "digits:v1", str(scan), "--json", "--picture", str(picture), environment=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["version"], found["label"], found["explained"]) == ("v1", "3", "the score of 3")
    with PIL.Image.open(picture) as drawn:
        assert drawn.size[0] > 500
    instance = json.dumps({"client_id": "a", "inputs": {"image": base64.b64encode(SCAN).decode()}})
    done = rollout("explain", "digits:v1", instance, "--label", "8", environment=environment)
    assert done.returncode == 0, done.stderr
    assert "the score of 8 is" in done.stdout
    assert "says neither what causes what" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digits:v1"], "say what to explain"),
        (["digits:v9", "{}"], "there is no bundle digits:v9"),
        (["digits:v1", "{}"], "the inputs do not fit: /image"),
        (["digits:v1", "{"], "are not JSON"),
        (["digits:v1", "nowhere.png"], "cannot read nowhere.png"),
        (["digits:v1", json.dumps({"image": image(3)}), "--label", "ten"], "'ten' is not there"),
        (["digits:v1", json.dumps({"image": image(3)}), "--variant", "tensorrt"], "has no variant tensorrt"),
    ],
)
def test_what_cannot_be_explained_is_said(environment: dict[str, str], arguments: list[str], said: str) -> None:
    done = rollout("explain", *arguments, environment=environment)
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.parametrize("seed", ["-1", "99999999999999999999"])
def test_seed_that_is_none_is_refused(environment: dict[str, str], seed: str) -> None:
    done = rollout(
        "explain", "digits:v1", json.dumps({"image": image(3)}), "--seed", seed, environment=environment
    )
    assert done.returncode == 2
    assert "is not in the range 0<=x<=2147483647" in done.stderr
