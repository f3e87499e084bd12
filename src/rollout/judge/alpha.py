"""Do reviewers agree, where answers are more than labels: sets, spans, boxes, numbers?"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

# Of so many different answers at most all pairs are compared; of more, as many pairs as these have are drawn.
COMPARED = 500

Value = TypeVar("Value", bound=Hashable)
Difference = Callable[[Value, Value], float]


class Alpha(NamedTuple):
    """How far reviewers agree.

    Attributes:
        items: Items that two or more answered.
        answers: Their answers to these.
        alpha: Krippendorff's alpha, up to 1: 1 where all agree always, 0 where no more than by chance, below
            where less. ``None`` where there is no such item, or all answers are the same, so that chance agrees
            always.
    """

    items: int
    answers: int
    alpha: float | None


def measure_alpha(items: Iterable[Sequence[Value]], difference: Difference[Value]) -> Alpha:
    """Measures how far any number of reviewers agree, each of whom may have answered any of the items.

    Alpha is the disagreement that is left as a part of what chance would leave, ``1 - D_o / D_e``: ``D_o`` is the
    mean difference of two answers to the same item, each item with the weight of its answers, and ``D_e`` that of
    any two answers (Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011). Who answered does not
    matter.

    With more than 500 different answers, ``D_e`` is the mean over as many random pairs as 500 have, the same ones
    each time: its standard error is below 0.0015 for differences up to 1. Where hardly any two answers to
    different items are alike, as with spans, chance leaves nearly everything, and alpha is near ``1 - D_o``.

    Args:
        items: For each item the answers that it got; an item with fewer than two says nothing. Answers are
            hashable: a set is a ``frozenset``, spans are a tuple.
        difference: Of two answers: 0 where they are the same, more where they are further apart, the same either
            way round. Krippendorff's, such as the square of what two numbers differ by.

    Example:
        >>> agreement = measure_alpha([("a", "a"), ("a", "b"), ("b", "b"), ("b", "b", "b"), ("a",)], nominal)
        >>> agreement.items, agreement.answers, round(agreement.alpha, 3)
        (4, 9, 0.556)
    """
    paired = [answers for answers in items if len(answers) > 1]
    marginals = _together(paired)
    total = marginals.total()
    expected = _expected(marginals, difference)
    if not expected:
        return Alpha(len(paired), total, None)
    observed = sum(_differences(Counter(each), difference) / (len(each) - 1) for each in paired) / total
    return Alpha(len(paired), total, 1 - observed / expected)


def _together(items: Iterable[Iterable[Value]]) -> Counter[Value]:
    counts: Counter[Value] = Counter()
    for answers in items:
        counts.update(answers)
    return counts


def _expected(marginals: Counter[Value], difference: Difference[Value]) -> float:
    """Returns the mean difference of two answers of all."""
    total = marginals.total()
    if len(marginals) <= COMPARED:
        return _differences(marginals, difference) / (total * (total - 1)) if total else 0.0
    answers, chance = list(marginals.elements()), random.Random(0)  # noqa: S311  no secret
    pairs = COMPARED * (COMPARED - 1) // 2
    found = 0.0
    for _ in range(pairs):
        one = chance.randrange(total)
        other = (one + chance.randrange(1, total)) % total  # another answer
        found += difference(answers[one], answers[other])
    return found / pairs


def _differences(counts: Counter[Value], difference: Difference[Value]) -> float:
    """Returns the sum of the differences of all ordered pairs of answers."""
    found = list(counts.items())
    return sum(
        2 * many * other_many * difference(one, other)
        for place, (one, many) in enumerate(found)
        for other, other_many in found[:place]
    )


def nominal(one: Hashable, other: Hashable) -> float:
    """Returns 1 for answers that are not the same."""
    return float(one != other)


def interval(one: float, other: float) -> float:
    """Returns the square of what two numbers differ by."""
    return (one - other) ** 2


def ordinal(items: Iterable[Sequence[Any]]) -> Callable[[Any, Any], float]:
    """Returns the difference of two ranks: the square of how many answers lie from the one to the other.

    Half of those that are the one or the other count (Krippendorff 2011, section D).

    Args:
        items: As ``measure_alpha`` has them; answers are in order by ``<``.
    """
    marginals = _together(answers for answers in items if len(answers) > 1)
    middles, below = {}, 0.0
    for answer in sorted(marginals):
        middles[answer] = below + marginals[answer] / 2
        below += marginals[answer]
    return lambda one, other: float((middles[one] - middles[other]) ** 2)


def jaccard(one: frozenset[Any], other: frozenset[Any]) -> float:
    """Returns 1 less what two sets share as a part of what either has (Jaccard 1912); 0 for two empty ones."""
    return 1 - len(one & other) / len(one | other) if one or other else 0.0


def masi(one: frozenset[Any], other: frozenset[Any]) -> float:
    """Returns 1 less Jaccard's similarity of two sets, which counts in full only where they are the same.

    Where one holds the other it counts for 2/3, where each has something of its own for 1/3 (Passonneau,
    "Measuring agreement on set-valued items (MASI) for semantic and pragmatic annotation", 2006).
    """
    if one == other:
        return 0.0
    if not one & other:
        return 1.0
    return 1 - (1 - jaccard(one, other)) * (2 / 3 if one <= other or other <= one else 1 / 3)
