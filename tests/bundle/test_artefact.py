"""What was trained elsewhere is packed, and the bundle answers as the original does; what cannot be is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import onnx
import pandas as pd
import pytest
import torch
import xgboost
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rollout import (
    Answered,
    Category,
    Classification,
    Labelled,
    Number,
    Reference,
    Regression,
    RolloutError,
    Tensor,
)
from rollout.bundle.artefact import open_source
from rollout.bundle.onnx_graph import SMALLEST
from rollout.bundle.quiet import quiet
from rollout.bundle.schema import Arrays
from rollout.bundle.store import bundle_exists, open_bundle
from rollout.bundle.verify import load_variant, verify_bundle
from tests.bundle.two import TASK, Linear, Two, pack_two, part

RISKY = Classification(labels=["no", "yes"], risk=0.2)
SHAPES = ({0: torch.export.Dim("rows")},)
EXAMPLE = (torch.zeros(2, 2),)
TRAIN = part(800, 7)
NAMES = ["first (cm)", "second"]
MISSING = np.random.default_rng(5).random((1500, 2)) < 0.1


def with_holes(rows: Labelled) -> Labelled:
    x = np.where(MISSING[: len(rows.targets)], np.nan, rows.inputs["x"]).astype(np.float32)
    return Labelled({"x": x}, rows.targets)


HOLES = with_holes(TRAIN).inputs["x"]
PARTS = {"calibration": with_holes(part(500, 1)), "evaluation": with_holes(part(100, 2))}
WHOLE = {"calibration": part(500, 1), "evaluation": part(100, 2)}


def as_columns(parts: dict[str, Labelled]) -> dict[str, Labelled]:
    """The same rows in named columns, in another order than that of the fit."""
    return {
        name: Labelled({"second": rows.inputs["x"][:, 1], "first_cm": rows.inputs["x"][:, 0]}, rows.targets)
        for name, rows in parts.items()
    }


COLUMNS = {"inputs": {"second": Number(), "first_cm": Number()}}
FRAME = pd.DataFrame(HOLES, columns=NAMES)


def graph(nodes: list[onnx.NodeProto], outputs: list[Any], rows: Any = "n", **weights: Any) -> onnx.ModelProto:
    """A model in ONNX that takes ``in.put`` of two numbers a row."""
    taken = helper.make_tensor_value_info("in.put", TensorProto.DOUBLE, [rows, 2])
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    made = helper.make_graph(nodes, "made", [taken], outputs, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def answers(name: str, kind: int = TensorProto.DOUBLE, columns: int = 2) -> Any:
    return helper.make_tensor_value_info(name, kind, ["n", columns])


WEIGHT = np.array([[-3.0, 3.0], [-3.0, 3.0]])
LOGITS = helper.make_node("MatMul", ["in.put", "w"], ["logits"])


def softmax(x: NDArray[Any]) -> NDArray[Any]:
    parts: NDArray[Any] = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(parts / parts.sum(-1, keepdims=True))


def save_torch(path: Path) -> Path:
    """Writes a module as the file that the path's suffix names."""
    module = Linear().eval()
    with quiet():
        if path.suffix == ".pt":
            traced = torch.jit.trace(module, EXAMPLE)  # type: ignore[no-untyped-call]
            kept = torch.jit.script(module) if path.stem == "script" else traced
            (torch.jit.freeze(kept) if path.stem == "frozen" else kept).save(str(path))
        elif path.suffix == ".pt2":
            torch.export.save(torch.export.export(module, EXAMPLE, dynamic_shapes=SHAPES), path)
        else:
            torch.onnx.export(module, EXAMPLE, str(path), dynamic_shapes=SHAPES, dynamo=True, verbose=False)
    return path


def expected_of_module(x: NDArray[Any]) -> NDArray[Any]:
    with torch.inference_mode():
        return softmax(Linear().eval()(torch.from_numpy(x)).numpy())


