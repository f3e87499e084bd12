"""An image model that was trained behind torchvision's transforms decides over HTTP as in the notebook, file by file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from rollout import Answered, Classification, Image, Labelled, Reference, RolloutError, pack
from rollout.bundle.manifest import Manifest
from tests.bundle.data.torchvision_pictures import load, picture
from tests.bundle.pictures import file_of
from tests.conftest import Service, run_service, set_split

LABELS = ["dark", "bright", "mixed"]
SIDE = 12
AS_TRAINED = {"fit": "crop", "resize_to": 16, "resample": "bilinear"}
PREDICT = "/v1/models/notebook/predict"


class Notebook(nn.Module):
    """A small network behind ``Normalize`` of torchvision; its weights are drawn, and its outputs far apart."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1))
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(200, 3))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns logits for pixels of shape ``(rows, height, width, 3)``."""
        scaled = image.permute(0, 3, 1, 2).float() / 255
        logits: torch.Tensor = self.layers((scaled - self.mean) / self.deviation) * 20
        return logits


def files() -> dict[bytes, NDArray[np.uint8]]:
    """Returns pictures of every size as PNG files, each with what torchvision's transforms made of it."""
    wanted = {"height": SIDE, "width": SIDE, "channels": 3, **AS_TRAINED}
    found = {
        file_of(PIL.Image.fromarray(picture(*case.picture)), "PNG"): pixels
        for case, pixels in load()
        if case.field == wanted
    }
    assert len(found) == 7
    return found


FILES = files()
MODULE = Notebook().eval()


def logits(pixels: NDArray[np.uint8]) -> torch.Tensor:
    with torch.no_grad():
        given: torch.Tensor = MODULE(torch.from_numpy(pixels)[None])[0]
    return given


def in_the_notebook(raw: Mapping[str, Any]) -> Answered:
    """The author's own way: torchvision's picture of a file, and the module."""
    pixels = FILES[raw["image"]]
    return Answered(logits(pixels), {"image": pixels})


def part(seed: int, rows: int = 300) -> Labelled:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, SIDE, SIDE, 3), np.uint8)
    with torch.no_grad():
        return Labelled({"image": pixels}, MODULE(torch.from_numpy(pixels)).argmax(1).numpy())


def pack_notebook(version: str, **field: Any) -> Manifest:
    return pack(
        MODULE,
        name="notebook",
        version=version,
        inputs={"image": Image(height=SIDE, width=SIDE, channels=3, **field)},
        task=Classification(labels=LABELS, risk=0.1),
        calibration=part(1),
        evaluation=part(2),
        reference=Reference([{"image": data} for data in FILES], in_the_notebook),
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Manifest]]:
    manifest = pack_notebook("v1", **AS_TRAINED)
    home = tmp_path_factory.mktemp("notebook")
    set_split(home, "--champion", "v1", model="notebook")
    with run_service(home, ROLLOUT_WORKERS="1", ROLLOUT_VARIANT="onnx") as running:
        yield running, manifest


def test_every_file_is_answered_as_in_the_notebook(service: tuple[Service, Manifest]) -> None:
    running, manifest = service
    assert manifest.reference is not None
    assert (manifest.reference.rows, manifest.reference.flipped) == (len(FILES), 0)
    assert isinstance(manifest.task, Classification)
    labels = set()
    with running.client() as client:
        for number, (data, pixels) in enumerate(FILES.items()):
            ids = {"client_id": f"c-{number}"}
            answer = client.post(PREDICT, params=ids, content=data, headers={"Content-Type": "image/png"}).json()
            scores = torch.softmax(logits(pixels) / manifest.task.temperature, 0).numpy()
            assert list(answer["scores"].values()) == pytest.approx(scores, abs=1e-4)
            assert answer["label"] == LABELS[scores.argmax()]
            labels.add(answer["label"])
    assert len(labels) > 1


def test_another_way_of_resizing_is_refused_with_the_stage_that_differs() -> None:
    with pytest.raises(RolloutError, match=r"6 of 7 raw rows.*image differs already when it is decoded"):
        pack_notebook("v2")
