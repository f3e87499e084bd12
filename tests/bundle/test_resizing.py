"""A picture becomes what training made of it: compared with torchvision's pictures and with torch's interpolation."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray

from rollout import Image
from rollout.bundle import resizing
from rollout.bundle.image_file import MAX_PIXELS
from rollout.bundle.resizing import FILTERS, KERNELS, SIZES, Fit, Resample, Size, put_in_the_middle, resized_size
from tests.bundle.data.torchvision_pictures import FILE, Case, load, picture, thin
from tests.bundle.pictures import file_of, sent

CASES = load()


def field_of(case: Case) -> Image:
    field = dict(case.field)
    preset = field.pop("preset", None)
    return Image(**field) if preset is None else getattr(Image, preset)(**field)


def name_of(case: Case) -> str:
    return " ".join(f"{name}={value}" for name, value in case.field.items() if name not in ("width", "channels"))


def differences(*, antialias: bool) -> list[tuple[str, int]]:
    """Returns by how much a value of a picture differs from torchvision's, of every case."""
    made = []
    for case, wanted in CASES:
        field = field_of(case)
        if field.antialias == antialias:
            pixels = thin(field.decode(sent(file_of(PIL.Image.fromarray(picture(*case.picture)), "PNG"))))
            assert pixels.shape == wanted.shape, case
            difference = np.abs(pixels.astype(int) - wanted).max()
            made.append((f"{case.picture[:2]} {name_of(case)}", int(difference)))
    return made


def test_pictures_are_torchvisions_bit_for_bit() -> None:
    made = differences(antialias=True)
    assert len(made) > 200
    assert [one for one in made if one[1]] == []


def test_pictures_without_antialiasing_are_torchvisions_within_one() -> None:
    made = differences(antialias=False)
    assert len(made) > 80
    assert [one for one in made if one[1] > 1] == []
    assert sum(difference > 0 for _, difference in made) < len(made) / 20, "and nearly all of them bit for bit"


def test_the_cases_cover_what_can_be_declared_and_are_small() -> None:
    fields = [field_of(case) for case, _ in CASES]
    assert {(field.fit, field.resample) for field in fields} >= {
        (fit, resample) for fit in ("crop", "stretch", "pad") for resample in FILTERS
    }
    assert {field.resample for field in fields if not field.antialias} == set(KERNELS)
    assert FILE.stat().st_size < 300_000


@pytest.mark.parametrize("resample", KERNELS)
@pytest.mark.parametrize("size", [(37, 53), (7, 5), (64, 64), (20, 20), (1, 9), (16, 24)])
def test_without_antialiasing_it_is_the_interpolation_of_torch(resample: Resample, size: Size) -> None:
    pixels = picture(size[1], size[0], 3, seed=3)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    options: dict[str, Any] = {} if resample == "nearest" else {"align_corners": False, "antialias": False}
    wanted = torch.nn.functional.interpolate(planes, (16, 24), mode=resample, **options)
    rounded = wanted[0].permute(1, 2, 0).round().clamp(0, 255).numpy()
    made = Image(height=16, width=24, channels=3, resample=resample, antialias=False)
    difference = np.abs(made.decode(sent(file_of(PIL.Image.fromarray(pixels), "PNG"))) - rounded)
    assert difference.max() <= 1, "where the sum lies between two values, its order decides"
    assert (difference > 0).mean() < 0.002


def test_every_name_is_in_a_table() -> None:
    assert set(SIZES) == set(get_args(Fit))
    assert set(FILTERS) == set(get_args(Resample))


