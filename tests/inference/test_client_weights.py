"""How much one client weighs among the rows that are looked at."""

from __future__ import annotations

import pytest

from rollout.inference import client_weights
from rollout.inference.client_weights import ALONE, ClientWeights


def test_a_client_among_many_is_a_tenth_of_them_at_most() -> None:
    weights = ClientWeights()
    clients = ["loud"] * 500 + [f"c-{number}" for number in range(90)]
    admitted = weights.admit(clients, 0.0)
    assert admitted[500:].all()
    assert admitted[:500].sum() == 10
    assert not weights.admit(["loud"] * 50, 59.0).any(), "it has had its part of this minute"
    assert weights.admit([f"d-{number}" for number in range(45)] + ["loud"] * 50, 59.0).sum() == 50


def test_who_calls_alone_is_looked_at_and_anew_each_minute() -> None:
    weights = ClientWeights()
    assert weights.admit(["gateway"] * 100, 0.0).sum() == ALONE
    assert weights.admit(["gateway"] * 100, 30.0).sum() == 0
    assert weights.admit(["gateway"] * 100, 60.0).sum() == ALONE


def test_where_there_were_others_a_minute_does_not_begin_with_one_client() -> None:
    weights = ClientWeights()
    weights.admit([f"c-{number}" for number in range(600)], 30.0)
    clients = ["loud"] * 500 + [f"d-{number}" for number in range(20)]
    assert weights.admit(clients, 61.0)[:500].sum() == 2
    assert weights.admit(["loud"] * 500, 180.0).sum() == ALONE, "it is the only one by now"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_weights, "MOST_CLIENTS", 10)
    weights = ClientWeights()
    for start in range(0, 100, 5):
        weights.admit([f"c-{number}" for number in range(start, start + 5)], 0.0)
    assert len(weights._admitted) <= 11
