"""``rollout import`` packs a file with a table of rows, and the service answers as the file's maker would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from rollout import Classification, Number, Regression, RolloutError, Tensor
from rollout.bundle.quiet import quiet
from rollout.bundle.store import open_bundle
from rollout.errors import ConfigError
from rollout.training.importing import SPLIT, derive
from tests.bundle.test_artefact import save_torch
from tests.bundle.two import TASK, part
from tests.cli.test_init import run
from tests.conftest import run_service, set_split

NAMES = ["length (cm)", "width"]
ROWS = part(900, 3)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows as a CSV and as arrays, and models that were made elsewhere."""
    folder = tmp_path_factory.mktemp("files")
    frame = pd.DataFrame(ROWS.inputs["x"], columns=NAMES)
    pipeline = make_pipeline(SimpleImputer(), LogisticRegression()).fit(frame, ROWS.targets)
    joblib.dump(pipeline, folder / "pipeline.joblib")
    frame["answer"] = np.array(["no", "yes"])[ROWS.targets]
    frame.to_csv(folder / "rows.csv", index=False)
    np.savez(folder / "rows.npz", x=ROWS.inputs["x"], target=ROWS.targets)
    for name in ("model.onnx", "program.pt2", "script.pt"):
        save_torch(folder / name)
    return folder


def test_a_pipeline_is_imported_from_a_table_and_serves(files: Path, tmp_path: Path) -> None:
    command = ["import", str(files / "pipeline.joblib"), "--name", "imported", "--version", "v1"]
    rows = ["--data", str(files / "rows.csv"), "--target", "answer", "--labels", "no,yes", "--risk", "0.1"]
    assert "runs whatever code is in it" in run(tmp_path, *command, *rows, code=1)
    text = run(tmp_path, *command, *rows, "--trust-pickle")
    assert "length_cm: a number" in text
    assert f"450 rows calibrate and 450 evaluate: {SPLIT}" in text
    assert "kept: onnx" in text
    set_split(tmp_path, "--champion", "v1", model="imported")
    instances: list[dict[str, Any]] = [
        {"client_id": f"c-{row}", "inputs": {"length_cm": float(x[0]), "width": float(x[1])}}
        for row, x in enumerate(part(50, 9).inputs["x"])
    ]
    with run_service(tmp_path, ROLLOUT_WORKERS="1") as service:
        response = httpx.post(
            f"{service.base}/v1/models/imported/predict", json={"instances": instances}, timeout=60
        )
    frame = pd.DataFrame([list(each["inputs"].values()) for each in instances], columns=NAMES)
    expected = joblib.load(files / "pipeline.joblib").predict(frame)
    said = [prediction["label"] for prediction in response.json()["predictions"]]
    assert said == [("no", "yes")[index] for index in expected]


def test_an_onnx_file_is_imported_with_arrays(files: Path, tmp_path: Path) -> None:
    command = ["import", str(files / "model.onnx"), "--name", "imported", "--version", "v2", "--labels", "no,yes"]
    assert "say what it answers" in run(tmp_path, *command, "--regression", "--data", "rows.npz", code=1)
    text = run(tmp_path, *command, "--data", str(files / "rows.npz"))
    assert "x: 2 nested lists of numbers" in text
    _, manifest = open_bundle("imported:v2")
    assert "onnx" in manifest.variants
    assert manifest.left_out["torchscript"].why.endswith("an ONNX graph is served as ONNX")
    assert manifest.lineage["data"]["rows"] == [450, 450]
    assert manifest.lineage["artefact"]["kind"] == "ONNX"


@pytest.mark.parametrize("file", ["program.pt2", "script.pt"])
def test_the_columns_of_a_table_are_one_tensor_for_a_module(files: Path, file: str) -> None:
    derived = derive(files / file, files / "rows.csv", TASK, target="answer")
    assert derived.inputs == {"table": Tensor(shape=(2,))}
    assert np.array_equal(derived.evaluation.inputs["table"], ROWS.inputs["x"][1::2])
    assert np.array_equal(derived.calibration.targets, ROWS.targets[::2])


class Difference(torch.nn.Module):
    """Takes two inputs, of which the order matters."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Returns a value."""
        return first - second


def test_arrays_go_to_the_arguments_of_their_name(tmp_path: Path) -> None:
    with quiet():
        torch.jit.script(Difference().eval()).save(tmp_path / "difference.pt")  # type: ignore[no-untyped-call]
    x = ROWS.inputs["x"]
    np.savez(tmp_path / "rows.npz", second=x[:, 1], first=x[:, 0], target=x[:, 0] - x[:, 1])
    derived = derive(tmp_path / "difference.pt", tmp_path / "rows.npz", Regression())
    assert list(derived.inputs.items()) == [("first", Number()), ("second", Number())]


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ("rows.xlsx", {}, "rows are read from .npz, .csv, .parquet"),
        ("gone.csv", {}, "gone.csv cannot be read"),
        ("rows.csv", {}, "has no 'target'; it has length"),
        (
            "rows.csv",
            {"target": "answer", "task": Classification(labels=["a", "b"])},
            "the target 'no', which is none",
        ),
        ("rows.csv", {"target": "answer", "task": Regression()}, "the target is of object"),
    ],
)
def test_rows_that_do_not_fit_are_refused(files: Path, rows: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(RolloutError, match=words):
        derive(files / "model.onnx", files / rows, **({"task": TASK} | options))


def test_arrays_of_different_lengths_are_refused(files: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=ROWS.inputs["x"][:5], target=ROWS.targets)
    with pytest.raises(RolloutError, match="the arrays have 5, 900 rows"):
        derive(files / "model.onnx", tmp_path / "rows.npz", TASK)


def test_rows_that_are_too_few_are_said(files: Path) -> None:
    few = files / "few.npz"
    for rows in (0, 1, 2):
        np.savez(few, x=ROWS.inputs["x"][:rows], target=ROWS.targets[:rows])
        with pytest.raises(ConfigError, match="3 at least calibrate and evaluate"):
            derive(files / "model.onnx", few, TASK)