def packed_scores(tag: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """What each variant of a bundle answers, with the temperature taken out again."""
    folder, manifest = open_bundle(tag)
    verify_bundle(folder, manifest)
    task = manifest.task
    scores = {name: load_variant(folder, manifest, name).run(inputs) for name in manifest.variants}
    if not isinstance(task, Classification):
        return {name: each[:, 0] for name, each in scores.items()}
    return {name: softmax(np.log(each + 1e-30) * task.temperature) for name, each in scores.items()}


@pytest.mark.parametrize(
    ("file", "variants"),
    [
        ("traced.onnx", {"onnx", "onnx-int8"}),
        ("script.pt", {"onnx", "onnx-int8", "torchscript"}),
        ("frozen.pt", {"onnx", "onnx-int8", "torchscript"}),
        ("program.pt2", {"onnx", "onnx-int8", "torchscript", "export"}),
    ],
)
def test_a_file_of_pytorch_answers_as_the_module_does(tmp_path: Path, file: str, variants: set[str]) -> None:
    version = file.replace(".", "-")
    manifest = pack_two(version, artefact=save_torch(tmp_path / file))
    assert set(manifest.variants) == variants
    assert all(outcome.why.startswith("it cannot be made: ") for outcome in manifest.left_out.values())
    assert manifest.lineage["artefact"]["file"] == file
    assert len(manifest.lineage["artefact"]["sha256"]) == 64
    x = part(50, 9).inputs["x"]
    scores = packed_scores(f"two:{version}", {"x": x})
    assert (scores.pop("onnx-int8").argmax(1) == expected_of_module(x).argmax(1)).mean() > 0.9
    for name, each in scores.items():
        assert each == pytest.approx(expected_of_module(x), abs=1e-4), name


def fitted_on_names() -> Any:
    by_name = ColumnTransformer(
        [
            ("one", SimpleImputer(), ["second"]),
            ("other", make_pipeline(SimpleImputer(), StandardScaler()), NAMES[:1]),
        ]
    )
    return make_pipeline(by_name, LogisticRegression()).fit(FRAME, TRAIN.targets)


def saved_booster(path: Path) -> Path:
    if path.suffix == ".txt":
        data = lightgbm.Dataset(HOLES, TRAIN.targets)
        lightgbm.train({"objective": "binary", "verbose": -1}, data, 20).save_model(path)
    else:
        booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(HOLES, TRAIN.targets), 20)
        booster.save_model(path)
    return path


ESTIMATORS: dict[str, Callable[[], Any]] = {
    "pipeline": lambda: make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(
        HOLES, TRAIN.targets
    ),
    "forest": lambda: make_pipeline(SimpleImputer(), RandomForestClassifier(20, random_state=0)).fit(
        HOLES, TRAIN.targets
    ),
    "histograms": lambda: HistGradientBoostingClassifier(max_iter=20).fit(HOLES, TRAIN.targets),
    "xgboost": lambda: xgboost.XGBClassifier(n_estimators=20).fit(HOLES, TRAIN.targets),
    "lightgbm": lambda: lightgbm.LGBMClassifier(n_estimators=20, verbose=-1).fit(HOLES, TRAIN.targets),
}


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_an_estimator_answers_as_its_own_predict_with_missing_values_too(kind: str) -> None:
    estimator = ESTIMATORS[kind]()
    changes: dict[str, Any] = {"artefact": estimator, "task": RISKY, **PARTS}
    manifest = pack_two(kind, **changes)
    assert "onnx" in manifest.variants
    assert manifest.lineage["artefact"]["compared"]["rows"] == 600
    x = with_holes(part(300, 9)).inputs["x"]
    expected = np.clip(estimator.predict_proba(x), SMALLEST, 1)
    assert packed_scores(f"two:{kind}", {"x": x})["onnx"] == pytest.approx(expected, abs=1e-4)


