"""What torchvision makes of pictures: ``torchvision_pictures.npz``, and how it was made.

Neither Rollout nor its tests need torchvision. To make the file again, in a folder that is not the environment's, since
the wheel asks for a torch of its own:

    pip install --target /tmp/torchvision --no-deps torchvision==0.28.0
    PYTHONPATH=/tmp/torchvision:src:. python -m tests.bundle.data.torchvision_pictures
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_suffix(".npz")
FILTERS = ("nearest", "box", "bilinear", "bicubic", "lanczos")
SIZES = ((37, 53), (53, 38), (40, 40), (16, 200), (200, 17), (9, 12), (1, 7))
"""Heights and widths: upright, lying, square, long, and to be made larger."""
CROPS = ((16, (12, 12)), (17, (12, 9)), (24, (11, 16)), (12, (12, 20)))
"""Shorter side, then height and width of the crop: even and odd to take away, and once more than there is."""


class Case(NamedTuple):
    """One picture and what becomes of it.

    Attributes:
        picture: The arguments of ``picture``.
        field: The arguments of ``Image``, or the name of a preset and its arguments.
    """

    picture: list[int]
    field: dict[str, Any]


def picture(height: int, width: int, channels: int, seed: int) -> NDArray[np.uint8]:
    """Returns noise, in which every pixel that is another one shows; the generator is one that does not change."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.RandomState(seed).randint(0, 256, shape, np.uint8)


def load() -> list[tuple[Case, NDArray[np.uint8]]]:
    """Returns every case with torchvision's picture; of large ones, every ninth pixel."""
    with np.load(FILE) as file:
        cases = json.loads(str(file["cases"]))
        return [(Case(*case), file[str(number)]) for number, case in enumerate(cases)]


def thin(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns what is kept of a picture."""
    return pixels[::9, ::9] if len(pixels) > 100 else pixels


def _cases() -> Iterator[Case]:
    seeds = itertools.count()
    for (height, width), (shorter, target), resample in itertools.product(SIZES, CROPS, FILTERS):
        field = {
            "height": target[0],
            "width": target[1],
            "fit": "crop",
            "resize_to": shorter,
            "resample": resample,
        }
        channels = 1 if shorter == 17 else 3
        yield Case([height, width, channels, next(seeds)], field | {"channels": channels})
        if resample in ("nearest", "bilinear", "bicubic"):
            yield Case([height, width, 1, next(seeds)], field | {"channels": 1, "antialias": False})
    for (height, width), resample in itertools.product(SIZES, FILTERS):
        field = {"height": 13, "width": 13, "resample": resample, "channels": 1}
        yield Case([height, width, 1, next(seeds)], field | {"fit": "stretch"})
        if height > 1:  # a line has nothing left of its height, and torchvision fails
            yield Case([height, width, 1, next(seeds)], field | {"fit": "pad"})
    for height, width in ((375, 500), (501, 333)):
        for preset in ({"preset": "imagenet"}, {"preset": "clip"}, {"preset": "vit"}):
            yield Case([height, width, 3, next(seeds)], preset)
        yield Case([height, width, 3, next(seeds)], {"preset": "imagenet", "resize_to": 232})


def _torchvision(case: Case) -> NDArray[np.uint8]:
    import PIL.Image
    import torch

    # The wheel's compiled operators want a torch for GPUs. No transform needs them, but their registration does.
    torch.library.register_fake = lambda *_, **__: lambda function: function
    image = PIL.Image.fromarray(picture(*case.picture))
    made = _by_preset(image, **case.field) if "preset" in case.field else _by_functions(image, **case.field)
    return np.asarray(made, np.uint8)


def _by_preset(image: Any, preset: str, resize_to: int = 256) -> Any:
    from torchvision.models import ResNet50_Weights
    from torchvision.transforms import InterpolationMode, functional

    if preset == "imagenet":
        weights = {256: ResNet50_Weights.IMAGENET1K_V1, 232: ResNet50_Weights.IMAGENET1K_V2}[resize_to]
        return (weights.transforms(mean=(0, 0, 0), std=(1, 1, 1))(image) * 255).round().permute(1, 2, 0)
    if preset == "clip":
        return functional.center_crop(functional.resize(image, 224, InterpolationMode.BICUBIC), 224)
    return functional.resize(image, [224, 224], InterpolationMode.BILINEAR)


def _by_functions(
    image: Any, fit: str, height: int, width: int, resample: str, *, antialias: bool = True, **more: int
) -> Any:
    import torch
    import torchvision.transforms.v2.functional as v2
    from torchvision.transforms import InterpolationMode, functional

    target, mode = [height, width], InterpolationMode(resample)
    if fit == "stretch":
        return functional.resize(image, target, mode)
    if fit == "pad":
        return functional.center_crop(v2.resize(image, None, mode, max_size=height), target)
    if antialias:
        return functional.center_crop(functional.resize(image, more["resize_to"], mode), target)
    pixels = torch.from_numpy(np.array(image))[None]
    return functional.center_crop(functional.resize(pixels, more["resize_to"], mode, antialias=False), target)[0]


def _write() -> None:
    cases = list(_cases())
    pictures = {str(number): thin(_torchvision(case)) for number, case in enumerate(cases)}
    np.savez_compressed(FILE, allow_pickle=False, cases=np.array(json.dumps(cases)), **pictures)


if __name__ == "__main__":
    _write()
