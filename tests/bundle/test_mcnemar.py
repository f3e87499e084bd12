"""McNemar's test gives the published p-values."""

from __future__ import annotations

import pytest

from rollout.bundle.mcnemar import mcnemar

# statsmodels tests these tables, too, against Vassar College's calculator, which gives 0.000004 and 0.378688.
PUBLISHED = [([[101, 121], [59, 33]], 4.434e-6), ([[101, 70], [59, 33]], 0.3787)]


@pytest.mark.parametrize(("table", "p_value"), PUBLISHED)
def test_published_examples(table: list[list[int]], p_value: float) -> None:
    (_, only_first), (only_second, _) = table
    assert mcnemar(only_first, only_second) == pytest.approx(p_value, rel=2e-4)
    assert mcnemar(only_second, only_first) == mcnemar(only_first, only_second)


@pytest.mark.parametrize("count", [0, 1, 17])
def test_equally_many_errors_are_no_evidence(count: int) -> None:
    assert mcnemar(count, count) == 1