def test_an_estimator_is_held_to_a_reference_that_answers_with_its_probabilities() -> None:
    estimator = plain()
    rows: list[dict[str, Any]] = [{"x": x.tolist()} for x in part(20, 9).inputs["x"]]

    def answer(raw: Mapping[str, Any]) -> Answered:
        return Answered(estimator.predict_proba([raw["x"]])[0], {"x": raw["x"]})

    manifest = pack_two("held-estimator", artefact=estimator, task=RISKY, reference=Reference(rows, answer))
    assert manifest.reference is not None
    assert manifest.reference.flipped == 0
    assert manifest.reference.largest_difference < 1e-4

    def with_a_layer(raw: Mapping[str, Any]) -> Answered:
        return Answered(answer(raw).outputs, {"scaler": raw["x"]})

    with pytest.raises(RolloutError, match=r"'scaler', which is neither a field .* such as none here"):
        pack_two("refused", artefact=estimator, task=RISKY, reference=Reference(rows, with_a_layer))


@pytest.mark.parametrize(
    "kind", [fitted_on_names, lambda: xgboost.XGBClassifier(n_estimators=20).fit(FRAME, TRAIN.targets)]
)
def test_columns_are_found_by_name_in_any_order(kind: Callable[[], Any]) -> None:
    estimator = kind()
    parts = as_columns(PARTS)
    source = open_source(estimator, TASK, COLUMNS["inputs"], parts, 0.002)
    inputs = parts["evaluation"].inputs
    expected = estimator.predict_proba(pd.DataFrame(PARTS["evaluation"].inputs["x"], columns=NAMES))
    assert source.run(inputs) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("file", ["model.json", "model.ubj", "model.txt"])
def test_boosters_are_read_from_their_own_formats(tmp_path: Path, file: str) -> None:
    source = open_source(saved_booster(tmp_path / file), TASK, {"x": Tensor(shape=(2,))}, PARTS, 0.002)
    assert source.origin["compared"]["other answers"] == 0
    assert source.origin["file"] == file


def test_a_regression_gives_the_value_and_an_interval() -> None:
    def sums(rows: int, seed: int) -> Labelled:
        x = part(rows, seed).inputs["x"]
        return Labelled({"x": x}, x.sum(1) + np.random.default_rng(seed).normal(size=rows))

    learnt = sums(300, 3)
    line = LinearRegression().fit(learnt.inputs["x"], learnt.targets)
    pack_two("line", artefact=line, task=Regression(), calibration=sums(500, 1), evaluation=sums(300, 2))
    x = part(50, 9).inputs["x"]
    assert packed_scores("two:line", {"x": x})["onnx"] == pytest.approx(line.predict(x), abs=1e-4)
    assert open_bundle("two:line")[1].metrics["coverage"] == pytest.approx(0.9, abs=0.06)


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        ([LOGITS], [answers("logits")]),
        ([LOGITS, helper.make_node("Softmax", ["logits"], ["p"])], [answers("p")]),
        (
            [
                LOGITS,
                helper.make_node("Softmax", ["logits"], ["p"]),
                helper.make_node("Mul", ["p", "one"], ["same"]),
                helper.make_node("ArgMax", ["same"], ["label"], axis=1),
            ],
            [answers("label", TensorProto.INT64, 1), answers("same")],
        ),
        (
            [
                LOGITS,
                helper.make_node("Split", ["logits"], ["no", "yes"], axis=1),
                helper.make_node("Sub", ["yes", "no"], ["margin"]),
                helper.make_node("Sigmoid", ["margin"], ["p"]),
            ],
            [answers("p", columns=1)],
        ),
    ],
)
def test_an_onnx_graph_may_end_in_logits_or_in_probabilities(nodes: list[Any], outputs: list[Any]) -> None:
    model = graph(nodes, outputs, w=WEIGHT, one=np.array(1.0))
    source = open_source(model, TASK, {"x": Tensor(shape=(2,))}, WHOLE, 0.0)
    x = WHOLE["evaluation"].inputs["x"]
    assert source.run({"x": x}) == pytest.approx(softmax(x.astype(float) @ WEIGHT), abs=1e-4)


