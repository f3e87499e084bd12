"""A bundle is held to its author's own pipeline, from the raw input; where they part is said stage by stage."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import PIL.Image
import pytest
import torch

from rollout import Answered, Image, Reference, Regression, RolloutError, Tensor, Text
from rollout.bundle.reference import NotAsInTrainingError, compare_reference
from rollout.bundle.schema import InputSchema
from rollout.bundle.source import ModuleSource
from tests.bundle import seen, two
from tests.bundle.seen import SIDE, Texture, answer, compare, files, pixels


def test_a_bundle_that_decides_as_in_training_says_so_stage_by_stage() -> None:
    compared = compare()
    found = compared.result
    assert found.by == "tests.bundle.seen.answer"
    assert (found.rows, found.flipped, found.refused, found.worst) == (12, 0, 0, [])
    assert found.largest_difference < 1e-5
    assert [(stage.where, stage.name, stage.rows, stage.differ) for stage in found.stages] == [
        ("decoded", "image", 12, 0),
        ("layer", "scale", 12, 0),
        ("outputs", "", 12, 0),
        ("scores", "", 12, 0),
    ]
    assert not compared.pictures


def nearest(raw: Mapping[str, Any]) -> Answered:
    image = pixels(raw, PIL.Image.Resampling.NEAREST)
    return Answered(Texture()(torch.from_numpy(image)[None]), {"image": image})


def other_normalisation(raw: Mapping[str, Any]) -> Answered:
    image = pixels(raw)
    scaled = torch.from_numpy(image)[None] / 255 * 1.5
    return Answered(Texture().decide(scaled), {"scale": scaled, "image": image[None].tolist()})


def other_order(raw: Mapping[str, Any]) -> Answered:
    return Answered(answer(raw).outputs.flip(-1), {"image": pixels(raw)})


def nothing_said(raw: Mapping[str, Any]) -> torch.Tensor:
    return nearest(raw).outputs  # type: ignore[no-any-return]


def in_colour(raw: Mapping[str, Any]) -> Answered:
    image = PIL.Image.open(io.BytesIO(raw["image"])).convert("RGB").resize((SIDE, SIDE), PIL.Image.Resampling.BOX)
    return Answered([9.0, -9.0], {"image": np.asarray(image)})


def halved(raw: Mapping[str, Any]) -> Answered:
    return Answered([9.0, -9.0], {"image": pixels(raw) / np.float32(255)})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            nearest,
            r"seen:v0 is refused: \d+ of 12 raw rows are decided otherwise than by the author's own pipeline "
            r"\(tests\.bundle\.test_reference\.nearest\), and 0.00% may be: image differs already when it is decoded, "
            r"by up to \d+ of 255 in 12 of 12 rows \(\d+ on average\); Image\(resample='nearest'\) would decode every "
            r"row to the author's array$",
        ),
        (
            other_normalisation,
            r"may be: in the graph, layer scale is the first to differ, by up to [\d.]+ in 12 of 12 rows \([\d.]+ on "
            r"average\); the module gives other outputs, from the author's own arrays, by up to",
        ),
        (
            other_order,
            r"may be: the module gives other outputs, from the author's own arrays, .*; they are the same in another "
            r"order: output 0 \(smooth\) is 1 there$",
        ),
        (
            nothing_said,
            r"the module gives other outputs, from the bundle's own image, by .*; to see at which stage, let the "
            r"reference return Answered\(outputs, stages=\{'image': …\}\)",
        ),
        (
            in_colour,
            r"decoded, in 12 of 12 rows: the author's array has shape \(16, 16, 3\), the bundle's \(16, 16\); "
            r"Image\(channels=3\) would decode every row to the author's array; the module gives other outputs, from "
            r"the bundle's own image",
        ),
        (halved, r"\(\d+ on average\); the author's array is float32, the bundle's uint8"),
    ],
)
def test_the_stage_at_which_they_part_is_named(answer: seen.Answer, words: str) -> None:
    with pytest.raises(NotAsInTrainingError, match=words):
        compare(answer)


class Chosen(Image, frozen=True, kw_only=True, tag="chosen"):
    """An image of which the filter can be chosen."""

    sharp: bool = False

    def decode_file(self, data: bytes, budget: Any = None) -> Any:
        filters = PIL.Image.Resampling
        return pixels({"image": data}, filters.NEAREST if self.sharp else filters.BOX)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (nearest, r"; Chosen\(sharp=True\) would decode every row to the author's array$"),
        (
            nothing_said,
            r"; with Chosen\(sharp=True\) for image, every score would be the author's; to see at which",
        ),
    ],
)
def test_settings_with_which_they_would_agree_are_named(answer: seen.Answer, words: str) -> None:
    with pytest.raises(NotAsInTrainingError, match=words):
        compare(answer, field=Chosen(height=SIDE, width=SIDE))
    with pytest.raises(NotAsInTrainingError) as caught:
        compare(lambda raw: answer(raw)[0] * -1, field=Chosen(height=SIDE, width=SIDE))
    assert "sharp" not in caught.value.detail


def test_the_worst_rows_have_pictures_of_both_and_of_the_difference() -> None:
    with pytest.raises(NotAsInTrainingError) as caught:
        compare(nearest)
    compared = caught.value.compared
    assert [len(worst.pictures) for worst in compared.result.worst] == [1, 1, 1, 1]
    assert "rough at" in compared.result.worst[0].text
    worst = compared.result.worst[0]
    sheet = np.asarray(PIL.Image.open(io.BytesIO(compared.pictures[worst.pictures[0]])))
    times = sheet.shape[0] // SIDE
    theirs, ours, apart = (
        sheet[::times, at : at + SIDE * times : times, 0] for at in (0, SIDE * times + 8, 2 * (SIDE * times + 8))
    )
    raw = files()[worst.row]
    assert np.array_equal(theirs, pixels(raw, PIL.Image.Resampling.NEAREST))
    assert np.array_equal(ours, pixels(raw))
    assert apart.max() == 255
    assert np.array_equal(apart == 0, theirs == ours)


def test_what_is_declared_is_allowed_and_recorded() -> None:
    with pytest.raises(NotAsInTrainingError, match=r"a score is 0\.\d+ from that of .*, and 0.001 may be"):
        compare(nearest, most_flipped=1.0)
    found = compare(nearest, most_flipped=1.0, tolerance=1.0).result
    assert 0 < found.flipped <= 12
    assert found.largest_difference > 0.5


CALLS = itertools.count()


def counted(raw: Mapping[str, Any]) -> Any:
    return np.array([next(CALLS), 0.0])


def raising(raw: Mapping[str, Any]) -> Any:
    raise KeyError("cutout")


@pytest.mark.parametrize(
    ("answer", "rows", "words"),
    [
        (raising, None, r"the reference .*raising fails on raw row 0: KeyError: 'cutout'"),
        (
            counted,
            None,
            r"answers raw row 0 differently when it is asked twice: leave out what is drawn at random",
        ),
        (
            lambda _: [1.0, 2.0, 3.0],
            None,
            r"outputs of shape \(3,\) for raw row 0; the module gives \(2,\) a row",
        ),
        (lambda _: [1.0, np.nan], None, "gives outputs that are not finite numbers for raw row 0"),
        (lambda _: "rough", None, "fails on raw row 0: TypeError: expected numbers, got str"),
        (
            lambda _: Answered([1, 0], {"resized": [1]}),
            None,
            "'resized', which is neither a field .image. nor a layer",
        ),
        (
            lambda raw: answer(raw)._replace(label="raw"),
            None,
            "calls raw row 0 'raw', and the label of its largest",
        ),
        (answer, [], "the reference has no rows"),
        (answer, [b"file"], "raw row 0 of the reference is a bytes, not a dict by field"),
        (
            lambda _: [1, 0],
            [{"image": object()}],
            "raw row 0 .* cannot be sent as JSON: a object has no form in JSON",
        ),
    ],
)
def test_what_is_no_reference_is_refused_with_a_sentence(answer: seen.Answer, rows: Any, words: str) -> None:
    with pytest.raises(RolloutError, match=words):
        compare(answer, rows)


@pytest.mark.parametrize(
    "form",
    [torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.double, lambda logits: logits[0].requires_grad_()],
)
def test_outputs_may_be_of_any_library(form: Any) -> None:
    assert compare(lambda raw: form(answer(raw).outputs)).result.flipped == 0


def gif() -> bytes:
    file = io.BytesIO()
    PIL.Image.new("L", (SIDE, SIDE)).save(file, "GIF")
    return file.getvalue()


def test_a_row_that_the_service_would_refuse_is_a_finding() -> None:
    rows = [*files(3), {"image": gif()}]
    with pytest.raises(NotAsInTrainingError) as caught:
        compare(rows=rows)
    assert "1 of 4 raw rows are decided otherwise" in caught.value.detail
    assert "raw row 3 would be answered with a 422: /image: the bytes are neither a PNG" in caught.value.detail
    found = compare(rows=rows, most_flipped=0.25)
    assert (found.result.refused, found.result.flipped, found.result.worst[0].row) == (1, 1, 3)
    assert [example.row for example in found.examples] == [0, 1, 2]
    with pytest.raises(NotAsInTrainingError, match="the service would refuse every raw row of the"):
        compare(rows=rows[3:], most_flipped=1.0)


def test_raw_values_are_sent_as_json_has_them() -> None:
    seen: list[Any] = []

    class Schema(InputSchema):
        def decode(self, inputs: Any, budget: Any = None) -> Any:
            seen.append({name: bytes(raw) for name, raw in inputs.items()})
            return super().decode({"x": msgspec.Raw(b"[1, 2]")})

    at = datetime(2026, 11, 5, 10, tzinfo=UTC)
    row = {
        "a": b"\x00",
        "b": np.float32(0.5),
        "c": torch.ones(2),
        "d": None,
        "e": at,
        "f": float("nan"),
        "g": "é",
    }
    source = ModuleSource(two.Two().eval(), two.TASK, two.part(2, 0).inputs)
    reference = Reference([row], lambda _: source.outputs({"x": np.array([[1, 2]], np.float32)}))
    compare_reference(reference, Schema({"x": Tensor(shape=(2,))}), source, "two:v0")
    assert seen[0] == {
        "a": b'"AA=="',
        "b": b"0.5",
        "c": b"[1.0,1.0]",
        "d": b"null",
        "e": b'"2026-11-05T10:00:00Z"',
        "f": b"null",
        "g": '"é"'.encode(),
    }


class Length(torch.nn.Module):
    """Guesses a number and its spread from a text."""

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Returns value and spread."""
        length = (text > 0).sum(1).float()
        return torch.stack([length, length + 1], 1)


def test_texts_are_shown_as_texts_and_a_regression_in_its_units() -> None:
    field = Text(max_bytes=8)
    source = ModuleSource(
        Length().eval(), Regression(half_width=1.0, scale=2.0), {"text": field.encode(["a", "b"])}
    )

    def stripped(raw: Mapping[str, Any]) -> Answered:
        text = raw["text"].strip()
        return Answered([len(text), len(text) + 1], {"text": field.encode([text])})

    reference = Reference([{"text": "so"}, {"text": " so "}], stripped, tolerance=1.0)
    with pytest.raises(NotAsInTrainingError, match="1 of 2 raw rows are decided otherwise") as caught:
        compare_reference(reference, InputSchema({"text": field}), source, "length:v0")
    (worst,) = caught.value.compared.result.worst
    assert worst.text == "2 ± 3 became 4 ± 5; text 'so' became ' so '"
    assert caught.value.compared.result.largest_difference == 1.0
