"""Checks of the data before training: each finding is something that a person should look at."""

from __future__ import annotations

import hashlib
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import scipy.stats
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from rollout.bundle.columns import is_ragged
from rollout.bundle.evidence import Finding
from rollout.bundle.fields import Field
from rollout.bundle.numbers import Time
from rollout.bundle.schema import Arrays, Labelled
from rollout.bundle.texts import Category, Text
from rollout.heads import Head
from rollout.training.recipe import Dataset

ROWS_PER_CLASS = 30
ROWS_PER_FEATURE = 10
SHOWN_ROWS = 20
NOISE_ROWS = 5000
FOLDS = 3
SURE, UNLIKELY = 0.9, 0.05
DAY, HOUR = 86_400, 3_600


def check_data(dataset: Dataset, inputs: Mapping[str, Field], task: Head) -> list[Finding]:
    """Looks for faults in the data of a model.

    Args:
        dataset: The rows, in three parts.
        inputs: The input schema.
        task: What the targets are.

    Returns:
        One finding for each fault and place, in the order of the checks. None of them forbids training.

    Raises:
        BundleError: If a target does not fit the task.
    """
    parts = {"train": dataset.train, "calibration": dataset.calibration, "evaluation": dataset.evaluation}
    for part in parts.values():
        task.check_targets(part.targets)
    keys = {name: row_keys(part.inputs, inputs) for name, part in parts.items()}
    numeric = {
        name: _flat(dataset.train.inputs[name])
        for name, field in inputs.items()
        if not isinstance(field, Text | Category)
    }
    findings = [
        *_missing_values(parts, inputs),
        *_duplicates(keys),
        *_contradictions(parts, keys),
        *_rows_per_feature(numeric),
        *_constant_features(numeric, inputs),
    ]
    if task.classes:
        findings += _rows_per_class(dataset.train, task.classes)
        findings += _label_noise(dataset.train, inputs, task.classes)
    return findings


def row_keys(arrays: Arrays, inputs: Mapping[str, Field]) -> list[bytes]:
    """Returns a hash of the inputs of each row."""
    columns = [_bytes(arrays[name]) for name in inputs]
    return [hashlib.blake2b(b"".join(row), digest_size=16).digest() for row in zip(*columns, strict=True)]


def contradicting(keys: Sequence[bytes], targets: NDArray[Any]) -> list[int]:
    """Returns the rows that have the same inputs as another one and a different target.

    Args:
        keys: Of the inputs, see ``row_keys``.
        targets: The target of each row.
    """
    answers: dict[bytes, set[bytes]] = {}
    for key, target in zip(keys, _bytes(targets), strict=True):
        answers.setdefault(key, set()).add(target)
    return [row for row, key in enumerate(keys) if len(answers[key]) > 1]


def _bytes(column: NDArray[Any]) -> list[bytes]:
    """Returns what stands in each row; where rows differ in length, after how much it is."""
    if is_ragged(column):
        return [len(row).to_bytes(8) + row.tobytes() for row in column]
    return [row.tobytes() for row in column]


def _missing_values(parts: Mapping[str, Labelled], inputs: Mapping[str, Field]) -> Iterator[Finding]:
    for part, (arrays, _) in parts.items():
        for name, field in inputs.items():
            array = _flat(arrays[name])
            if isinstance(field, Text | Category):
                rows, what = np.flatnonzero(~array.any(1) & (field.missing is None)), "an empty text"
            else:
                fits = np.isfinite(array) | np.isnan(array) & field.may_be_nan
                rows, what = np.flatnonzero(~fits.all(1)), "NaN or infinity"
            if len(rows):
                yield Finding(
                    check="missing values",
                    where=f"{part}, {name}",
                    detail=f"{len(rows)} of {len(array)} rows of the {part} part have {what} in {name}, where "
                    "nothing may be missing.",
                    rows=_shown(rows),
                )