def test_a_dictionary_of_classes_at_the_end_is_taken_apart_and_its_classes_are_the_labels() -> None:
    zipped = helper.make_node(
        "ZipMap", ["logits"], ["said"], domain="ai.onnx.ml", classlabels_strings=["yes", "no"]
    )
    said = helper.make_value_info(
        "said",
        helper.make_sequence_type_proto(
            helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        ),
    )
    model = graph([LOGITS, zipped], [said], w=WEIGHT)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    x = WHOLE["evaluation"].inputs["x"]
    source = open_source(model, TASK, {"x": Tensor(shape=(2,))}, WHOLE, 0.0)
    assert source.run({"x": x})[:, ::-1] == pytest.approx(softmax(x.astype(float) @ WEIGHT), abs=1e-4)
    other = Classification(labels=["no", "perhaps"])
    with pytest.raises(RolloutError, match="its classes are yes, no and the labels of the task are no, perhaps"):
        open_source(model, other, {"x": Tensor(shape=(2,))}, WHOLE, 0.0)


def otherwise() -> Any:
    fitted = LogisticRegression().fit(TRAIN.inputs["x"], TRAIN.targets)
    fitted.predict_proba = lambda x: LogisticRegression.predict_proba(fitted, x) + np.array([-0.01, 0.01])
    return fitted


def plain() -> Any:
    return LogisticRegression().fit(TRAIN.inputs["x"], TRAIN.targets)


def three_columns() -> dict[str, Labelled]:
    return {
        name: Labelled({"a": rows.inputs["x"][:, 0], "b": rows.inputs["x"]}, rows.targets)
        for name, rows in WHOLE.items()
    }


NOISE = helper.make_node("RandomUniformLike", ["logits"], ["noise"])
COMPANY = [
    LOGITS,
    helper.make_node("ReduceMax", ["in.put"], ["most"], axes=[0], keepdims=1),
    helper.make_node("Mul", ["most", "little"], ["more"]),
    helper.make_node("Add", ["logits", "more"], ["mixed"]),
]


