"""What the client does with a service that has more work than it can do, fails on a row, or stops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rollout.client import (
    Client,
    NoAnswerError,
    OverloadedError,
    PredictionFailedError,
    UnreachableError,
)
from tests.client.test_client import pixels
from tests.conftest import ROOT, Service, run_service, set_split

FAULTS = str(ROOT / "tests" / "service" / "faults")
# One request fills a queue that may hold a second of work: 40 ms for a batch, and 4 ms for each of its rows.
ROWS, AT_ONCE = 64, 24


@pytest.fixture(scope="module")
def slow(bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers that take 300 ms for a full batch."""
    home = tmp_path_factory.mktemp("slow")
    set_split(home, "--champion", "v2")
    with run_service(home, PYTHONPATH=f"{ROOT / 'src'}:{FAULTS}", FAULT="slow") as running:
        yield running


def test_what_is_shed_is_sent_again_until_all_rows_are_answered(slow: Service) -> None:
    images = np.tile(pixels(), (ROWS * AT_ONCE, 1, 1))
    keys = [f"row-{number}" for number in range(len(images))]
    with Client(slow.base, model="digits", timeout=60) as client:
        answers = client.predict_many({"image": images}, client_id="c-1", key=keys, batch=ROWS, at_once=AT_ONCE)
    assert [one.key for one in answers] == keys
    assert slow.metric("rollout_errors_total", 'type="overloaded"') > 0


def test_who_has_no_time_to_come_back_is_told_that_it_is_overloaded(slow: Service) -> None:
    images = np.tile(pixels(), (ROWS * AT_ONCE, 1, 1))
    with Client(slow.base, model="digits", timeout=1) as client, pytest.raises((OverloadedError, TimeoutError)):
        client.predict_many({"image": images}, client_id="c-1", batch=ROWS, at_once=AT_ONCE)


def test_a_deadline_is_kept(slow: Service) -> None:
    with Client(slow.base, model="digits") as client:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            client.predict("c-1", {"image": pixels()}, timeout=0.02)
        assert time.monotonic() - started < 10, "without a timeout of its own it would have 30 s"


def test_rows_that_the_model_fails_on_are_named(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, "--champion", "v2")
    with run_service(tmp_path, PYTHONPATH=f"{ROOT / 'src'}:{FAULTS}", FAULT="raises") as running:
        rows = [{"image": pixels()}] * 6 + [{"image": np.zeros_like(pixels())}]
        with Client(running.base, model="digits") as client:
            with pytest.raises(PredictionFailedError, match="the log of the service says why") as caught:
                client.predict_many(rows, client_id="c-1", batch=4)
            assert "rows 4 to 6" in caught.value.__notes__[0]
            assert "a model failed on a row: " in running.log.read_text()
            assert "no light" in running.log.read_text()
            running.stop()
            with pytest.raises((UnreachableError, OverloadedError, NoAnswerError)):
                client.predict_many(rows[:1], client_id="c-1", timeout=0.5)