def _duplicates(keys: Mapping[str, list[bytes]]) -> Iterator[Finding]:
    for first, second in itertools.combinations(keys, 2):
        seen = set(keys[first])
        if rows := [row for row, key in enumerate(keys[second]) if key in seen]:
            yield Finding(
                check="duplicates",
                where=f"{first} and {second}",
                detail=f"{len(rows)} of {len(keys[second])} rows of the {second} part have the same inputs as a "
                f"row of the {first} part: figures measured on them are too good.",
                rows=_shown(rows),
            )


def _contradictions(parts: Mapping[str, Labelled], keys: Mapping[str, list[bytes]]) -> Iterator[Finding]:
    for part, (_, targets) in parts.items():
        if rows := contradicting(keys[part], targets):
            yield Finding(
                check="contradictions",
                where=part,
                detail=f"{len(rows)} rows of the {part} part have the same inputs as another one and a different "
                "target: no model can get all of them right.",
                rows=_shown(rows),
            )


def _rows_per_feature(numeric: Mapping[str, NDArray[Any]]) -> Iterator[Finding]:
    """Counts every number of a row as a feature, pixels too; the bytes of texts and categories are none."""
    features = sum(array.shape[1] for array in numeric.values())
    rows = min(map(len, numeric.values()), default=0)
    if rows < ROWS_PER_FEATURE * features:
        yield Finding(
            check="rows per feature",
            where="train",
            detail=f"{rows} training rows are fewer than {ROWS_PER_FEATURE} for each of {features} numeric "
            "features: a model that does not share weights between them will overfit.",
        )


def _constant_features(numeric: Mapping[str, NDArray[Any]], inputs: Mapping[str, Field]) -> Iterator[Finding]:
    for name, array in numeric.items():
        is_missing = np.isnan(array) & np.ravel(inputs[name].may_be_nan)
        same = (array == array[:1]) | is_missing & is_missing[:1]
        if constant := int(same.all(0).sum()):
            yield Finding(
                check="constant features",
                where=name,
                detail=f"{constant} of {array.shape[1]} features of {name} are the same in every training row: "
                "a model cannot learn what they mean.",
            )


def _rows_per_class(train: Labelled, labels: Sequence[str]) -> Iterator[Finding]:
    for label, rows in zip(labels, np.bincount(train.targets, minlength=len(labels)), strict=True):
        if rows < ROWS_PER_CLASS:
            yield Finding(
                check="rows per class",
                where=label,
                detail=f"{label} has {rows} training rows, fewer than {ROWS_PER_CLASS}: too few to learn it by.",
            )


class Mislabelled(NamedTuple):
    """Rows whose labels look wrong, the likeliest first.

    Attributes:
        rows: Their numbers.
        looked_at: How many rows were looked at.
        given: The label of each.
        likely: What each looks like.
    """

    rows: list[int]
    looked_at: int
    given: list[str]
    likely: list[str]


def mislabelled(train: Labelled, inputs: Mapping[str, Field], labels: Sequence[str]) -> Mislabelled:
    """Looks for labels that a classifier, which never saw them, is sure are wrong.

    Out-of-fold probabilities against given labels are the idea of confident learning (Northcutt, Jiang & Chuang,
    "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021); fixed limits take the place of their
    thresholds for each class, since these rows are for a person to look at, not to be removed.
    """
    rows = np.arange(len(train.targets))
    if len(rows) > NOISE_ROWS:
        rows = np.sort(np.random.default_rng(0).choice(rows, NOISE_ROWS, replace=False))
    counts = np.bincount(train.targets[rows], minlength=len(labels))
    rows = rows[counts[train.targets[rows]] >= FOLDS]
    classes, given = np.unique(train.targets[rows], return_inverse=True)
    if len(classes) < 2:
        return Mislabelled([], 0, [], [])
    features = _features({name: array[rows] for name, array in train.inputs.items()}, inputs)
    with warnings.catch_warnings(), threadpool_limits(1):  # on a busy machine, more are far slower
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly there is sure enough
        probabilities = cross_val_predict(
            LogisticRegression(C=10, max_iter=50),
            features,
            given,
            cv=StratifiedKFold(FOLDS, shuffle=True, random_state=0),
            method="predict_proba",
        )
    own = probabilities[np.arange(len(rows)), given]
    doubtful = np.flatnonzero((own <= UNLIKELY) & (probabilities.max(1) >= SURE))
    doubtful = doubtful[np.argsort(own[doubtful], kind="stable")]
    return Mislabelled(
        rows[doubtful].tolist(),
        len(rows),
        [labels[classes[given[row]]] for row in doubtful],
        [labels[classes[probabilities[row].argmax()]] for row in doubtful],
    )


