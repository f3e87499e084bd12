"""Errors on their way to the wire: they take nothing along."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from rollout.errors import InvalidRequestError, RolloutError
from rollout.http.problems import as_rollout_error


class Body:
    """A body that somebody may look for."""

    text = "no number"


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_an_error_keeps_nothing_of_where_it_was_raised() -> None:
    def refuse(body: Body) -> None:
        try:
            int(body.text)
        except ValueError:
            raise InvalidRequestError("it is no number") from None

    def answer(body: Body) -> RolloutError:
        try:
            refuse(body)
        except Exception as error:
            ours = as_rollout_error(error)
        return ours

    body = Body()
    seen = weakref.ref(body)
    ours = answer(body)
    del body
    assert seen() is None
    assert ours.detail == "it is no number"
