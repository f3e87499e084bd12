"""Several heads of one model: one table, one item, one judge."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from rollout import (
    Classification,
    Embedding,
    Heads,
    Labelled,
    Output,
    Regression,
    RolloutError,
    Score,
    Tensor,
    Tensors,
    pack,
    targets_of,
)
from rollout.bundle.manifest import Manifest
from rollout.heads import Truth
from rollout.heads.structured import columns_of, joined, known, rows_of

RNG = np.random.default_rng(0)
LATE = Classification(labels=["no", "yes"], risk=0.1)
MINUTES = Regression(widest=3.2)
HEADS = Heads(
    heads={
        "late": LATE,
        "minutes": MINUTES,
        "place": Embedding(size=4, dtype="float16", encoding="base64"),
        "extra": Tensors(outputs_by_name={"grid": Output((2, 2)), "confidence": Output()}, threshold=0.3),
    }
)


class Flight(nn.Module):
    """Says several things about three numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.late, self.minutes, self.place = nn.Linear(3, 2), nn.Linear(3, 1), nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> Any:
        """Returns all heads by name."""
        place = self.place(x)
        extra = {"grid": place.reshape(-1, 2, 2), "confidence": torch.sigmoid(self.minutes(x))[:, 0]}
        return {"late": self.late(x) * 3, "minutes": self.minutes(x) * 10, "place": place, "extra": extra}


def rows(count: int) -> Labelled:
    x = RNG.normal(size=(count, 3)).astype(np.float32)
    with torch.no_grad():
        said = Flight()(torch.tensor(x))
    late = np.where(RNG.random(count) < 0.03, 0, 1) == said["late"].argmax(1).numpy()
    minutes = said["minutes"][:, 0].numpy() + RNG.normal(size=count)
    return Labelled({"x": x}, targets_of(late=late.astype(np.int64), minutes=minutes))


def packed(name: str, module: nn.Module, task: Heads, part: Any = rows) -> Manifest:
    return pack(
        module.eval(),
        name=name,
        version="v1",
        inputs={"x": Tensor(shape=(3,))},
        task=task,
        calibration=part(600),
        evaluation=part(200),
    )


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return packed("several", Flight(), HEADS)


def heads_of(manifest: Manifest) -> Heads:
    assert isinstance(manifest.task, Heads)
    return manifest.task


def test_each_head_is_calibrated_and_measured_by_itself(manifest: Manifest) -> None:
    task = heads_of(manifest)
    assert {"onnx", "torchscript", "export"} <= manifest.variants.keys()
    late, minutes = task.heads["late"], task.heads["minutes"]
    assert isinstance(late, Classification)
    assert isinstance(minutes, Regression)
    assert late.review_threshold is not None
    assert minutes.half_width == pytest.approx(1.645, abs=0.25)
    assert manifest.metrics["minutes_coverage"] == pytest.approx(0.9, abs=0.08)
    assert task.mean_loss(manifest.metrics) == pytest.approx(1 - manifest.metrics["late_accuracy"])
    assert manifest.review is not None
    assert manifest.review.heads["late"].rows == 400
    text, facts = task.report(manifest.metrics, manifest.review)
    assert text.startswith("late: With probability 95%")
    assert "minutes: coverage asked for" in facts


class Parted(NamedTuple):
    late: Any
    minutes: Any


@dataclass
class Output2:
    minutes: Any
    late: Any
    loss: Any = None


class Wrapped(nn.Module):
    """Two heads, in another form."""

    def __init__(self, form: Any) -> None:
        super().__init__()
        self.flight, self.form = Flight(), form

    def forward(self, x: torch.Tensor) -> Any:
        """Returns them."""
        said = self.flight(x)
        return self.form(said["late"], said["minutes"])


@pytest.mark.parametrize(
    "form",
    [
        lambda late, minutes: (late, minutes),
        lambda late, minutes: {"minutes": minutes, "late": late, "hidden": late},
        lambda late, minutes: Output2(minutes, late),
        Parted,
    ],
)
def test_a_module_gives_its_heads_in_any_form(form: Any, tmp_path: Path) -> None:
    from rollout.bundle.source import ModuleSource

    x = RNG.normal(size=(4, 3)).astype(np.float32)
    two = Heads(heads={"late": LATE, "minutes": MINUTES})
    source = ModuleSource(Wrapped(form).eval(), two, {"x": x})
    with torch.no_grad():
        said = Flight()(torch.tensor(x))
    np.testing.assert_allclose(source.outputs({"x": x})[:, :2], said["late"].numpy(), rtol=1e-5)
    np.testing.assert_allclose(source.outputs({"x": x})[:, 2], said["minutes"][:, 0].numpy(), rtol=1e-5)
    np.testing.assert_array_equal(source.outputs({"x": x})[:, 3], 1)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (lambda late, _: late, r"returns float32 \(2, 2\); late: .*: late, minutes, by name or as a tuple"),
        (lambda late, minutes: (late, minutes, late), "returns a tuple with 0: .*by name or as a tuple of 2"),
        (lambda late, minutes: {"late": late, "length": minutes}, "returns a dict with late: .*: late, minutes"),
        (lambda late, minutes: (late.argmax(1), minutes), r"returns numbers of type int64; late: 2 labels need"),
        (lambda late, minutes: (minutes, late.repeat(1, 3)), r"outputs of shape \(2, 6\) for minutes for 2 rows"),
    ],
)
def test_what_lacks_a_head_is_refused(form: Any, words: str) -> None:
    from rollout.bundle.source import ModuleSource

    x = RNG.normal(size=(2, 3)).astype(np.float32)
    with pytest.raises(RolloutError, match=words):
        ModuleSource(Wrapped(form).eval(), Heads(heads={"late": LATE, "minutes": MINUTES}), {"x": x})


