"""Fitted estimators as ONNX graphs, each compared with its own predictions. One class a kind."""

from __future__ import annotations

import copy
import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import onnx
import scipy.special
from numpy.typing import NDArray

from rollout.bundle.fields import Field
from rollout.bundle.fitted_columns import Values, is_columns, read_columns, text_columns
from rollout.bundle.module import first_line
from rollout.bundle.onnx_graph import MISSING_TEXT
from rollout.bundle.onnx_source import OnnxSource, order_of_labels
from rollout.bundle.parity import run_in_batches
from rollout.bundle.quiet import quiet
from rollout.bundle.schema import Labelled
from rollout.bundle.table import Table as RowTable
from rollout.errors import BundleError
from rollout.heads import Head

# Trees compare in double precision there and in single precision here: where a value lies on a threshold, a row
# falls to the other side, and everything else agrees far better than this. A probability, or a value in units of
# the standard deviation of the targets. Two classes that are closer are a tie, as forests have them.
APART = 1e-3
WORST_ROWS = 5
TABLE = "table"
# What converts the boosters of a package where they are part of a pipeline.
CONVERTERS = {
    "xgboost": ("onnxmltools.convert.xgboost.operator_converters.XGBoost", "convert_xgboost"),
    "lightgbm": ("onnxmltools.convert.lightgbm.operator_converters.LightGbm", "convert_lightgbm"),
}

Table = NDArray[np.float32]
Columns = Sequence[NDArray[Any]]


class Estimator(ABC):
    """A fitted model in Python that takes a table and is converted to ONNX.

    Args:
        fitted: The model.

    Attributes:
        called: What it is, in words.
        columns: How many columns the table has.
        names: The columns as it was fitted on them, in that order; ``None`` if they had no names.
        classes: What it calls its classes, in the order of its columns; ``None`` if it does not say.
    """

    called: ClassVar[str]
    takes_texts: ClassVar[bool] = False

    def __init__(self, fitted: Any) -> None:
        self.fitted = fitted
        self.columns: int | None = getattr(fitted, "n_features_in_", None)
        self.names = _real_names(getattr(fitted, "feature_names_in_", None))
        classes = getattr(fitted, "classes_", None)
        self.classes: list[Any] | None = None if classes is None else np.asarray(classes).tolist()

    @abstractmethod
    def convert(self, task: Head, texts: Sequence[bool]) -> onnx.ModelProto:
        """Returns it as a graph whose inputs are one table, or its columns one by one.

        Args:
            task: What it answers.
            texts: Of each column whether it is a text.

        Raises:
            Exception: Whatever the converter raises on what it does not know.
        """

    def predict(self, columns: Columns, task: Head) -> NDArray[Any]:
        """Returns its own predictions: probabilities, shape ``(rows, classes)``, or values, shape ``(rows,)``."""
        rows = np.stack(columns, axis=1) if self.names is None else _data_frame(columns, self.names)
        if task.classes:
            return np.asarray(self.fitted.predict_proba(rows))
        return np.asarray(self.fitted.predict(rows))

    @property
    def advice(self) -> str:
        """What may be why its graph answers otherwise, if there is something known."""
        return ""

    def known_texts(self) -> dict[str, list[str]]:
        """Returns by the names of columns the texts that it was fitted on, where it says so."""
        return {}

    def require(self, task: Head) -> None:
        """Refuses an estimator that cannot do what a task asks for.

        Raises:
            BundleError: If it gives no probabilities.
        """
        if task.classes and not hasattr(self.fitted, "predict_proba"):
            raise BundleError(
                f"{type(self.fitted).__name__} gives no probabilities: fit it inside a CalibratedClassifierCV"
            )


