"""Which labels are probably wrong themselves, by what a model says that did not learn from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.errors import ConfigError

Scores = NDArray[np.float32]

# Beyond so many interquartile ranges outside of the quartiles, an error is "far out" (Tukey, "Exploratory Data
# Analysis", 1977): two in a million of a normal distribution, one in a hundred and twenty of a Laplace one.
FAR_OUT = 3.0
# Of what a model is so sure, it is surely right; what it finds so unlikely, it surely does not see.
SURE, UNLIKELY = 0.9, 0.05


class Suspects(NamedTuple):
    """Rows whose labels are probably wrong.

    Attributes:
        rows: Their numbers, the likeliest to be wrong first.
        quality: How far each label is what the scores say, from 0 to 1, in the same order.
        heads: Of several heads, those whose label looks wrong, in the same order; empty for a single one.
    """

    rows: NDArray[np.intp]
    quality: NDArray[np.float64]
    heads: Sequence[str] = ()


NONE = Suspects(np.zeros(0, np.intp), np.zeros(0))


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


def wrong_tags(scores: Scores, targets: NDArray[Any], text_of: NDArray[Any]) -> Suspects:
    """Finds texts with tags that are probably wrong, by confident learning over all characters.

    Wang & Mueller, "Detecting Label Errors in Token Classification Data", 2022: a text is as good as the worst of
    its characters.

    Args:
        scores: Probabilities of the tags of each character, ``(characters, tags)``.
        targets: The index of the tag of each.
        text_of: The number of its text.

    Raises:
        ConfigError: If cleanlab is not installed.
    """
    found = wrong_classes(scores, targets)
    rows, worst = np.unique(text_of[found.rows], return_index=True)  # the first of each is its worst
    order = np.argsort(worst)
    return Suspects(rows[order], found.quality[worst[order]])


def wrong_numbers(
    values: NDArray[np.float64], half_widths: NDArray[np.float64], targets: NDArray[Any]
) -> Suspects:
    """Finds numbers that are probably wrong: their errors, in half intervals, are far out among those of all.

    Measured among all rows, it is the same whatever the intervals are to cover, and a model that errs in one
    direction does not make every row a suspect.

    Args:
        values: What a model says that did not learn from these rows, ``(rows, targets)``.
        half_widths: Half the width of the interval around each.
        targets: The numbers, same shape.
    """
    if not len(targets):
        return NONE
    usual = np.median(half_widths, axis=0)
    least = np.where(usual > 0, usual, 1.0) * 1e-6  # no interval is narrower than rounding
    errors = (targets.astype(np.float64) - values) / np.maximum(half_widths, least)
    low, high = np.quantile(errors, [0.25, 0.75], axis=0)
    rounding = 1e-6 * np.maximum(np.abs(values).max(0), 1e-12) / np.maximum(usual, least)
    far = np.maximum(low - errors, errors - high) / np.maximum(high - low, rounding)
    furthest = np.maximum(far, 0.0).max(1)
    rows = np.flatnonzero(furthest > FAR_OUT)
    return _ordered(rows, np.exp(-furthest))


class PlacesOfRow(NamedTuple):
    """What a model says of the labelled places of a row, and where else it sees something.

    Attributes:
        labelled: For each labelled place its label, and how sure the model is of that label there.
        unlabelled: How sure it is of each of its own places that are not labelled so.
    """

    labelled: Sequence[tuple[Any, float]]
    unlabelled: Sequence[float]


def wrong_places(found: Iterable[PlacesOfRow]) -> Suspects:
    """Finds rows whose labelled places are probably wrong: one is overlooked, is something else, or nothing.

    These are the faults that ObjectLab looks for (Tkachenko, Thyagarajan & Mueller, "ObjectLab: Automated
    Diagnosis of Mislabeled Images in Object Detection Data", 2023). A row counts where the model is sure of a
    place that is not labelled as that, or sees nothing where a label is, if it does so in no more than one of
    twenty places with that label.

    Args:
        found: The places of each row.
    """
    rows = list(found)
    seen: dict[Any, list[float]] = {}
    for row in rows:
        for label, score in row.labelled:
            seen.setdefault(label, []).append(score)
    trusted = {label for label, scores in seen.items() if np.mean(np.array(scores) <= UNLIKELY) <= UNLIKELY}
    worst = np.ones(len(rows))
    for number, row in enumerate(rows):
        doubts = [1 - score for score in row.unlabelled if score >= SURE]
        doubts += [score for label, score in row.labelled if label in trusted and score <= UNLIKELY]
        worst[number] = min(doubts, default=1.0)
    return _ordered(np.flatnonzero(worst < 1), worst)


def of_heads(found: Mapping[str, Suspects]) -> Suspects:
    """Puts the suspects of several heads together: a row is as good as the worst of its labels."""
    worst: dict[int, float] = {}
    heads: dict[int, list[str]] = {}
    for name, own in found.items():
        for row, quality in zip(own.rows.tolist(), own.quality.tolist(), strict=True):
            worst[row] = min(quality, worst.get(row, 1.0))
            heads.setdefault(row, []).append(name)
    rows = sorted(worst, key=lambda row: (worst[row], row))
    return Suspects(
        np.array(rows, np.intp),
        np.array([worst[row] for row in rows], np.float64),
        [", ".join(heads[row]) for row in rows],
    )


def _ordered(rows: NDArray[np.intp], quality: NDArray[np.float64]) -> Suspects:
    return _ranked(rows[np.argsort(quality[rows], kind="stable")], quality)


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
