"""``make large`` with a network that is small: packed, verified, served, measured; the large ones have their sizes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from loadtests import large, networks
from loadtests.large import BYTES, NETWORKS, SIDE, Network
from rollout import Image


class Small(nn.Module):
    """A few convolutions, with the preprocessing of the large ones."""

    def __init__(self) -> None:
        super().__init__()
        layers = [networks.convolution(3, 8, 7, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        self.network = networks.Normalized(nn.Sequential(*layers, nn.Linear(32, networks.LABELS)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        logits: torch.Tensor = self.network(image)
        return logits


@pytest.mark.parametrize(("name", "millions"), [("mobilenet", 2.24), ("resnet50", 23.53), ("encoder", 10.80)])
def test_the_networks_are_as_large_as_their_papers_say(name: str, millions: float) -> None:
    module = NETWORKS[name].make()
    assert sum(weight.numel() for weight in module.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    shape, code = ((2, BYTES), 255) if name == "encoder" else ((2, SIDE, SIDE, 3), 255)
    with torch.inference_mode():
        logits = module.eval()(torch.randint(0, code, shape, dtype=torch.uint8))
    assert logits.shape == (2, networks.LABELS)


@pytest.mark.process
def test_a_network_is_packed_served_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs = NETWORKS["mobilenet"]
    small = Network(Small, Image(height=SIDE, width=SIDE, channels=3), photographs.draw, photographs.write)
    monkeypatch.setitem(NETWORKS, "small", small)
    monkeypatch.setattr(large, "SECONDS", 0.5)
    monkeypatch.setenv("BENTOML_HOME", os.environ["BENTOML_HOME"])
    result = CliRunner().invoke(large.main, ["--only", "small", "--folder", str(tmp_path / "large")])
    assert result.exit_code == 0, result.output
    table = (tmp_path / "large" / "large.md").read_text()
    assert table.splitlines()[0].endswith("served on cpu")
    cells = [cell.strip() for cell in table.splitlines()[-1].strip("|").split("|")]
    assert cells[0] == "small"
    assert "**" in cells[2], "what serves stands out"
    assert float(cells[7]) == 0, "no request of one row is late"
    assert all(float(cell.split()[0]) > 0 for cell in (cells[6], *cells[8:]))


def test_a_training_is_one() -> None:
    """Even a network of one convolution, of rows that it has not seen."""
    torch.manual_seed(0)
    photographs = NETWORKS["mobilenet"]

    def rows(count: int, seed: int) -> torch.Tensor:
        return torch.tensor(np.stack(photographs.draw(count, seed)))

    module = networks.trained(Small(), rows(80, 9), torch.arange(80) % networks.LABELS)
    with torch.inference_mode():
        found = module(rows(40, 1)).argmax(1)
    assert (found == torch.arange(40) % networks.LABELS).float().mean() > 0.25  # guessing has 0.1
    assert not module.training


def test_of_another_network_the_classes_are_fitted() -> None:
    class Bytes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.tokens = nn.Embedding(256, 64)
            self.network = nn.Sequential(nn.Linear(64, networks.LABELS))

        def forward(self, text: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.network(self.tokens(text.long()).mean(1))
            return logits

    def rows(count: int, seed: int) -> torch.Tensor:
        texts = NETWORKS["encoder"].draw(count, seed)
        return torch.tensor([list(text.encode().ljust(BYTES, b"\0")) for text in texts], dtype=torch.uint8)

    module = networks.trained(Bytes(), rows(160, 9), torch.arange(160) % networks.LABELS)
    with torch.inference_mode():
        found = module(rows(50, 1)).argmax(1)
    assert (found == torch.arange(50) % networks.LABELS).float().mean() > 0.8
