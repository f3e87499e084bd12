"""The names of a job's parts on Spark, without Spark."""

from __future__ import annotations

from typing import Any

import pytest

import rollout.spark
from rollout.errors import ConfigError


@pytest.mark.parametrize(
    "values", [[None, rollout.spark.NULL, "a"], ["2026-10-25 02:30:00", "a", "2026-10-25 02:30:00"]]
)
def test_no_two_values_have_one_part(values: list[Any]) -> None:
    with pytest.raises(ConfigError, match="would both lie in day="):
        rollout.spark._parts("day", values)


def test_no_value_is_another_place() -> None:
    values = [None, "..", "../a", "a/b", "%2F", "a\n", "_SUCCESS"]
    assert list(rollout.spark._parts("day", values).values())[-1] is None
    assert all(part.startswith("day=") and "/" not in part for part in rollout.spark._parts("day", values))