class Sklearn(Estimator):
    """An estimator or a pipeline of scikit-learn, by skl2onnx."""

    called = "a scikit-learn estimator"
    takes_texts = True

    def convert(self, task: Head, texts: Sequence[bool]) -> onnx.ModelProto:
        """Converts it; a ``ColumnTransformer`` may ask for columns by name, and then gets them one by one."""
        from skl2onnx import get_latest_tested_opset_version, to_onnx  # noqa: PLC0415
        from skl2onnx.common.data_types import FloatTensorType, StringTensorType  # noqa: PLC0415

        _teach_boosters(self.fitted)
        kinds = [StringTensorType if is_text else FloatTensorType for is_text in texts]
        names = self.names or [f"column {index}" for index in range(len(texts))]
        one_by_one = self.names is not None and any(
            hasattr(part, "transformers_") for part in _parts(self.fitted)
        )
        if one_by_one or len(set(kinds)) > 1:
            types = [(name, kind([None, 1])) for name, kind in zip(names, kinds, strict=True)]
        else:
            types = [(TABLE, kinds[0]([None, len(kinds)]))]
        options = {"zipmap": False} if task.classes else None
        model: onnx.ModelProto = to_onnx(
            _convertible(self.fitted),
            initial_types=types,
            options=options,
            # onnxmltools makes boosters of the third, skl2onnx would make the rest of a pipeline of a later one.
            target_opset={"": get_latest_tested_opset_version(), "ai.onnx.ml": 3},
        )
        return model

    @property
    def advice(self) -> str:
        """What XGBoost makes of a sparse matrix."""
        parts = list(_parts(self.fitted))
        if any(hasattr(part, "get_booster") for part in parts) and any(
            getattr(part, "sparse_output", False) for part in parts
        ):
            return (
                "; XGBoost takes the zeros of a sparse matrix as missing, which no graph does: fit the pipeline "
                "with OneHotEncoder(sparse_output=False)"
            )
        return ""

    def known_texts(self) -> dict[str, list[str]]:
        """Returns the categories of the encoders in a ``ColumnTransformer``."""
        return {
            str(column): [text for text in categories if isinstance(text, str)]
            for part in _parts(self.fitted)
            for _, inside, columns in getattr(part, "transformers_", ())
            for step in (inside.named_steps.values() if hasattr(inside, "named_steps") else [inside])
            for column, categories in zip(columns, getattr(step, "categories_", ()), strict=False)
        }


class Boosted(Estimator):
    """A booster, or the wrapper that has one and looks like an estimator of scikit-learn."""

    @property
    @abstractmethod
    def booster(self) -> Any:
        """The booster."""

    @abstractmethod
    def ask(self, table: Table) -> NDArray[Any]:
        """Returns what the booster itself says: values, or probabilities of the second class or of all."""

    def require(self, task: Head) -> None:
        """Leaves it to the comparison: a booster does not say what it predicts."""

    def predict(self, columns: Columns, task: Head) -> NDArray[Any]:
        """Returns its own predictions."""
        if self.fitted is not self.booster:
            return super().predict(columns, task)
        said = self.ask(np.stack(columns, axis=1))
        if task.classes and said.ndim == 1:
            return np.stack([1 - said, said], axis=1)
        return said


class Xgboost(Boosted):
    """A model of XGBoost, by onnxmltools."""

    called = "an XGBoost model"

    def __init__(self, fitted: Any) -> None:
        super().__init__(fitted)
        self.columns = self.booster.num_features()
        self.names = _real_names(self.booster.feature_names)

    @property
    def booster(self) -> Any:
        """The booster."""
        return self.fitted.get_booster() if hasattr(self.fitted, "get_booster") else self.fitted

    def ask(self, table: Table) -> NDArray[Any]:
        """Asks it; of several classes ``multi:softmax`` would name the first, so margins become probabilities."""
        import xgboost  # noqa: PLC0415

        rows = xgboost.DMatrix(table, feature_names=self.names)
        margins = np.asarray(self.booster.predict(rows, output_margin=True))
        return scipy.special.softmax(margins, -1) if margins.ndim == 2 else np.asarray(self.booster.predict(rows))

    def convert(self, task: Head, texts: Sequence[bool]) -> onnx.ModelProto:
        """Converts a copy, without the names of the columns, which the converter does not take."""
        from onnxmltools import convert_xgboost  # noqa: PLC0415
        from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415

        booster = self.booster.copy()
        if self.fitted is not self.booster and (best := booster.attr("best_iteration")) is not None:
            booster = booster[: int(best) + 1]  # the wrapper leaves out what came after, the booster does not
        booster.feature_names = None
        types = [(TABLE, FloatTensorType([None, self.columns]))]
        model: onnx.ModelProto = convert_xgboost(booster, initial_types=types)
        return model