@pytest.mark.parametrize(
    ("artefact", "changes", "words"),
    [
        (dict, {}, "dict is nothing that can be packed; that is ONNX, TorchScript, torch.export"),
        (None, {}, "pack takes either a module or an artefact"),
        (lambda: "nowhere.onnx", {}, "nowhere.onnx is no file"),
        (
            lambda: graph([LOGITS], [answers("logits")], rows=1, w=WEIGHT),
            {},
            "takes 1 row and no other number: export it with a dynamic first dimension",
        ),
        (
            lambda: torch.export.export(Linear().eval(), EXAMPLE),
            {},
            "the program takes 2 rows of x and no other number: export it with a dynamic first dimension",
        ),
        (
            lambda: graph([LOGITS], [answers("logits")], w=WEIGHT),
            {"inputs": {"a": Number(), "b": Tensor(shape=(2,))}, **three_columns()},
            "the fields have 3 numbers a row together; the graph's in.put takes rows of",
        ),
        (
            lambda: graph([LOGITS, NOISE], [answers("noise")], w=WEIGHT),
            {},
            "the graph gives different answers to the same input",
        ),
        (
            lambda: graph(COMPANY, [answers("mixed")], w=WEIGHT, little=np.array(0.01)),
            {},
            "the graph answers for a row according to the rest of its batch",
        ),
        (
            lambda: graph(
                [LOGITS, helper.make_node("Exp", ["logits"], ["e"])], [answers("logits"), answers("e")], w=WEIGHT
            ),
            {},
            "the outputs logits, e, of which 2 hold numbers",
        ),
        (
            lambda: graph([LOGITS], [answers("logits")], w=WEIGHT),
            {"task": Classification(labels=["a", "b", "c"])},
            r"gives outputs of shape \(600, 2\) for 600 rows; 3 labels need",
        ),
        (lambda: torch.jit.script(Two()), {}, "is in training mode"),
        (otherwise, {}, r"answers 600 of 600 rows otherwise than in Python .*calibration row 0: .* became"),
        (
            lambda: RidgeClassifier().fit(TRAIN.inputs["x"], TRAIN.targets),
            {},
            "RidgeClassifier gives no probabilities",
        ),
        (
            lambda: LogisticRegression().fit(TRAIN.inputs["x"][:, :1], TRAIN.targets),
            {},
            "was fitted on 1 columns; the fields have 2 numbers a row",
        ),
        (
            fitted_on_names,
            {
                "inputs": {"second": Number(), "third": Number()},
                **{
                    name: Labelled(
                        {"second": rows.inputs["x"][:, 1], "third": rows.inputs["x"][:, 0]}, rows.targets
                    )
                    for name, rows in PARTS.items()
                },
            },
            "was fitted on the columns first_cm, second; the fields are second, third",
        ),
    ],
)
def test_what_cannot_be_trusted_is_refused(
    artefact: Callable[[], Any] | None, changes: dict[str, Any], words: str
) -> None:
    with quiet():
        thing = None if artefact is None else artefact()
    with pytest.raises(RolloutError, match=words):
        pack_two("refused", artefact=thing, **changes)
    assert not bundle_exists("two:refused")


def test_a_category_is_no_column_of_a_booster() -> None:
    color = Category(values=("red", "blue"))
    parts = {
        name: Labelled({"x": color.encode(["red"] * len(rows.targets))}, rows.targets)
        for name, rows in WHOLE.items()
    }
    with pytest.raises(
        RolloutError, match="takes a table of numbers, and the field x has none: declare a Number"
    ):
        open_source(ESTIMATORS["lightgbm"](), TASK, {"x": color}, parts, 0.0)


def test_a_pickle_is_read_only_by_whoever_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(plain(), path)
    with pytest.raises(RolloutError, match="is a pickle, and reading one runs whatever code is in it"):
        pack_two("pickled", artefact=path)
    assert "onnx" in pack_two("pickled", artefact=path, trust_pickle=True, task=RISKY).variants


def test_weights_of_onnx_are_read_from_its_own_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    model = graph([LOGITS], [answers("logits")], w=WEIGHT)
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    fields = {"x": Tensor(shape=(2,))}
    open_source(folder / "m.onnx", TASK, fields, WHOLE, 0.0)
    (folder / "m.data").rename(tmp_path / "m.data")
    kept = onnx.load(folder / "m.onnx", load_external_data=False)
    for entry in kept.graph.initializer[0].external_data:
        entry.value = "../m.data" if entry.key == "location" else entry.value
    (folder / "m.onnx").write_bytes(kept.SerializeToString())
    with pytest.raises(RolloutError, match="cannot be read as ONNX"):
        open_source(folder / "m.onnx", TASK, fields, WHOLE, 0.0)


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path) -> None:
    for suffix in ("onnx", "pt", "pt2", "json", "txt"):
        path = tmp_path / f"model.{suffix}"
        path.write_bytes(b"nothing of the sort")
        with pytest.raises(RolloutError, match=f"model.{suffix} cannot be read as "):
            open_source(path, TASK, {"x": Tensor(shape=(2,))}, WHOLE, 0.0)
    (tmp_path / "model.h5").touch()
    with pytest.raises(RolloutError, match=r"the name of an artefact ends in one of .onnx \(ONNX\); .pt"):
        open_source(tmp_path / "model.h5", TASK, {"x": Tensor(shape=(2,))}, WHOLE, 0.0)
