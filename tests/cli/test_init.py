"""What `rollout init` writes packs and serves as it stands."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import numpy as np
from sklearn.datasets import load_breast_cancer

from tests.commands import rollout
from tests.conftest import run_service, set_split


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    """Runs ``rollout`` in an empty folder; returns what it printed."""
    done = rollout(*arguments, folder=folder, environment=os.environ | {"ROLLOUT_HOME": str(folder)})
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_a_new_model_packs_and_serves(tmp_path: Path) -> None:
    text = run(tmp_path, "init", "fresh")
    assert "rollout build models/fresh" in text
    assert "exists already" in run(tmp_path, "init", "fresh", code=1)
    assert "cannot name a model" in run(tmp_path, "init", "../x", code=1)
    built = run(tmp_path, "build", "models/fresh")
    assert "comparing 40 raw rows with the reference" in built
    assert "nobody has compared" not in built
    set_split(tmp_path, "--champion", "v1", model="fresh")
    data = load_breast_cancer()
    instances = [
        {"client_id": f"c-{row}", "inputs": {"cells": data.data[row].tolist()}} for row in range(450, 550)
    ]
    with run_service(tmp_path, ROLLOUT_WORKERS="1") as service:
        answer = httpx.post(f"{service.base}/v1/models/fresh/predict", json={"instances": instances}, timeout=30)
    labels = [prediction["label"] for prediction in answer.json()["predictions"]]
    truth = np.array(["malignant", "benign"])[data.target[450:550]]
    assert np.mean(truth == labels) > 0.9
