"""Pipelines over columns of texts and numbers, some missing, answer as graphs what they answer in Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from rollout import Category, Classification, Labelled, Number, RolloutError, Table
from rollout.bundle.artefact import open_source
from rollout.bundle.estimators import as_identifier
from rollout.bundle.fields import Field
from rollout.bundle.schema import Arrays
from rollout.training.importing import derive
from tests.bundle.two import pack_two

RISKY = Classification(labels=["no", "yes"], risk=0.2)
COLUMNS = ["distance (km)", "port", "weather"]
PORTS, WEATHERS = ("EWR", "JFK", "LGA"), ("dry", "wet")


def rows_of(rows: int, seed: int) -> tuple[pd.DataFrame, Any]:
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            COLUMNS[0]: np.where(generator.random(rows) < 0.1, np.nan, generator.uniform(0, 10, rows)),
            COLUMNS[1]: generator.choice(PORTS, rows),
            COLUMNS[2]: pd.Series(generator.choice(np.array([None, *WEATHERS], object), rows)),
        }
    )
    late = (frame.port == "JFK") ^ (frame[COLUMNS[0]].fillna(3) > 5) ^ (frame.weather == "wet")
    return frame, late.to_numpy(int)


TRAIN, TARGETS = rows_of(500, 0)
SINGLE: dict[str, Field] = {
    "distance_km": Number(optional=True),
    "port": Category(values=(*PORTS, "SFO")),
    "weather": Category(values=WEATHERS, optional=True),
}
WHOLE: dict[str, Field] = {"flight": Table.of(TRAIN)}
FIELDS = {"fields in another order": dict(reversed(SINGLE.items())), "a table": WHOLE}


def encoded(fields: dict[str, Field], frame: pd.DataFrame) -> Arrays:
    if fields is WHOLE:
        return {"flight": WHOLE["flight"].encode(frame)}
    columns = {as_identifier(name): frame[name] for name in frame}
    return {name: field.encode(columns[name]) for name, field in fields.items()}


def parts_of(fields: dict[str, Field]) -> dict[str, Labelled]:
    given = {"calibration": rows_of(300, 1), "evaluation": rows_of(300, 2)}
    return {name: Labelled(encoded(fields, frame), targets) for name, (frame, targets) in given.items()}


def fitted(texts: Any, last: Any, numbers: Any = "passthrough") -> Any:
    columns = ColumnTransformer([("texts", texts, COLUMNS[1:]), ("numbers", numbers, COLUMNS[:1])])
    return make_pipeline(columns, last).fit(TRAIN, TARGETS)


def one_hot() -> OneHotEncoder:
    return OneHotEncoder(handle_unknown="ignore", sparse_output=False)


PIPELINES: dict[str, Callable[[], Any]] = {
    "linear": lambda: fitted(one_hot(), LogisticRegression(), SimpleImputer()),
    "xgboost": lambda: fitted(
        make_pipeline(SimpleImputer(strategy="most_frequent"), one_hot()), xgboost.XGBClassifier(n_estimators=10)
    ),
    "lightgbm": lambda: fitted(
        make_pipeline(SimpleImputer(strategy="constant", fill_value="?"), OrdinalEncoder()),
        lightgbm.LGBMClassifier(n_estimators=10, verbose=-1),
    ),
    "histograms": lambda: fitted(TargetEncoder(cv=KFold(3)), HistGradientBoostingClassifier(max_iter=10)),
}


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("kind", PIPELINES)
def test_a_pipeline_answers_as_its_own_predict_on_texts_and_missing_values(kind: str, fields: str) -> None:
    pipeline = PIPELINES[kind]()
    source = open_source(pipeline, RISKY, FIELDS[fields], parts_of(FIELDS[fields]), 0.0)
    assert source.origin["compared"] == pytest.approx(
        {"rows": 600, "other answers": 0, "largest difference": 0}, abs=1e-5
    )
    frame, _ = rows_of(200, 9)
    given = encoded(FIELDS[fields], frame)
    assert source.run(given) == pytest.approx(pipeline.predict_proba(frame), abs=1e-5)


def test_a_text_that_training_never_saw_is_what_the_encoder_makes_of_it() -> None:
    pipeline = PIPELINES["linear"]()
    source = open_source(pipeline, RISKY, SINGLE, parts_of(SINGLE), 0.0)
    frame = TRAIN[:3].assign(port="SFO")
    assert source.run(encoded(SINGLE, frame)) == pytest.approx(pipeline.predict_proba(frame), abs=1e-5)


def test_a_pipeline_over_texts_alone_is_packed_without_a_column_transformer() -> None:
    fields = {name: SINGLE[name] for name in ("port", "weather")}
    pipeline = make_pipeline(one_hot(), LogisticRegression()).fit(TRAIN[COLUMNS[1:]], TARGETS)
    parts = {
        name: Labelled({field: part.inputs[field] for field in fields}, part.targets)
        for name, part in parts_of(SINGLE).items()
    }
    changes: dict[str, Any] = {"artefact": pipeline, "task": RISKY, "inputs": fields, **parts}
    manifest = pack_two("texts", **changes)
    assert "onnx" in manifest.variants
    assert manifest.lineage["artefact"]["compared"]["other answers"] == 0


def test_columns_are_those_of_the_fit_or_refused() -> None:
    pipeline = PIPELINES["linear"]()
    other: dict[str, Field] = {"flight": Table.of(TRAIN[COLUMNS[::-1]])}
    parts = {
        name: Labelled({"flight": np.zeros((300, 3), np.float32)}, part.targets)
        for name, part in parts_of(WHOLE).items()
    }
    with pytest.raises(RolloutError, match=r"the table has weather, port, distance \(km\): declare them in that"):
        open_source(pipeline, RISKY, other, parts, 0.0)


def test_an_encoder_that_its_converter_gets_wrong_is_refused_with_its_rows() -> None:
    # A missing text is NaN behind this encoder, and the converter gives it a number.
    wrong = fitted(OrdinalEncoder(), HistGradientBoostingClassifier(max_iter=10))
    with pytest.raises(RolloutError, match=r"answers \d+ of 600 rows otherwise than in Python"):
        open_source(wrong, RISKY, SINGLE, parts_of(SINGLE), 0.002)


def test_a_booster_in_a_pipeline_whose_zeros_are_missing_is_told_how_to_be_asked() -> None:
    sparse = OneHotEncoder(handle_unknown="ignore")
    pipeline = make_pipeline(
        ColumnTransformer(
            [("texts", sparse, COLUMNS[1:]), ("numbers", "passthrough", COLUMNS[:1])], sparse_threshold=1
        ),
        xgboost.XGBClassifier(n_estimators=10),
    ).fit(TRAIN, TARGETS)
    with pytest.raises(RolloutError, match="sparse_output=False"):
        open_source(pipeline, RISKY, SINGLE, parts_of(SINGLE), 0.002)


def test_import_derives_categories_from_the_rows_and_from_the_encoders(tmp_path: Path) -> None:
    joblib.dump(PIPELINES["linear"](), tmp_path / "pipeline.joblib")
    frame, targets = rows_of(40, 3)
    frame[frame.port != "LGA"].assign(target=targets[frame.port != "LGA"]).to_csv(
        tmp_path / "rows.csv", index=False
    )
    derived = derive(tmp_path / "pipeline.joblib", tmp_path / "rows.csv", RISKY, trust_pickle=True)
    assert derived.inputs == {
        "distance_km": Number(optional=True),
        "port": Category(values=PORTS),
        "weather": Category(values=WEATHERS, optional=True),
    }
    assert np.isnan(derived.evaluation.inputs["distance_km"]).any()
