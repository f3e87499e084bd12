"""What was taken for what, and which labels are probably wrong themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.errors import ConfigError

Scores = NDArray[np.float32]


class Confusion(NamedTuple):
    """One label that was taken for another.

    Attributes:
        truth: What was true.
        answer: What was answered.
        rows: The rows, by their numbers.
        of: Rows of which that was true.
    """

    truth: str
    answer: str
    rows: NDArray[np.intp]
    of: int


class Suspects(NamedTuple):
    """Rows whose labels are probably wrong.

    Attributes:
        rows: Their numbers, the likeliest to be wrong first.
        quality: How far each label is what the scores say, from 0 to 1, in the same order.
    """

    rows: NDArray[np.intp]
    quality: NDArray[np.float64]


def class_confusions(labels: Sequence[str], answers: NDArray[Any], targets: NDArray[Any]) -> list[Confusion]:
    """Returns the pairs of two classes, the most frequent first.

    Args:
        labels: The classes.
        answers: For each row the index of the class that was answered, shape ``(rows,)``.
        targets: The index of the true one, likewise.
    """
    of = np.bincount(targets, minlength=len(labels))
    wrong = np.flatnonzero(answers != targets)
    pairs, where = np.unique(np.stack([targets[wrong], answers[wrong]], axis=1), axis=0, return_inverse=True)
    found = [
        Confusion(labels[truth], labels[answer], wrong[where.ravel() == pair], int(of[truth]))
        for pair, (truth, answer) in enumerate(pairs.tolist())
    ]
    return most_frequent(found)


def most_frequent(found: list[Confusion]) -> list[Confusion]:
    """Orders pairs, those of most rows first."""
    return sorted(found, key=lambda each: (-len(each.rows), each.truth, each.answer))


def wrong_classes(scores: Scores, targets: NDArray[Any]) -> Suspects:
    """Finds labels that are probably wrong, by confident learning.

    A row counts where, of its label, as many are expected to be wrong as the scores of all rows say ("prune by
    noise rate"; Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021).

    Args:
        scores: Probabilities of the classes, of a model that did not learn from these rows, ``(rows, classes)``.
        targets: The index of the class of each row.

    Raises:
        ConfigError: If cleanlab is not installed.
    """
    if not len(targets):
        return NONE
    filtering, ranking = _cleanlab("filter"), _cleanlab("rank")
    probabilities = _sums_to_one(scores)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = filtering.find_label_issues(
            targets, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
        )
    quality = ranking.get_label_quality_scores(targets, probabilities, method="self_confidence")
    return _ranked(rows, quality)


def wrong_label_sets(scores: Scores, targets: NDArray[Any]) -> Suspects:
    """Finds sets of labels that are probably wrong: confident learning for each label, one against the rest.

    Thyagarajan et al., "Identifying Incorrect Annotations in Multi-Label Classification Data", 2022.

    Args:
        scores: Probability of each label, of a model that did not learn from these rows, ``(rows, labels)``.
        targets: Whether each label holds, same shape.

    Raises:
        ConfigError: If cleanlab is not installed.
    """
    if not len(targets):
        return NONE
    multilabel = _cleanlab("multilabel_classification")
    given = [np.flatnonzero(row).tolist() for row in targets.astype(bool)]
    probabilities = scores.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = multilabel.filter.find_label_issues(
            given, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
        )
    return _ranked(rows, multilabel.get_label_quality_scores(given, probabilities))


NONE = Suspects(np.zeros(0, np.intp), np.zeros(0))


def _ranked(rows: NDArray[Any], quality: NDArray[Any]) -> Suspects:
    chosen = np.asarray(rows, np.intp)
    return Suspects(chosen, np.asarray(quality, np.float64)[chosen])


def _sums_to_one(scores: Scores) -> NDArray[np.float64]:
    probabilities = scores.astype(np.float64)
    return np.asarray(probabilities / probabilities.sum(1, keepdims=True))


def _cleanlab(module: str) -> Any:
    import importlib  # noqa: PLC0415  it pulls in pandas and scikit-learn, and serving needs neither

    try:
        return importlib.import_module(f"cleanlab.{module}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"finding labels that look wrong needs {error.name}: pip install 'rollout[labels]'"
        ) from None
