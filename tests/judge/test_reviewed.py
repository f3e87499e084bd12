"""Labels of review as outcomes of an arm: the hardest rows come first, and that must not decide a trial."""

from __future__ import annotations

from functools import partial

from rollout.judge.reviewed import Decided, sum_reviewed
from tests.judge.review_simulations import look_often
from tests.judge.simulations import Looked

RUNS = 4


def test_what_is_looked_at_first_does_not_decide() -> None:
    """All labels that there are would prove the challenger worse, which it is not."""
    same = partial(look_often, RUNS, 5, margin=0.0, worse=0.0, rows=40_000, seed=3)
    assert same(takes_all=True).rolled_back >= 0.75
    assert same() == Looked(0, 0)


def test_who_is_as_much_worse_as_may_be_is_neither_promoted_nor_rolled_back() -> None:
    """At a level of 5 %, one of ten is wrong in 40 % of cases, and more than two in 1 %."""
    assert max(look_often(10, 10, margin=0.03, worse=0.03, rows=6_000, seed=2)) <= 0.2


def test_who_is_surely_worse_is_rolled_back() -> None:
    assert look_often(RUNS, 10, margin=0.02, worse=0.15, rows=12_000, seed=3).rolled_back == 1


def test_without_an_audit_nothing_is_known_of_what_it_was_sure_of() -> None:
    assert sum_reviewed([Decided(0, 1, 0, 1.0, 1.0)] * 500, 1, 1).clients == 0


def test_a_few_audits_are_few_clients_however_many_unsure_rows_there_are() -> None:
    unsure = [Decided(0, client, 0, 1.0, 1.0) for client in range(1_000)]
    audits = [Decided(0, 10_000 + client, 0, 1.0, 0.001, is_audit=True) for client in range(5)]
    assert sum_reviewed(unsure + audits, 1, 1).clients == 7
