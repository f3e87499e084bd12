"""Do two reviewers agree, and by how much more than chance?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple


class Agreement(NamedTuple):
    """How far two reviewers agree.

    Attributes:
        items: Items that both labelled.
        share: Share of them with the same label, from 0 to 1; ``None`` without an item.
        kappa: Cohen's kappa, from -1 to 1: 1 for the same label always, 0 for no more often than by chance.
            ``None`` where chance alone agrees always, since both only ever gave one label.
    """

    items: int
    share: float | None
    kappa: float | None


def measure_agreement(pairs: Collection[tuple[str, str]]) -> Agreement:
    """Measures how far two reviewers agree.

    Kappa is the agreement beyond chance as a part of what is possible, ``(p_o - p_e) / (1 - p_e)``, where chance
    keeps the share of each label that each reviewer gave (Cohen, "A coefficient of agreement for nominal scales",
    1960).

    Args:
        pairs: For each item the label of the one and of the other.

    Example:
        >>> measure_agreement([("3", "3"), ("8", "8"), ("3", "8"), ("8", "8")])
        Agreement(items=4, share=0.75, kappa=0.5)
    """
    items = len(pairs)
    if not items:
        return Agreement(0, None, None)
    same = sum(one == other for one, other in pairs)
    ones, others = (Counter(pair[side] for pair in pairs) for side in (0, 1))
    # Times items², so that all of it is whole.
    by_chance = sum(count * others[label] for label, count in ones.items())
    beyond, possible = items * same - by_chance, items * items - by_chance
    return Agreement(items, same / items, beyond / possible if possible else None)
