"""Boxes: which candidates become some, what is said of them, how far a score can be trusted."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from rollout import Boxes, Image, Tensor, box_targets
from rollout.errors import BundleError
from rollout.heads import Head, Heads, Truth, decode_head
from rollout.heads.box_calibration import calibrate, score_temperature
from rollout.heads.detection import average_precision, detect, matched, mean_average_precision
from rollout.heads.measured import Evaluated
from rollout.heads.truth import Box
from tests.heads.detector import HEAD, outputs_of, pictures

TWO = Boxes(labels=["cat", "dog"], candidates=3, most=2, review_threshold=0.6)
LEFT, NEAR, RIGHT = (0.0, 0.0, 0.5, 0.5), (0.05, 0.0, 0.55, 0.5), (0.5, 0.5, 1.0, 1.0)


def scores_of(*candidates: tuple[tuple[float, ...], tuple[float, ...]]) -> np.ndarray:
    """Returns a row of scores: the boxes of all candidates, then their scores."""
    boxes, scores = zip(*candidates, strict=True)
    return np.array([[*np.ravel(boxes), *np.ravel(scores)]], np.float32)


SEEN = scores_of((LEFT, (0.9, 0.1)), (NEAR, (0.8, 0.2)), (RIGHT, (0.1, 0.7)))
UNSURE = scores_of((LEFT, (0.9, 0.1)), (NEAR, (0.1, 0.2)), (RIGHT, (0.1, 0.5)))
NOTHING = scores_of((LEFT, (0.1, 0.1)), (NEAR, (0.1, 0.2)), (RIGHT, (0.1, 0.1)))


def answer(scores: np.ndarray, head: Boxes = TWO) -> dict[str, Any]:
    return dict(head.answer(head.numbers(scores)[0].tolist())._asdict())


def test_of_boxes_that_overlap_the_best_is_taken_and_the_best_of_all_comes_first() -> None:
    assert answer(SEEN)["boxes"] == [
        {"label": "cat", "score": 0.9, "box": [0, 0, 0.5, 0.5]},
        {"label": "dog", "score": 0.7, "box": [0.5, 0.5, 1, 1]},
    ]
    assert answer(NOTHING) == {"boxes": []}


def test_boxes_of_another_label_and_those_that_overlap_less_are_kept() -> None:
    boxes = np.array([[LEFT, NEAR, RIGHT]])
    scores = np.array([[[0.9, 0], [0, 0.8], [0.7, 0]]])
    assert detect(boxes, scores, 0.3, 0.5, 9).number == [3]
    scores = np.array([[[0.9, 0], [0.8, 0], [0.7, 0]]])
    assert detect(boxes, scores, 0.3, 0.5, 9).places[0, :2].tolist() == [0, 2]
    assert detect(boxes, scores, 0.3, 0.9, 9).number == [3]
    assert detect(boxes, scores, 0.3, None, 9).number == [3]
    assert detect(boxes, scores, 0.3, None, 2).scores.tolist() == [[0.9, 0.8]]
    assert detect(boxes, scores, 0.75, None, 9).number == [2]


def test_what_has_no_area_or_no_number_is_no_box_and_edges_end_with_the_image() -> None:
    boxes = np.array(
        [[(0.5, 0.5, 0.5, 1), (0.6, 0, 0.4, 1), (np.nan, 0, 1, 1), (-1, -1, 2, 0.5), (1.1, 0, 2, 1)]]
    )
    found = detect(boxes, np.full((1, 5, 1), 0.9), 0.3, None, 9)
    assert found.number == [1]
    assert found.boxes[0, 0].tolist() == [0, 0, 1, 0.5]


def test_suppression_is_that_of_one_box_after_the_other() -> None:
    generator = np.random.default_rng(0)
    corners = generator.random((30, 40, 2)) * 0.7
    boxes = np.concatenate([corners, corners + 0.1 + generator.random((30, 40, 2)) * 0.2], -1)
    scores = generator.random((30, 40, 3))
    found = detect(boxes, scores, 0.5, 0.2, 12)
    from rollout.heads.matching import iou

    for row in range(30):
        labels, best = scores[row].argmax(1), scores[row].max(1)
        kept: list[int] = []
        for one in np.argsort(-best, kind="stable").tolist():
            near = [other for other in kept if labels[other] == labels[one]]
            overlaps = iou(boxes[row, [one]], boxes[row, near]) if near else np.zeros((1, 1))
            if best[one] >= 0.5 and overlaps.max() <= 0.2:
                kept.append(one)
        kept = kept[:12]
        assert found.places[row, : found.number[row]].tolist() == kept


def test_a_row_is_the_same_whatever_other_rows_there_are() -> None:
    scores = HEAD.scores(outputs_of(pictures(np.random.default_rng(3), 40).inputs["image"]))
    alone = np.concatenate([HEAD.numbers(row[None]) for row in scores])
    assert np.array_equal(HEAD.numbers(scores), alone)
    assert HEAD.numbers(scores).shape == (40, HEAD.columns)


def test_with_a_background_scores_are_the_softmax_without_it() -> None:
    for background, logits in (("last", [1.0, 3.0, 2.0]), ("first", [2.0, 1.0, 3.0])):
        head = Boxes(labels=["cat", "dog"], candidates=1, background=background, most=1)  # type: ignore[arg-type]
        scores = head.scores(np.array([[*LEFT, *logits]], np.float32))
        (found,) = answer(scores, head)["boxes"]
        assert (found["label"], found["score"]) == ("dog", pytest.approx(0.665241, abs=1e-6))


def test_an_image_with_a_box_below_the_threshold_goes_to_review() -> None:
    rows = np.concatenate([SEEN, UNSURE, NOTHING])
    assert TWO.needs_review(rows).tolist() == [False, True, False]
    confidences = TWO.confidences(TWO.numbers(rows))
    assert confidences is not None
    assert confidences.tolist() == [0.7, 0.5, 1]
    all_of_them = msgspec.structs.replace(TWO, review_threshold=2.0)
    assert all_of_them.reviews_everything
    assert all_of_them.needs_review(rows).tolist() == [True, True, False]


def test_another_answer_is_another_set_of_boxes() -> None:
    moved = scores_of((LEFT, (0.9, 0.1)), (NEAR, (0.8, 0.2)), ((0.5, 0.55, 1.0, 1.0), (0.1, 0.7)))
    far = scores_of((LEFT, (0.9, 0.1)), (NEAR, (0.8, 0.2)), ((0.8, 0.5, 1.0, 1.0), (0.1, 0.7)))
    renamed = scores_of((LEFT, (0.9, 0.1)), (NEAR, (0.8, 0.2)), (RIGHT, (0.7, 0.1)))
    nearly = scores_of((LEFT, (0.9, 0.1)), (NEAR, (0.8, 0.2)), (RIGHT, (0.1, 0.300001)))
    below = scores_of((LEFT, (0.9, 0.1)), (NEAR, (0.8, 0.2)), (RIGHT, (0.1, 0.299999)))
    other = np.concatenate([moved, far, renamed, NOTHING, below])
    assert TWO.flipped(np.concatenate([SEEN] * 4 + [nearly]), other).tolist() == [False, True, True, True, False]
    assert TWO.distances(SEEN, far) == pytest.approx(0.3)
    assert TWO.distances(SEEN, renamed) == pytest.approx(0.6)
    unseen = UNSURE.copy()
    unseen[0, 4:8] = 0.3  # of a candidate that nobody sees
    assert TWO.distances(UNSURE, unseen) == 0
    assert TWO.distances(SEEN, np.full_like(SEEN, np.nan)) == np.inf
    ours, theirs = (TWO.numbers(each)[0].tolist() for each in (SEEN, far))
    assert TWO.agree(ours, ours)
    assert not TWO.agree(ours, theirs)
    assert TWO.distance(ours, theirs) == 0.5


def test_losses_are_one_less_f1() -> None:
    targets = box_targets([[("cat", LEFT)], [("cat", LEFT), ("dog", RIGHT)], []], TWO)
    assert TWO.losses(np.concatenate([SEEN, SEEN, NOTHING]), targets) == pytest.approx([1 / 3, 0, 0])
    assert TWO.right(np.concatenate([SEEN, SEEN, NOTHING]), targets).tolist() == [False, True, True]
    assert TWO.answer_losses(targets[[1, 1, 2]], targets) == pytest.approx([1 / 3, 0, 0])
    said = Truth(boxes=[Box("dog", RIGHT)])
    assert TWO.loss(answer(SEEN), said) == pytest.approx(1 / 3)
    assert TWO.loss(answer(NOTHING), Truth(boxes=[])) == 0
    assert TWO.truth_distance(said, Truth(boxes=[])) == 1


def test_average_precision_is_that_of_all_points() -> None:
    # By hand: right, wrong, right of 4: precision is 1 up to a recall of 1/4, then 2/3 up to 2/4, then 0.
    scores = np.array([0.7, 0.9, 0.8])
    assert average_precision(scores, np.array([True, True, False]), 4) == pytest.approx(1 / 4 + 2 / 3 / 4)
    targets = box_targets([[("cat", LEFT)], [("dog", RIGHT), ("cat", LEFT)]], TWO)
    boxes, of_labels = np.array([[LEFT, RIGHT]] * 2), np.array([[[0.9, 0], [0, 0.8]]] * 2)
    found = detect(boxes, of_labels, 0.3, 0.5, 2)
    assert matched(found, targets).tolist() == [[True, False], [True, True]]
    # Cats: both found. Dogs: at the same score, the one of the first image is wrong.
    assert mean_average_precision(found, targets) == pytest.approx((1 + 1 / 2) / 2)
    assert np.isnan(mean_average_precision(found, np.full((2, 2, 5), np.nan)))


def test_targets_are_labels_and_edges() -> None:
    targets = TWO.targets([Truth(boxes=[Box("dog", RIGHT)]), Truth(boxes=[])])
    assert targets.shape == (2, 2, 5)
    assert targets[0, 0].tolist() == [1, *RIGHT]
    assert np.isnan(targets[0, 1]).all()
    assert np.isnan(targets[1]).all()
    TWO.check_targets(targets)
    with pytest.raises(BundleError, match="row 0 has 3 boxes"):
        box_targets([[("cat", LEFT)] * 3], TWO)
    with pytest.raises(BundleError, match="'cow', which must be one of cat, dog"):
        box_targets([[("cow", LEFT)]], TWO)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 3, 5)),
        np.zeros((2, 2, 5), int),
        np.array([[[2.0, *LEFT], [np.nan] * 5]]),
        np.array([[[0.5, *LEFT], [np.nan] * 5]]),
        np.array([[[0.0, 0.5, 0, 0.5, 1], [np.nan] * 5]]),
        np.array([[[0.0, 0, 0, 1.5, 1], [np.nan] * 5]]),
        np.array([[[0.0, np.nan, 0, 1, 1], [np.nan] * 5]]),
    ],
    ids=["more", "integers", "no label", "half a label", "no area", "outside", "half a box"],
)
def test_targets_that_are_none_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(BundleError, match="box_targets makes them"):
        TWO.check_targets(wrong)


@pytest.mark.parametrize(
    ("field", "says"),
    [
        (Image(height=8, width=8, fit="crop"), "fit='crop' shows the module the middle of a file"),
        (Image(height=8, width=8, fit="pad"), "fit='pad' shows the module a file with something around it"),
        (Image(height=8, width=8, upright=False), "upright=False"),
    ],
)
def test_an_image_of_which_the_module_sees_another_part_is_refused(field: Image, says: str) -> None:
    with pytest.raises(BundleError, match=says):
        TWO.check_inputs({"photo": field})
    with pytest.raises(BundleError, match=f"things: .*{says}"):
        Heads(heads={"things": TWO}).check_inputs({"photo": field})
    for sound in (Image(height=8, width=8), Image(height=8, width=8, fit="exact"), Tensor(shape=(3, 8, 8))):
        TWO.check_inputs({"photo": sound})
    two = {"one": Image(height=8, width=8), "other": Image(height=8, width=8)}
    with pytest.raises(BundleError, match="there are one, other"):
        TWO.check_inputs(two)


def test_what_people_say_must_be_boxes_of_its_labels_in_the_image() -> None:
    assert not list(TWO.faults(Truth(boxes=[])))
    assert not list(TWO.faults(Truth(boxes=[Box("cat", LEFT)])))
    wrong = Truth(boxes=[Box("cow", LEFT), Box("dog", (0.5, 0, 0.4, 1)), Box("dog", (0, 0, 1, 1.1))])
    pointers = [pointer for pointer, _ in TWO.faults(wrong)]
    assert pointers == ["/boxes", "/boxes/0/label", "/boxes/1/box", "/boxes/2/box"]
    assert [pointer for pointer, _ in TWO.faults(Truth(label="cat"))] == ["/label", "/boxes"]


def test_an_answer_is_said_and_accepted_and_has_labels() -> None:
    assert TWO.says(answer(SEEN)) == "2 boxes: cat at 0.9, dog at 0.7"
    assert TWO.says(answer(NOTHING)) == "no box"
    assert TWO.in_words(UNSURE[0]) == "2 boxes: cat at 0.9, dog at 0.5"
    assert TWO.accepted(answer(SEEN)) == Truth(boxes=[Box("cat", LEFT), Box("dog", RIGHT)])
    assert TWO.labels_of(answer(SEEN)) == ["cat", "dog"]
    assert TWO.uncertainty(answer(UNSURE)) == 0.5
    assert TWO.uncertainty(answer(NOTHING)) == 0


def test_label_studio_has_rectangles_in_percent() -> None:
    regions = TWO.studio_result(answer(SEEN))
    assert [each["type"] for each in regions] == ["rectanglelabels"] * 2
    assert regions[1]["value"] == {
        "x": 50, "y": 50, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["dog"],
    }  # fmt: skip
    assert regions[1]["score"] == 0.7
    values = [each["value"] for each in regions]
    assert TWO.studio_truth(values) == TWO.accepted(answer(SEEN))
    assert TWO.studio_truth([]) == Truth(boxes=[])
    with pytest.raises(ValueError, match="something else than rectangles"):
        TWO.studio_truth([{"points": [[1, 1], [2, 2], [3, 1]], "polygonlabels": ["cat"]}])
    over = {"x": 99.5, "y": 0, "width": 0.5000001, "height": 10, "rectanglelabels": ["cat"]}
    assert TWO.studio_truth([over]).boxes == [Box("cat", (0.995, 0, 1, 0.1))]
    for wrong, says in (
        ({"rotation": 3}, "turned"),
        ({"rectanglelabels": []}, "one label"),
        ({"x": "1"}, "no x"),
    ):
        with pytest.raises(ValueError, match=says):
            TWO.studio_truth([values[0] | wrong])


def test_labels_are_translated_one_by_one() -> None:
    public = Boxes(labels=["Hund", "Katze"], candidates=3, most=2)
    meanings = {"cat": "Katze", "dog": "Hund"}
    assert TWO.public(meanings).labels == ["Katze", "Hund"]
    assert TWO.public({}) is TWO
    assert TWO.translation(TWO, {}) is None
    translate = TWO.translation(public, meanings)
    assert translate is not None
    translated = translate(TWO.numbers(np.concatenate([SEEN, NOTHING])))
    assert [public.says(public.answer(row)._asdict()) for row in translated.tolist()] == [
        "2 boxes: Katze at 0.9, Hund at 0.7", "no box",
    ]  # fmt: skip
    assert TWO.public(meanings).signature == public.signature
    assert TWO.signature != public.signature


def test_tensors_have_empty_places_behind_the_last_box() -> None:
    numbers = TWO.numbers(np.concatenate([SEEN, NOTHING]))
    tensors = {name: np.asarray(TWO.tensor(name, numbers)) for name in TWO.declared()}
    assert tensors["count"].tolist() == [2, 0]
    assert tensors["label"].tolist() == [["cat", "dog"], ["", ""]]
    assert tensors["score"].tolist() == [[0.9, 0.7], [0, 0]]
    assert tensors["box"].tolist() == [[list(LEFT), list(RIGHT)], [[0] * 4] * 2]
    for name, (_, shape) in TWO.declared().items():
        assert tensors[name].shape == (2, *shape)


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": []},
        {"labels": ["cat", "cat"]},
        {"candidates": 0},
        {"most": 0},
        {"least": 0},
        {"overlap": 1.5},
    ],
)
def test_options_that_contradict_each_other_are_refused(wrong: dict[str, Any]) -> None:
    given: dict[str, Any] = {"labels": ["cat"], "candidates": 3}
    with pytest.raises(ValueError, match=r"."):
        Boxes(**given | wrong)


def test_it_comes_back_from_json_as_it_was() -> None:
    again = msgspec.json.decode(msgspec.json.encode(TWO), type=Head, dec_hook=decode_head)
    assert again == TWO


def test_the_temperature_makes_scores_as_right_as_they_say() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (20_000, 1))
    right = generator.random(20_000) < 1 / (1 + np.exp(-logits[:, 0] / 2))
    assert score_temperature(logits, [0] * 20_000, right, has_background=False) == pytest.approx(2, rel=0.05)
    with_background = np.concatenate([np.zeros_like(logits), logits], 1)
    found = score_temperature(with_background, [1] * 20_000, right, has_background=True)
    assert found == pytest.approx(2, rel=0.05)
    assert score_temperature(np.zeros((0, 1)), [], np.zeros(0, bool), has_background=False) == 1


def test_boxes_that_nobody_reviews_are_rarely_wrong() -> None:
    """The share of wrong boxes, each image alike, is above ``risk`` for no more than ``delta`` of all draws."""
    head = msgspec.structs.replace(HEAD, risk=0.05)
    rows = pictures(np.random.default_rng(1), 1500)
    outputs, targets = outputs_of(rows.inputs["image"]), rows.targets
    broken, limits = 0, []
    for draw in range(20):
        own = np.random.default_rng(draw).permutation(len(targets))
        part, rest = own[:300], own[300:]
        made, _ = calibrate(head, outputs[part], targets[part])
        found = made.detect(made.scores(outputs[rest]))
        is_out = (found.number > 0) & ~made.needs_review(made.scores(outputs[rest]))
        wrong = (found.is_there & ~matched(found, targets[rest])).sum(1)[is_out] / found.number[is_out]
        broken += wrong.sum() > head.risk * len(wrong)  # nothing may go out
        limits.append(made.review_limit)
    assert np.median(limits) > head.least + 0.1  # it takes a threshold
    assert broken <= 4  # the 99.7th percentile for a rate of 0.05


def test_what_is_measured_and_reported() -> None:
    rows = pictures(np.random.default_rng(5), 600)
    outputs = outputs_of(rows.inputs["image"])
    head, evidence = calibrate(HEAD, outputs[:400], rows.targets[:400])
    part = (outputs[:400], rows.targets[:400])
    found = head.measured(Evaluated(part, outputs[400:], head.scores(outputs[400:]), rows.targets[400:]))
    assert 0.8 < found.figures["average_precision"] <= 1
    assert 0.8 < found.figures["precision"] < 1
    assert 0.8 < found.figures["recall"] <= 1
    assert found.figures["mean_loss"] == head.mean_loss(found.figures)
    assert "<svg" in found.diagram
    text, facts = head.report(found.figures, evidence)
    assert "at most 10.0% of the answers" in text
    assert "Of objects that were missed, nothing is promised" in text
    assert "calibration error after scaling" in facts
    nothing = msgspec.structs.replace(HEAD, least=1.0)
    with pytest.raises(BundleError, match="hardly any image"):
        calibrate(nothing, outputs, rows.targets)
    with pytest.raises(BundleError, match="no score"):
        calibrate(msgspec.structs.replace(HEAD, review_threshold=-1.0), outputs, rows.targets)