class Agreement(NamedTuple):
    """How often labels are what a classifier says that learnt from other rows.

    Attributes:
        share: How often.
        by_chance: How often they would be if they said nothing about their inputs.
        p_less: Probability of no more than that by chance.
        p_more: Probability of no less than that by chance.
    """

    share: float
    by_chance: float
    p_less: float
    p_more: float


def agreement(train: Labelled, first: int, inputs: Mapping[str, Field]) -> Agreement:
    """Compares the labels of the last rows with what a linear classifier says that learnt from those before.

    Args:
        train: The rows of a classification.
        first: The first row whose label is compared.
        inputs: The input schema.
    """
    features, given = _features(train.inputs, inputs), train.targets
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        said = (
            LogisticRegression(C=10, max_iter=50).fit(features[:first], given[:first]).predict(features[first:])
        )
    own = given[first:]
    same, rows = int((said == own).sum()), len(own)
    by_chance = float(sum((said == label).mean() * (own == label).mean() for label in np.unique(own)))
    less, more = (
        scipy.stats.binomtest(same, rows, by_chance, alternative=which).pvalue for which in ("less", "greater")
    )
    return Agreement(same / rows, by_chance, float(less), float(more))


def _label_noise(train: Labelled, inputs: Mapping[str, Field], labels: Sequence[str]) -> Iterator[Finding]:
    found = mislabelled(train, inputs, labels)
    if found.rows:
        yield Finding(
            check="label noise",
            where="train",
            detail=f"{len(found.rows)} of {found.looked_at} training rows may be mislabelled, the likeliest "
            f"first: row {found.rows[0]} is labelled {found.given[0]} and looks like {found.likely[0]}.",
            rows=_shown(found.rows),
        )


def _features(arrays: Arrays, inputs: Mapping[str, Field]) -> Any:
    """Turns each field into columns whose rows have a length of about 1, so that every field weighs the same."""
    blocks = [_field_features(arrays[name], field) for name, field in inputs.items()]
    sparse = any(scipy.sparse.issparse(block) for block in blocks)
    return scipy.sparse.hstack(blocks, format="csr") if sparse else np.hstack(blocks)


def _field_features(array: NDArray[Any], field: Field) -> Any:
    if isinstance(field, Text | Category):
        texts = [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in array]
        hashing = HashingVectorizer(analyzer="char_wb", ngram_range=(1, 3), n_features=2**12, dtype=np.float32)
        return hashing.transform(texts)
    if isinstance(field, Time):
        one_hot = np.hstack([np.eye(7)[array // DAY % 7], np.eye(24)[array // HOUR % 24]])
        return (one_hot / math.sqrt(2)).astype(np.float32)
    known = np.ma.masked_invalid(_flat(array).astype(np.float64))
    standardised = ((known - known.mean(0)) / known.std(0)).filled(0)  # 0 where missing, or never varying
    return (standardised / math.sqrt(known.shape[1])).astype(np.float32)


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    """Returns the numbers of each row; of free lengths, mean and deviation over the steps, and how many."""
    if is_ragged(array):
        parts = [row.reshape(len(row), -1).astype(np.float64) for row in array]
        return np.stack([np.concatenate([part.mean(0), part.std(0), [len(part)]]) for part in parts])
    return array.reshape(len(array), math.prod(array.shape[1:]))


def _shown(rows: Sequence[int] | NDArray[Any]) -> list[int]:
    return [int(row) for row in rows[:SHOWN_ROWS]]
