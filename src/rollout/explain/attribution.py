"""Attributions by Captum, model-free: the variant is asked, as a function of which parts of a row are present."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import torch
from captum.attr import FeatureAblation, ShapleyValues, ShapleyValueSampling
from numpy.typing import NDArray

from rollout.bundle.apart import Apart, Method
from rollout.bundle.columns import first
from rollout.bundle.fields import Field
from rollout.bundle.parity import count, take
from rollout.bundle.schema import Arrays
from rollout.errors import PredictionFailedError
from rollout.explain.explanation import Attribution, Pass

# Maps rows of inputs to the number that is explained, float64 of shape (rows,).
Ask = Callable[[Arrays], NDArray[np.float64]]

# Of so few parts all orders are tried: 6! = 720 of them ask for 64 sets.
MOST_EXACT = 6
MOST_ORDERS = 64
LEAST_ORDERS = 4
MOST_BACKGROUND = 32
# Rows that are scored for the Shapley values of one prediction, about.
MOST_ROWS = 16_384
AT_ONCE = 64
DIGITS = 7  # that count: Captum adds up in single precision


def attribute(
    fields: Mapping[str, Field], row: Arrays, background: Arrays, ask: Ask, seed: int = 0
) -> tuple[float, list[Attribution], list[Pass]]:
    """Attributes the number of a row to the parts of its inputs.

    Args:
        fields: The input schema.
        row: Its inputs, columns of one row.
        background: Other rows, whose values stand in.
        ask: Scores rows.
        seed: Of the orders.

    Returns:
        The number of the row, an attribution for each part, and how they came about.

    Raises:
        PredictionFailedError: If the number of a row that is asked for is not finite, or too large.
    """
    background = _thinned(background, MOST_BACKGROUND)
    apart = {name: field.take_apart(first(row[name]), background[name]) for name, field in fields.items()}
    value = _Game({}, row, background, ask).value(np.ones(0, bool))
    found: dict[str, list[float]] = {}
    passes: list[Pass] = []
    for method, weigh in METHODS.items():
        own = {name: one for name, one in apart.items() if one.method == method}
        if not own:
            continue
        rows = _thinned(background, _affordable(own)) if method == "shapley" else take(background, slice(0, 1))
        game = _Game(own, row, rows, ask)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Captum's advice is about its own arguments
            torch.manual_seed(seed)
            weights, orders = weigh(game)
        if not np.isfinite(weights).all():
            raise PredictionFailedError("the model's scores are too large for their differences to be weighed")
        weights = [float(f"{weight:.{DIGITS}g}") for weight in weights]
        base = game.value(np.zeros(game.players, bool))
        total = round(math.fsum(weights), DIGITS)
        passes.append(
            Pass(
                method=method,
                fields=tuple(own),
                baselines={name: one.baseline for name, one in own.items()},
                orders=orders,
                background_rows=count(rows) if method == "shapley" else 0,
                base_value=base,
                sum=total,
                remainder=round(value - base - total, DIGITS),
                evaluations=game.evaluations,
            )
        )
        for name, one in own.items():
            found[name], weights = weights[: len(one.parts)], weights[len(one.parts) :]
    attributions = [
        Attribution(field=name, attribution=weight, **msgspec.structs.asdict(part))
        for name, one in apart.items()
        for part, weight in zip(one.parts, found[name], strict=True)
    ]
    return value, attributions, passes


def _thinned(rows: Arrays, most: int) -> Arrays:
    """Returns at most so many of some rows, evenly."""
    return take(rows, np.unique(np.linspace(0, count(rows) - 1, most).round().astype(int)))


def _affordable(apart: Mapping[str, Apart]) -> int:
    """Returns how many background rows the fewest orders of these parts leave room for."""
    return max(1, MOST_ROWS // (LEAST_ORDERS * sum(len(one.parts) for one in apart.values())))


class _Game:
    """The number as a function of the parts that are present; no set of them is asked for twice.

    Args:
        apart: The inputs whose parts may be left out.
        row: All inputs.
        background: Rows that stand in; the value of a set is the mean over them.
        ask: Scores rows.
    """

    def __init__(self, apart: Mapping[str, Apart], row: Arrays, background: Arrays, ask: Ask) -> None:
        self._apart, self._row, self._ask = apart, row, ask
        self._background = background if apart else take(background, slice(0, 1))
        self.players = sum(len(one.parts) for one in apart.values())
        self.rows_a_set = count(self._background)
        self.evaluations = 0
        self._known: dict[bytes, float] = {}

    def value(self, present: NDArray[np.bool_]) -> float:
        """Returns the number where the parts of one set, ``bool`` of shape ``(players,)``, are present."""
        return float(self.values(present[None])[0])

    def values(self, present: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Returns the number for each of several sets, ``bool`` of shape ``(sets, players)``."""
        keys = [one.tobytes() for one in present]
        new = [at for at, key in enumerate(keys) if key not in self._known and keys.index(key) == at]
        for start in range(0, len(new), max(1, AT_ONCE // self.rows_a_set)):
            part = new[start : start + max(1, AT_ONCE // self.rows_a_set)]
            for at, number in zip(part, self._asked(present[part]), strict=True):
                self._known[keys[at]] = number
        return np.array([self._known[key] for key in keys], np.float64)

    def __call__(self, present: torch.Tensor) -> torch.Tensor:
        """Is the function that Captum asks: ones and zeros of shape ``(sets, players)`` to ``(sets,)``."""
        return torch.from_numpy(self.values(present.numpy() > 0.5))

    def _asked(self, present: NDArray[np.bool_]) -> list[float]:
        sets, each = len(present), self.rows_a_set
        rows: dict[str, NDArray[Any]] = {}
        start = 0
        for name, column in self._row.items():
            if name not in self._apart:
                rows[name] = np.repeat(column, sets * each, axis=0)
                continue
            one = self._apart[name]
            shown = np.repeat(present[:, start : start + len(one.parts)], each, axis=0)
            start += len(one.parts)
            others = self._background[name][np.tile(np.arange(each), sets)]
            rows[name] = one.put_together(shown, others)
        numbers = self._ask(rows)
        self.evaluations += sets * each
        if not np.isfinite(numbers).all():
            raise PredictionFailedError(
                "the model's scores are not finite numbers where parts of this input are replaced: it cannot be "
                "explained by leaving them out"
            )
        return [float(number) for number in numbers.reshape(sets, each).mean(axis=1)]


def _occlude(game: _Game) -> tuple[list[float], None]:
    """Leaves out each part alone; of one sentence, leave-one-out."""
    every = torch.ones(1, game.players)
    weights = FeatureAblation(game).attribute(every, baselines=0.0, perturbations_per_eval=AT_ONCE)
    return weights[0].tolist(), None


def _shapley(game: _Game) -> tuple[list[float], int | None]:
    """Adds parts in all orders where they are few, and otherwise in random ones (Castro et al. 2009)."""
    every, players = torch.ones(1, game.players), game.players
    if players <= MOST_EXACT:
        weights = ShapleyValues(game).attribute(every, baselines=0.0, perturbations_per_eval=players)
        return weights[0].tolist(), None
    orders = min(MOST_ORDERS, max(LEAST_ORDERS, MOST_ROWS // (players * game.rows_a_set)))
    weights = ShapleyValueSampling(game).attribute(
        every, baselines=0.0, n_samples=orders, perturbations_per_eval=AT_ONCE
    )
    return weights[0].tolist(), orders


METHODS: Mapping[Method, Callable[[_Game], tuple[list[float], int | None]]] = {
    "occlusion": _occlude,
    "shapley": _shapley,
}
