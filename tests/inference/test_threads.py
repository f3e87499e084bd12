"""Threads in a batch, or batches at a time: what is measured at load decides, of rows above a millisecond."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollout.config import Settings
from rollout.inference import version
from rollout.inference.profile import Profile
from rollout.inference.threads import Threads
from rollout.inference.version import LoadedVersion

COSTLY = Profile([0.0, 0.010, 0.019], in_flight=2)  # 210 rows a second


@pytest.mark.parametrize(
    ("alone", "together", "set_to", "threads"),
    [
        (COSTLY, Profile([0.0, 0.005, 0.0098], 1), 0, 2),  # 204 a second, and a row alone in half the time
        (COSTLY, Profile([0.0, 0.008, 0.015], 1), 0, 1),  # 133 a second
        (COSTLY, None, 1, 1),  # somebody said so
        (Profile([0.0, 0.0001], 1), None, 0, 1),  # not worth a look
    ],
    ids=["as many rows", "fewer rows", "set", "cheap"],
)
def test_what_is_measured_decides(
    bundles: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    alone: Profile,
    together: Profile | None,
    set_to: int,
    threads: int,
) -> None:
    measured = iter(filter(None, (alone, together)))
    monkeypatch.setattr(version, "measure", lambda *_: next(measured))
    monkeypatch.setattr(version, "usable_cores", lambda: 2)
    loaded = LoadedVersion("digits", "v2", Settings(home=tmp_path, workers=1, intra_op_threads=set_to))
    assert loaded.threads == threads
    assert loaded.profile is (together if threads == 2 else alone)
    assert next(measured, None) is None
    loaded.close()


def test_what_was_measured_is_said() -> None:
    together = Profile([0.0, 0.005, 0.0098], 1)
    assert str(Threads(2, COSTLY, together)) == (
        "on 2 cores: 2 batches at a time with one thread, 211 rows/s and 10 ms for one; "
        "one batch with 2 threads, 204 rows/s and 5 ms for one: the threads serve"
    )
    slower = Profile([0.0, 0.008, 0.015], 1)
    assert str(Threads(2, COSTLY, slower)).endswith("133 rows/s and 8 ms for one: the batches serve")
    assert str(Threads(2, slower)) == "on 2 cores: one batch, 133 rows/s and 8 ms for one"
