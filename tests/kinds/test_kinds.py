"""What teams bring is packed, served, and decides over HTTP as it does in Python on the same raw rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from rollout import Classification
from tests.conftest import Service
from tests.kinds.kinds import KINDS, raw_rows
from tests.kinds.running import Packed, ask, expected, pack_kind, serving

EXACT = ("onnx", "torchscript")
# The first test packs all of them.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def packed() -> dict[str, Packed]:
    """All kinds, packed."""
    return {name: pack_kind(name, kind) for name, kind in KINDS.items()}


@pytest.fixture(scope="module")
def service(packed: dict[str, Packed], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """All kinds, served in single precision."""
    home = tmp_path_factory.mktemp("kinds")
    with serving(packed, home, ROLLOUT_VARIANT=",".join(EXACT), ROLLOUT_WORKERS="1") as running:
        yield running


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_answers_as_in_python(name: str, packed: dict[str, Packed], service: Service) -> None:
    manifest = packed[name].manifest
    assert set(EXACT) <= set(manifest.variants), manifest.left_out
    rows = raw_rows(KINDS[name].inputs, 24, seed=2)
    wanted, predictions = expected(KINDS[name], manifest, rows), ask(service, name, rows)
    if isinstance(manifest.task, Classification):
        labels = manifest.task.labels
        assert [one["label"] for one in predictions] == [labels[best] for best in wanted.argmax(1)]
        got = np.array([[one["scores"][label] for label in labels] for one in predictions])
    else:
        got = np.array([[one["value"]] for one in predictions])
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_the_kinds_are_told_apart(packed: dict[str, Packed]) -> None:
    """None of them answers always the same, which would agree with anything."""
    for name, kind in KINDS.items():
        wanted = expected(kind, packed[name].manifest, raw_rows(kind.inputs, 24, seed=2))
        assert len(set(wanted.argmax(1).tolist() if kind.labels else wanted[:, 0].tolist())) > 1, name
