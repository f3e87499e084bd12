"""McNemar's test: do two classifiers, asked about the same rows, err equally often?"""

from __future__ import annotations

import scipy.stats


def mcnemar(only_first: int, only_second: int) -> float:
    """Returns the exact two-sided p-value of McNemar's test.

    Rows that both get right, or both wrong, tell nothing. Of the others, as many should speak for one
    classifier as for the other: a binomial test with probability 1/2 (McNemar, "Note on the sampling error of
    the difference between correlated proportions or percentages", 1947).

    Args:
        only_first: Rows that only the first gets right.
        only_second: Rows that only the second gets right.

    Example:
        >>> mcnemar(10, 0)
        0.001953125
    """
    discordant = only_first + only_second
    if not discordant:
        return 1.0
    return float(scipy.stats.binomtest(only_first, discordant).pvalue)