def test_a_row_is_unsure_where_one_of_its_heads_is() -> None:
    two = Heads(
        heads={
            "late": Classification(labels=["no", "yes"], review_threshold=0.8),
            "minutes": Regression(widest=2),
        }
    )
    scores = np.array(
        [[0.1, 0.9, 5, 0.5], [0.3, 0.7, 5, 0.5], [0.1, 0.9, 5, 1.5], [0.3, 0.7, 5, 1.5]], np.float32
    )
    assert two.needs_review(scores).tolist() == [False, True, True, True]
    assert [two.unsure(row) for row in two.numbers(scores).tolist()] == [None, "late", "minutes", "late, minutes"]


def test_an_answer_has_that_of_each_head(manifest: Manifest) -> None:
    task = heads_of(manifest)
    scores = np.array([[0.25, 0.75, 5, 0.5, 1, 2, 3, 4, 1, 2, 3, 4, 0.9]], np.float32)
    (row,) = task.numbers(scores).tolist()
    said = task.answer(row).heads
    assert said["late"] == {"label": "yes", "confidence": 0.75, "scores": {"no": 0.25, "yes": 0.75}}
    assert said["minutes"] == {"value": 5.0, "interval": (4.5, 5.5)}
    assert np.frombuffer(base64.b64decode(said["place"]["vector"]), "<f2").tolist() == [1, 2, 3, 4]
    assert said["extra"] == {"tensors": {"grid": [[1, 2], [3, 4]], "confidence": 0.9}}
    declared, table = task.declared(), task.table_row(task.answer(row)._asdict())
    assert declared.keys() >= {"late.label", "minutes.interval", "place.vector", "extra.grid"}
    assert {"late.label", "minutes.value", "extra.tensors"} <= table.keys() == task.table().keys()
    for name, one in declared.items():
        tensor = task.tensor(name, task.numbers(scores))
        assert np.shape(tensor) == (1, *one.shape), name


def test_people_say_what_they_know_but_of_the_judge_they_must() -> None:
    whole = Truth(heads={"late": Truth(label="no"), "minutes": Truth(value=3.0)})
    assert list(HEADS.faults(whole)) == []
    assert list(HEADS.faults(Truth(heads={"late": Truth(label="no")}))) == []
    assert list(HEADS.faults(Truth(heads={"minutes": Truth(value=3.0)}))) == [("/heads/late", "is required")]
    wrong = Truth(heads={"late": Truth(label="maybe"), "colour": Truth(label="red")})
    assert [pointer for pointer, _ in HEADS.faults(wrong)] == ["/heads/colour", "/heads/late/label"]
    answer = {"heads": {"late": {"label": "yes"}, "minutes": {"interval": (2, 4)}}}
    assert HEADS.loss(answer, whole) == 1.0
    by_minutes = Heads(heads={"late": LATE, "minutes": MINUTES}, judged_by="minutes")
    assert by_minutes.loss(answer, whole) == 0.0
    assert (by_minutes.metric, HEADS.metric) == ("mean absolute error", "error rate")


def test_labels_become_targets() -> None:
    learnt = HEADS.targets([Truth(heads={"late": Truth(label="yes"), "minutes": Truth(value=3.0)})])
    assert (learnt["late"].tolist(), learnt["minutes"].tolist()) == ([1], [3.0])
    HEADS.check_targets(learnt)


def test_a_head_that_is_left_out_is_unknown_and_the_one_that_is_judged_may_not_be() -> None:
    truths = [
        Truth(heads={"late": Truth(label="yes")}),
        Truth(heads={"late": Truth(label="no"), "minutes": Truth(value=3.0)}),
    ]
    learnt = HEADS.targets(truths)
    assert known(learnt, "minutes").tolist() == [False, True]
    assert rows_of(learnt, "minutes").tolist() == [3.0]
    HEADS.check_targets(learnt)
    assert [HEADS.is_complete(truth) for truth in truths] == [False, True]
    nobody = HEADS.targets(truths[:1])
    assert columns_of(nobody) == ["late"]
    both = joined(learnt, nobody)
    assert known(both, "minutes").tolist() == [False, True, False]
    assert both["late"].tolist() == [1, 0, 1]
    with pytest.raises(RolloutError, match="1 of 2 targets say nothing of late, by which versions are compared"):
        HEADS.check_targets(targets_of(late=np.ma.masked_array([0, 1], mask=[True, False]), minutes=[1.0, 2.0]))