@pytest.mark.parametrize(
    ("size", "fit", "resized"),
    [
        ((500, 375), "crop", (341, 256)),  # int(256 * 500 / 375) = int(341.33)
        ((375, 500), "crop", (256, 341)),
        ((599, 600), "crop", (256, 256)),  # int(256.43)
        ((100, 100), "crop", (256, 256)),
        ((500, 375), "pad", (224, 100)),  # int(100.8): it is the height that has room
        ((500, 100), "pad", (224, 44)),
        ((100, 375), "pad", (29, 112)),
        ((16384, 1), "pad", (224, 1)),
        ((1, 16384), "pad", (1, 112)),
        ((500, 375), "stretch", (224, 112)),
        ((500, 375), "exact", (500, 375)),
    ],
)
def test_the_longer_side_is_rounded_down(size: Size, fit: Fit, resized: Size) -> None:
    found = resized_size(size, (224, 112), fit, 256)
    assert found == resized or (fit == "pad" and size == (500, 375) and found == (149, 112))


@pytest.mark.parametrize(
    ("size", "left"), [(13, 0), (14, 1), (15, 2), (16, 2), (17, 2), (18, 3), (19, 4)], ids=str
)
def test_half_a_pixel_goes_to_the_even_side(size: int, left: int) -> None:
    ramp = PIL.Image.fromarray(np.arange(size, dtype=np.uint8)[None].repeat(12, 0))
    middle = np.asarray(
        put_in_the_middle(ramp, (size, 12), (12, 12), resample="bilinear", antialias=True, padding=0)
    )
    assert middle[0, 0] == left


def test_what_is_not_covered_has_the_declared_colour() -> None:
    line = sent(file_of(PIL.Image.new("RGB", (40, 9), (1, 2, 3)), "PNG"))
    colour = Image(height=8, width=8, channels=3, fit="pad", resample="bilinear", padding=(7, 8, 9)).decode(line)
    assert colour[[0, 2, 4, 7], 3].tolist() == [[7, 8, 9], [7, 8, 9], [7, 8, 9], [7, 8, 9]]
    assert colour[3, 3].tolist() == [1, 2, 3], "one line, with three above it and four below"
    grey = Image(height=8, width=8, channels=3, fit="pad", padding=114).decode(line)
    assert grey[0, 0].tolist() == [114] * 3
    smaller = Image(height=8, width=8, fit="crop", resize_to=4, padding=50).decode(line)
    assert smaller[:, 0].tolist() == [50, 50, 2, 2, 2, 2, 50, 50]


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize("size", [(97, 5), (5, 97)])
def test_an_elongated_picture_is_cropped_before_it_is_resized(
    resample: Resample, size: Size, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = PIL.Image.fromarray(picture(size[1], size[0], 3, seed=1))

    def middle() -> NDArray[np.uint8]:
        resized = resized_size(size, (224, 224), "crop", 256)
        of = put_in_the_middle(pixels, resized, (224, 224), resample=resample, antialias=True, padding=0)
        return np.asarray(of)

    whole = middle()
    monkeypatch.setattr(resizing, "MAX_PIXELS", 1)
    part = middle()
    difference = np.abs(part.astype(int) - whole)
    if resample in ("nearest", "box"):  # of which a value may be that of the pixel beside it
        assert (difference > 0).mean() < 0.02
    else:
        assert difference.max() <= 1


@pytest.mark.parametrize("size", [(16_384, 1), (1, 16_384), (16_384, 900)])
@pytest.mark.parametrize("antialias", [True, False])
def test_no_picture_makes_a_giant_of_it(size: Size, antialias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    resize = PIL.Image.Image.resize

    def spy(self: PIL.Image.Image, to: Size, *arguments: Any, **options: Any) -> PIL.Image.Image:
        made.append(to[0] * to[1])
        return resize(self, to, *arguments, **options)

    monkeypatch.setattr(PIL.Image.Image, "resize", spy)
    line = sent(file_of(PIL.Image.new("L", size, 9), "PNG"))
    field = Image(height=224, width=224, fit="crop", resize_to=256, resample="bilinear", antialias=antialias)
    assert np.array_equal(field.decode(line), np.full((224, 224), 9))
    assert max(made, default=0) <= MAX_PIXELS
