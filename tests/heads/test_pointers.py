"""Pointers to what is wrong are JSON pointers, whatever the parts are called (RFC 6901)."""

from __future__ import annotations

from rollout.heads import Targets, Truth


def test_a_name_with_a_slash_is_one_step() -> None:
    head = Targets(names=["a/b~c", "other"], widest=1.0)
    truth = Truth(values={"d/e": 1.0, "other": 1.0})
    assert [at for at, _ in head.faults(truth)] == ["/values/d~1e", "/values/a~1b~0c"]