class Lightgbm(Boosted):
    """A model of LightGBM, by onnxmltools."""

    called = "a LightGBM model"

    def __init__(self, fitted: Any) -> None:
        super().__init__(fitted)
        self.columns = self.booster.num_feature()
        self.names = _real_names(self.booster.feature_name())

    @property
    def booster(self) -> Any:
        """The booster."""
        return getattr(self.fitted, "booster_", self.fitted)

    def ask(self, table: Table) -> NDArray[Any]:
        """Asks it."""
        return np.asarray(self.booster.predict(table))

    def convert(self, task: Head, texts: Sequence[bool]) -> onnx.ModelProto:
        """Converts it."""
        from onnxmltools import convert_lightgbm  # noqa: PLC0415
        from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415

        types = [(TABLE, FloatTensorType([None, self.columns]))]
        model: onnx.ModelProto = convert_lightgbm(self.booster, initial_types=types, zipmap=False)
        return model


def make_source(
    estimator: Estimator, task: Head, fields: Mapping[str, Field], parts: Mapping[str, Labelled], flip_rate: float
) -> OnnxSource:
    """Converts an estimator and compares the graph with it on the author's rows.

    Args:
        estimator: It.
        task: What it answers.
        fields: Its columns: a tensor or a table of them all, or numbers and categories that have the names of the
            columns in any order.
        parts: The rows, by the name of their part.
        flip_rate: Largest share of these rows whose answer may move by more than ``APART``.

    Raises:
        BundleError: If the fields are not its columns, it cannot be converted, or the graph answers otherwise.
    """
    fields = _in_order(estimator, fields)
    estimator.require(task)
    try:
        with quiet():
            model = estimator.convert(task, [values is not None for values in _values(fields)])
    except ImportError as error:
        raise BundleError(
            f"{estimator.called} needs {error.name} to be converted: pip install 'rollout[import]'"
        ) from error
    except Exception as error:
        raise BundleError(f"{estimator.called} cannot be converted to ONNX: {first_line(error)}") from error
    inputs = {name: np.concatenate([part.inputs[name] for part in parts.values()]) for name in fields}
    source = OnnxSource(model, task, fields, inputs, estimator.classes)
    source.called = estimator.called
    source.origin = {"compared": _compare(estimator, source, task, fields, parts, flip_rate)}
    return source


def as_identifier(name: str) -> str:
    """Returns what a field is called that stands for a column: ``sepal length (cm)`` is ``sepal_length_cm``."""
    return re.sub(r"\W+", "_", name).strip("_")


def _compare(
    estimator: Estimator,
    source: OnnxSource,
    task: Head,
    fields: Mapping[str, Field],
    parts: Mapping[str, Labelled],
    flip_rate: float,
) -> dict[str, Any]:
    """Compares the graph with the estimator; returns the figures for the lineage."""
    rows, largest = 0, 0.0
    apart: list[str] = []
    for name, part in parts.items():
        inputs = {field: part.inputs[field] for field in source.example}
        expected = _expected(estimator, read_columns(fields, inputs), source)
        got, unit = run_in_batches(source.outputs, inputs), float(np.std(part.targets)) or 1.0
        if task.classes:
            got, unit = scipy.special.softmax(got, axis=-1), 1.0
        if expected.shape != got.shape:
            raise BundleError(
                f"{estimator.called} gives {expected.shape[1]} numbers a row; the task takes {got.shape[1]}"
            )
        distance = np.nan_to_num(np.abs(expected - got).max(-1) / unit, nan=np.inf)
        rows += len(expected)
        largest = max(largest, float(distance.max(initial=0.0)))
        apart += [
            f"{name} row {row}: {_in_words(expected[row])} became {_in_words(got[row])}"
            for row in np.flatnonzero(distance > APART)
        ]
    if len(apart) > flip_rate * rows:
        raise BundleError(
            f"as a graph, {estimator.called} answers {len(apart)} of {rows} rows otherwise than in Python (by "
            f"more than {APART:g}), which is more than {flip_rate:.2%}: "
            f"{'; '.join(apart[:WORST_ROWS])}{estimator.advice}"
        )
    return {"rows": rows, "other answers": len(apart), "largest difference": largest}


def _teach_boosters(fitted: Any) -> None:
    """Tells skl2onnx how onnxmltools converts boosters, of which a pipeline may hold some."""
    from skl2onnx import update_registered_converter  # noqa: PLC0415
    from skl2onnx.common import shape_calculator as shapes  # noqa: PLC0415

    for part in _parts(fitted):
        package = type(part).__module__.partition(".")[0]
        if package not in CONVERTERS:
            continue
        module, name = CONVERTERS[package]
        is_classifier = hasattr(part, "predict_proba")
        update_registered_converter(
            type(part),
            type(part).__name__,
            shapes.calculate_linear_classifier_output_shapes
            if is_classifier
            else shapes.calculate_linear_regressor_output_shapes,
            getattr(import_module(module), name),
            options={"nocl": [True, False], "zipmap": [True, False, "columns"]} if is_classifier else None,
        )


