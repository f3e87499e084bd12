"""Which number of an answer is explained, for each kind of head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rollout import Boxes, Classification, Embedding, Heads, MultiLabel, Quantiles, Regression, Score, Targets
from rollout.errors import InvalidRequestError
from rollout.heads import Head

NUMBERS = [
    (Classification(labels=["a", "b"]), [[0.3, 0.7], [0.9, 0.1]], {}, ("b", "", [0.7, 0.1])),
    (Classification(labels=["a", "b"]), [[0.3, 0.7], [0.9, 0.1]], {"label": "a"}, ("a", "", [0.3, 0.9])),
    (Classification(labels=["a", "b"], best=1), [[0.3, 0.7], [0.9, 0.1]], {}, ("b", "", [0.7, 0.1])),
    (MultiLabel(labels=["a", "b"]), [[0.6, 0.2], [0.1, 0.9]], {}, ("a", "", [0.6, 0.1])),
    (MultiLabel(labels=["a", "b"]), [[0.6, 0.2], [0.1, 0.9]], {"label": "b"}, ("b", "", [0.2, 0.9])),
    (Regression(), [[4, 1], [5, 2]], {}, ("", "", [4, 5])),
    (Quantiles(levels=[0.1, 0.5, 0.9]), [[1, 2, 3], [4, 5, 6]], {}, ("", "", [2, 5])),
    (Targets(names=["x", "y"]), [[1, 2], [3, 4]], {"label": "y"}, ("y", "", [2, 4])),
    (Score(), [[1], [3]], {}, ("", "", [1, 3])),
]
SEVERAL = Heads(heads={"late": Classification(labels=["no", "yes"]), "minutes": Regression()})
ROWS = [[0.2, 0.8, 4, 1], [0.6, 0.4, 5, 2]]
NUMBERS += [
    (SEVERAL, ROWS, {}, ("yes", "late", [0.8, 0.4])),
    (SEVERAL, ROWS, {"head": "minutes"}, ("", "minutes", [4, 5])),
    (SEVERAL, ROWS, {"head": "late", "label": "no"}, ("no", "late", [0.2, 0.6])),
]


@pytest.mark.parametrize(("head", "scores", "asked", "wanted"), NUMBERS)
def test_number_of_the_decision_or_of_what_is_asked(
    head: Head, scores: Any, asked: dict[str, str], wanted: tuple[str, str, list[float]]
) -> None:
    numbers = head.numbers(np.array(scores, np.float32))
    found = head.explained(numbers[0].tolist(), **asked)
    assert (found.label, found.head) == wanted[:2]
    assert found.read(numbers).tolist() == pytest.approx(wanted[2])
    assert found.label in found.what


def test_surest_box_of_a_label_and_nothing_where_there_is_none() -> None:
    head = Boxes(labels=["cat", "dog"], candidates=4, most=2)
    each = [1, 0.75, 0.1, 0.1, 0.2, 0.2], [0, 0.5, 0.3, 0.3, 0.4, 0.4]
    numbers = np.array([[2, *each[0], *each[1]], [1, *each[1], *[0] * 6], [0] * 13], np.float64)
    assert head.explained(numbers[0].tolist()).label == "dog"
    assert head.explained(numbers[0].tolist()).read(numbers).tolist() == [0.75, 0, 0]
    assert head.explained(numbers[0].tolist(), "cat").read(numbers).tolist() == [0.5, 0.5, 0]


@pytest.mark.parametrize(
    ("head", "asked", "said"),
    [
        (Classification(labels=["a", "b"]), {"label": "c"}, "'c' is not there: take one of a, b"),
        (Classification(labels=["a", "b"]), {"head": "x"}, "/head must be left out"),
        (Regression(), {"label": "a"}, "/label must be left out"),
        (SEVERAL, {"head": "early"}, "'early' is not there: take one of late, minutes"),
        (SEVERAL, {"head": "minutes", "label": "no"}, "/label must be left out"),
        (Embedding(size=2), {}, "there is no one number"),
    ],
)
def test_what_is_not_there_is_refused(head: Head, asked: dict[str, str], said: str) -> None:
    numbers = head.numbers(np.full((1, head.outputs), 0.5, np.float32))
    for row in (numbers[0].tolist(), [0.0] * head.columns):
        with pytest.raises(InvalidRequestError, match=said):
            head.explained(row, **asked)


def test_labels_that_mean_the_same_to_callers_are_explained_together() -> None:
    own = Classification(labels=["cat", "lynx", "dog"])
    meanings = {"lynx": "cat"}
    public = own.public(meanings)
    translate = own.translation(public, meanings)
    assert translate is not None
    numbers = translate(own.numbers(np.array([[0.3, 0.3, 0.4]], np.float32)))
    found = public.explained(numbers[0].tolist())
    assert (found.label, found.read(numbers).tolist()) == ("cat", pytest.approx([0.6]))
