"""Error analysis: mistakes in groups, and rows shown as what they are."""

from __future__ import annotations

import io
import wave

import msgspec
import numpy as np
import PIL.Image

from rollout import Classification, Image, Labelled, Number, Regression, Tensor, Text
from rollout.bundle.fields import Field
from rollout.bundle.mistakes import Answered, find_mistakes, see
from rollout.bundle.mistakes_report import describe_mistakes

ROWS = 300
CLASSES = Classification(labels=["cat", "dog"])


def answered() -> tuple[Answered, dict[str, Field]]:
    """Dark images of cats are taken for dogs."""
    chance = np.random.default_rng(0)
    targets = np.arange(ROWS) % 2
    dark = np.arange(ROWS) < 60
    pixels = np.where(dark, 20, 160)[:, None, None] + chance.integers(0, 40, (ROWS, 4, 4))
    answers = np.where(dark & (targets == 0), 1, targets)
    scores = np.where(np.eye(2)[answers] > 0, 0.9, 0.1).astype(np.float32)
    inputs: dict[str, Field] = {"image": Image(height=4, width=4), "words": Text(max_bytes=20)}
    arrays = {"image": pixels.astype(np.uint8), "words": Text(max_bytes=20).encode(["<b>hi</b>"] * ROWS)}
    return Answered("the evaluation part", Labelled(arrays, targets), scores), inputs


def test_mistakes_are_grouped_by_label_and_by_input() -> None:
    rows, inputs = answered()
    found = find_mistakes(rows, inputs, CLASSES)
    assert (found.rows, found.mistakes, found.rate) == (ROWS, 30, 0.1)
    assert found.low < 0.1 < found.high
    (group,) = found.groups
    assert (group.truth, group.answer, group.rows, group.of, group.share) == ("cat", "dog", 30, 150, 0.2)
    assert group.examples == [0, 2, 4, 6]
    assert found.slices[0].name.startswith("image.")
    assert found.slices[0].p_value < 1e-10
    assert found.examples[0].truth == "cat"
    assert found.examples[0].answer == "dog at 0.9000"
    assert set(found.largest) <= set(range(0, 60, 2))
    assert msgspec.json.decode(msgspec.json.encode(found))["groups"][0]["truth"] == "cat"


def test_sections_say_it_and_show_a_bounded_number_of_rows() -> None:
    rows, inputs = answered()
    first, by_label, by_input = describe_mistakes(find_mistakes(rows, inputs, CLASSES), rows, inputs, ["A note."])
    assert first.text[0] == "A note."
    assert "30 of 300 rows are mistakes, 10.00% (95 % interval" in first.text[1]
    assert by_label.table is not None
    assert by_label.table.rows == {"cat": [["dog", "30", "150", "20.0%"]]}
    assert "corrected by Holm's method" in by_input.text[0]
    assert 0 < len(by_input.examples) <= 24
    assert len(first.examples) <= 12
    assert by_label.examples[0].facts == {"words": "'<b>hi</b>'"}
    assert PIL.Image.open(io.BytesIO(by_label.examples[0].pictures["image"])).size == (4, 4)


def test_where_nearly_every_row_has_a_loss_the_largest_tenth_counts() -> None:
    targets = np.linspace(0, 1, 200)
    scores = np.zeros((200, Regression().outputs), np.float32)
    inputs: dict[str, Field] = {"x": Number()}
    rows = Answered("rows", Labelled({"x": targets.astype(np.float32)}, targets), scores)
    found = find_mistakes(rows, inputs, Regression())
    assert found.mistakes == 20
    assert "largest tenth" in found.counts_as
    assert found.groups == []
    assert found.slices[0].name.startswith("x from 0.8")
    assert found.largest[0] == 199


def test_sounds_are_to_be_heard() -> None:
    inputs: dict[str, Field] = {"sound": Tensor(shape=(80,), sample_rate=8000)}
    rows = Answered(
        "rows", Labelled({"sound": np.zeros((1, 80), np.float32)}, np.zeros(1)), np.zeros((1, 1), np.float32)
    )
    example = see(0, "one", rows, inputs)
    with wave.open(io.BytesIO(example.sounds["sound"])) as reader:
        assert (reader.getframerate(), reader.getnframes()) == (8000, 80)