def _expected(estimator: Estimator, columns: Columns, source: OnnxSource) -> NDArray[Any]:
    """Returns what it predicts itself: probabilities in the order of the labels, or the outputs of the head."""
    expected = estimator.predict(columns, source.task)
    if not source.task.classes:
        return source.to_outputs(expected)
    order = order_of_labels(estimator.classes, source.task)
    return expected if order is None else expected[:, order]


def _in_order(estimator: Estimator, fields: Mapping[str, Field]) -> dict[str, Field]:
    """Returns the fields in the order of the columns."""
    for name, field in fields.items():
        if not is_columns(field) or (not estimator.takes_texts and any(text_columns(field))):
            texts = ", a Category where it takes texts," if estimator.takes_texts else ""
            raise BundleError(
                f"{estimator.called} takes a table of numbers, and the field {name} has none: declare a Number "
                f"for each column,{texts} or one Tensor(shape=(columns,))"
            )
    width = len(_values(fields))
    if estimator.columns is not None and width != estimator.columns:
        raise BundleError(
            f"{estimator.called} was fitted on {estimator.columns} columns; the fields have {width} numbers a row"
        )
    if estimator.names is None:
        return dict(fields)
    if len(fields) == 1:
        (field,) = fields.values()
        if isinstance(field, RowTable) and list(field.columns) != estimator.names:
            raise BundleError(
                f"{estimator.called} was fitted on the columns {', '.join(estimator.names)}; the table has "
                f"{', '.join(field.columns)}: declare them in that order, under these names"
            )
        return dict(fields)
    names = [as_identifier(name) for name in estimator.names]
    if set(names) != set(fields):
        raise BundleError(
            f"{estimator.called} was fitted on the columns {', '.join(names)}; the fields are {', '.join(fields)}"
        )
    return {name: fields[name] for name in names}


def _values(fields: Mapping[str, Field]) -> list[Values | None]:
    return list(itertools.chain.from_iterable(map(text_columns, fields.values())))


def _real_names(names: Sequence[Any] | None) -> list[str] | None:
    """Returns names of columns, unless they are those that LightGBM makes up."""
    given = [] if names is None else [str(name) for name in names]
    return given if given and not all(re.fullmatch(r"Column_\d+", name) for name in given) else None


def _parts(fitted: Any) -> Iterator[Any]:
    """Yields an estimator and those inside of it."""
    yield fitted
    yield from fitted.get_params().values()
    for part in (fitted, *fitted.get_params().values()):
        for _, inside, *_ in getattr(part, "transformers_", ()):
            if hasattr(inside, "get_params"):
                yield from _parts(inside)


def _convertible(fitted: Any) -> Any:
    """Returns a copy that the converters take: the same estimators, told otherwise.

    Histogram trees number their nodes in uint32, which protobuf does not take. A missing text is NaN there and
    ``nan`` in a graph. A booster inside a pipeline has names of columns, which its converter does not take.
    """
    fitted = copy.deepcopy(fitted)
    for part in _parts(fitted):
        for predictor in itertools.chain.from_iterable(getattr(part, "_predictors", ())):
            fields = predictor.nodes.dtype.fields.items()
            kinds = [(name, np.int64 if kind.kind == "u" else kind) for name, (kind, *_) in fields]
            predictor.nodes = predictor.nodes.astype(kinds)
        if np.asarray(getattr(part, "statistics_", 0.0)).dtype.kind in "OU" and hasattr(part, "missing_values"):
            part.missing_values = MISSING_TEXT
        if hasattr(part, "get_booster") and part.__sklearn_is_fitted__():
            part.get_booster().feature_names = None
    return fitted


def _data_frame(columns: Columns, names: list[str]) -> Any:
    import pandas as pd  # noqa: PLC0415  who fitted it on named columns has pandas

    return pd.DataFrame(dict(zip(names, columns, strict=True)))


def _in_words(numbers: NDArray[Any]) -> str:
    return ", ".join(f"{number:.4f}" for number in numbers)
