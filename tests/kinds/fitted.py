"""What is no module: boosted trees, and a pipeline over texts and numbers, fitted on rows with missing values."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import xgboost
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

Rows = list[dict[str, Any]]


def frame_of(rows: Rows) -> pd.DataFrame:
    """Returns raw rows as training code has them: numbers in single precision, NaN where one is missing."""
    frame = pd.DataFrame(rows)
    texts = [name for name in frame if frame[name].map(lambda value: isinstance(value, str)).any()]
    return frame.astype(dict.fromkeys(frame.columns.difference(texts), np.float32))


def _classes(frame: pd.DataFrame) -> NDArray[np.int64]:
    """Returns what is to be learnt: 0, 1 or 2, by the distance, its absence and the weight."""
    far = frame.distance.fillna(4500) > 2500
    return np.asarray(far.astype(int) + (frame.weight.fillna(0) > 150).astype(int))


def boosted(rows: Rows) -> Any:
    """XGBoost."""
    frame = frame_of(rows)
    return xgboost.XGBClassifier(n_estimators=8, max_depth=3).fit(frame, _classes(frame))


def boosted_value(rows: Rows) -> Any:
    """LightGBM, for a number."""
    frame = frame_of(rows)
    wanted = frame.distance.fillna(1000) / 100 + frame.weight.fillna(100)
    return lightgbm.LGBMRegressor(n_estimators=20, verbose=-1).fit(frame, wanted)


def histograms(rows: Rows) -> Any:
    """scikit-learn's own boosted trees."""
    frame = frame_of(rows)
    return HistGradientBoostingClassifier(max_iter=8).fit(frame, _classes(frame))


def pipeline(rows: Rows) -> Any:
    """Texts and numbers, each in its own way, and LightGBM behind them."""
    frame = frame_of(rows)
    airports = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder(handle_unknown="ignore")
    )
    columns = ColumnTransformer([("airport", airports, ["airport"])], remainder="passthrough")
    classes = (_classes(frame) + (frame.airport == "JFK")) % 3
    return make_pipeline(columns, lightgbm.LGBMClassifier(n_estimators=8, verbose=-1)).fit(frame, classes)
