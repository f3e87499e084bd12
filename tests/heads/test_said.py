"""What people and callers say in a form that JSON allows and no answer can have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rollout.errors import LONGEST_TEXT, MOST_ERRORS, BundleError, InvalidRequestError
from rollout.heads import (
    Classification,
    Embedding,
    MultiLabel,
    Output,
    Quantiles,
    Regression,
    Score,
    Targets,
    Tensors,
    Truth,
)
from rollout.heads.truth import NO_NUMBER
from rollout.review.actions import require_truth

GRID = Tensors(outputs_by_name={"grid": Output((2, 2)), "on": Output((2,), "bool")})


@pytest.mark.parametrize(
    "grid",
    [
        [["1", "2"], ["3", "4"]],
        [[1, 2], [3, True]],
        [[1, 2], [3, None]],
        [[1, 2], [3, 1e39]],
        [[10**400, 2], [3, 4]],
        [[1, 2], [3]],
        [[[1], [2]], [[3], [4]]],
        {"a": 1},
        5,
    ],
)
def test_a_tensor_has_numbers_that_a_float_holds(grid: Any) -> None:
    found = list(GRID.faults(Truth(tensors={"grid": grid, "on": [True, 0]})))
    assert found == [("/tensors/grid", "must be numbers of shape (2, 2)")]


@pytest.mark.parametrize("on", [["true", True], [2, 0], [0.5, 1], [[True], [False]], None])
def test_a_tensor_of_truth_values_has_nothing_else(on: Any) -> None:
    assert not list(GRID.faults(Truth(tensors={"grid": [[1, 2.5], [3, -4]], "on": [True, 0]})))
    found = list(GRID.faults(Truth(tensors={"grid": [[1, 2], [3, 4]], "on": on})))
    assert found == [("/tensors/on", "must be truth values of shape (2,)")]


@pytest.mark.parametrize("vector", [[1e308, 1e308], [1e-300, 0.0], [0.0, 0.0], [1.0], []])
def test_a_vector_has_a_direction_in_single_precision(vector: list[float]) -> None:
    head = Embedding(size=2)
    assert not list(head.faults(Truth(vector=[3e38, 1.0])))
    assert head.loss({"vector": [1.0, 0.0]}, Truth(vector=[3e38, 0.0])) == 0
    ((pointer, _),) = head.faults(Truth(vector=vector))
    assert pointer == "/vector"


def test_a_refusal_names_the_first_faults_and_the_beginning_of_long_names() -> None:
    names = [f"{number:06d}{'n' * 1000}" for number in range(3000)]
    with pytest.raises(InvalidRequestError) as refused:
        require_truth(Targets(names=["low"]), Truth(values=dict.fromkeys(names, 1.0)))
    assert len(refused.value.errors) == MOST_ERRORS
    assert refused.value.detail.endswith(f"; and more than {MOST_ERRORS - 3} more")
    assert len(refused.value.detail) < 4 * LONGEST_TEXT
    assert max(len(fault.pointer) for fault in refused.value.errors) == LONGEST_TEXT + 1


@pytest.mark.parametrize("names", [["low", "low"], []])
def test_what_is_answered_by_name_has_each_name_once(names: list[str]) -> None:
    if names:
        with pytest.raises(BundleError, match="each of them once"):
            Classification(labels=names).check_targets(np.array([0, 1]))
    with pytest.raises(ValueError, match="each of them once"):
        MultiLabel(labels=names)
    with pytest.raises(ValueError, match="each of them once"):
        Targets(names=names)


@pytest.mark.parametrize("number", [1e39, -1e308, math.inf, math.nan])
def test_a_number_that_no_module_can_learn_from_is_none(number: float) -> None:
    for head in (Regression(), Score(), Quantiles(levels=[0.1, 0.5, 0.9])):
        assert dict(head.faults(Truth(value=number))) == {"/value": NO_NUMBER}
    assert dict(Targets(names=["x"]).faults(Truth(values={"x": number}))) == {"/values/x": NO_NUMBER}
    assert not [*Regression().faults(Truth(value=3.4e38))]