def test_targets_are_joined_by_name_whatever_their_order() -> None:
    first, more = targets_of(late=[0], minutes=[9.0]), targets_of(minutes=[3.0], late=[1])
    assert joined(first, more)[["late", "minutes"]].tolist() == [(0, 9.0), (1, 3.0)]


def test_targets_are_checked_head_by_head() -> None:
    with pytest.raises(
        RolloutError, match=r"each of the heads late, minutes: rollout.targets_of\(late=…, minutes="
    ):
        HEADS.check_targets(np.zeros(3))
    with pytest.raises(RolloutError, match="late: targets must be whole numbers"):
        HEADS.check_targets(targets_of(late=[2, 0], minutes=[1.0, 2.0]))
    with pytest.raises(RolloutError, match="different numbers of rows"):
        targets_of(late=[0, 1], minutes=[1.0])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"heads": {}}, "there is no head"),
        ({"heads": {"to late": LATE}}, "must be an identifier"),
        ({"heads": {"late": LATE}, "judged_by": "early"}, "judged_by is 'early'"),
        ({"heads": {"all": Heads(heads={"late": LATE})}}, "has heads of its own"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Heads(**given)


def test_meanings_of_labels_are_those_of_their_head() -> None:
    two = Heads(heads={"late": LATE, "minutes": MINUTES})
    meanings = {"yes": "late", "no": "in time"}
    public = two.public(meanings)
    translate = two.translation(public, meanings)
    assert translate is None or public.labels_used == ["in time", "late"]
    assert public.signature != two.signature
    other = Heads(heads={"late": Classification(labels=["late", "in time"]), "minutes": MINUTES})
    swapped = other.translation(public, {})
    assert swapped is not None
    (row,) = swapped(other.numbers(np.array([[0.9, 0.1, 5, 1]], np.float32))).tolist()
    assert public.answer(row).heads["late"]["scores"] == {"in time": 0.1, "late": 0.9}
    assert public.answer(row).heads["late"]["label"] == "late"
    assert public.answer(row).heads["minutes"]["value"] == 5


def test_regions_of_label_studio_carry_the_name_of_their_head() -> None:
    answer = {"heads": {"late": {"label": "yes"}, "minutes": {"value": 3.0}}}
    two = Heads(heads={"late": LATE, "minutes": MINUTES})
    regions = two.studio_result(answer)
    assert [region["from_name"] for region in regions] == ["late", "minutes"]
    values = [region["value"] | {"from_name": region["from_name"]} for region in regions]
    assert two.studio_truth(values) == Truth(heads={"late": Truth(label="yes"), "minutes": Truth(value=3.0)})
    with pytest.raises(ValueError, match="late: an annotation has no choices"):
        two.studio_truth(values[1:])


def test_an_outcome_needs_no_scores_of_any_head() -> None:
    two = Heads(heads={"late": LATE, "minutes": MINUTES})
    late = {"label": "no", "confidence": 0.75, "scores": {"no": 0.75, "yes": 0.25}}
    answer = {"heads": {"late": late, "minutes": {"value": 3.0, "interval": [1.0, 5.0]}}}
    brief = two.brief(answer)
    assert brief["heads"] == {"late": {"label": "no", "confidence": 0.75}, "minutes": answer["heads"]["minutes"]}
    truth = Truth(heads={"late": Truth(label="yes")})
    assert (two.loss(brief, truth), two.says(brief)) == (two.loss(answer, truth), two.says(answer))
    assert {name: head for name, (head, _) in two.each(answer).items()} == two.heads
    assert LATE.each(late) == {}


def test_a_trial_may_be_judged_by_another_head() -> None:
    by_minutes = HEADS.judged("minutes")
    assert (HEADS.judged("").judged_by, by_minutes.judged_by) == ("late", "minutes")
    assert by_minutes.metric == "mean absolute error"
    with pytest.raises(RolloutError, match="no head 'early' that can be judged: there are late, minutes"):
        HEADS.judged("early")
    ranked = Heads(heads={"rank": Score(), "late": LATE})
    assert (ranked.judged_by, ranked.has_loss, Heads(heads={"rank": Score()}).has_loss) == ("late", True, False)
    with pytest.raises(RolloutError, match=r"no head 'rank' that can be judged: there are late$"):
        ranked.judged("rank")
    with pytest.raises(RolloutError, match="no head 'late': it answers with one thing"):
        LATE.judged("late")
