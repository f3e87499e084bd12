"""Students: what they are trained with, by whom, what is refused, and how they compare with their teachers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from rollout import (
    Classification,
    Embedding,
    Fit,
    Labelled,
    MultiLabel,
    Recipe,
    Regression,
    RolloutError,
    Version,
)
from rollout.bundle.evidence import Distillation
from rollout.bundle.manifest import Manifest, digest
from rollout.bundle.parity import run_in_batches
from rollout.bundle.report import describe
from rollout.bundle.store import open_bundle
from rollout.bundle.verify import load_variant
from rollout.heads import Head
from rollout.training import students
from rollout.training.batches import Taught
from rollout.training.build import build_version
from rollout.training.distilling import Teacher, find_teacher, judge_teacher, student_loss, taught_by
from rollout.training.fit import SETTINGS
from rollout.training.gate import run_gate
from rollout.training.losses import default_loss
from rollout.training.runs import Run
from rollout.training.students import consider, interval
from tests.training.fits import FIELDS, YES_OR_NO, load, make_net, rows, same_bits

Built = tuple[Recipe, dict[str, Manifest], list[str], Path]

TEACHER = Fit(module=make_net, epochs=6, batch=100, learning_rate=1e-2)
STUDENT = Fit(module=make_net, epochs=3, batch=100, learning_rate=1e-2, temperature=3.0)


def recipe(name: str = "taughtring", **versions: Version) -> Recipe:
    """A recipe with a teacher, a small student of it, and others."""
    own = {
        "big": Version(TEACHER, YES_OR_NO, {"hidden": 64}),
        "small": Version(STUDENT, YES_OR_NO, {"hidden": 16}, teacher="big"),
        "tiny": Version(STUDENT, YES_OR_NO, {"hidden": 1}, teacher="big"),
    }
    return Recipe(name=name, inputs=FIELDS, load=load, versions={**own, **versions})


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory,
) -> Built:
    """The teacher and two students of it in the store, what was said, and where the training was kept."""
    home = tmp_path_factory.mktemp("home")
    said: list[str] = []
    manifests = {}
    for name in ("big", "small", "tiny"):
        manifests[name] = build_version(recipe(), name, said.append, home=home)
    return recipe(), manifests, said, home


class TestLoss:
    def test_a_student_that_says_the_same_has_no_soft_loss(self) -> None:
        soft = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
        loss = student_loss(default_loss(YES_OR_NO), YES_OR_NO, 3.0, 1.0)
        assert loss(soft + 5, Taught(torch.tensor([0, 1]), soft)) == pytest.approx(0, abs=1e-6)

    def test_it_is_the_divergence_of_softened_scores(self) -> None:
        own, soft = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
        theirs, ours = (
            np.exp(each) / np.exp(each).sum() for each in (np.array([0.0, 1.0]), np.array([0.5, 0.0]))
        )
        expected = 4 * float((theirs * np.log(theirs / ours)).sum())
        taught = Taught(torch.tensor([0]), soft)
        usual = default_loss(YES_OR_NO)
        assert student_loss(usual, YES_OR_NO, 2.0, 1.0)(own, taught) == pytest.approx(expected, rel=1e-5)
        mixed = 0.3 * expected + 0.7 * float(usual(own, taught.targets))
        assert student_loss(usual, YES_OR_NO, 2.0, 0.3)(own, taught) == pytest.approx(mixed, rel=1e-5)

    def test_one_logit_stands_for_two_labels(self) -> None:
        one, soft = torch.tensor([1.5, -0.5]), torch.tensor([[0.0, 2.0], [1.0, 0.0]])
        loss = student_loss(default_loss(YES_OR_NO), YES_OR_NO, 2.0, 0.5)
        both = torch.stack([torch.zeros(2), one], dim=1)
        taught = Taught(torch.tensor([1, 0]), soft)
        assert float(loss(one, taught)) == pytest.approx(float(loss(both, taught)), rel=1e-5)

    def test_labels_of_which_several_hold_are_apart_one_by_one(self) -> None:
        task = MultiLabel(labels=["a", "b"])
        own, soft = torch.tensor([[1.0, -1.0]]), torch.tensor([[3.0, -1.0]])
        theirs, ours = (1 / (1 + np.exp(-each / 2)) for each in (3.0, 1.0))
        apart = theirs * np.log(theirs / ours) + (1 - theirs) * np.log((1 - theirs) / (1 - ours))
        usual = nn.BCEWithLogitsLoss()
        found = student_loss(usual, task, 2.0, 1.0)(own, Taught(torch.tensor([[1.0, 0.0]]), soft))
        assert found == pytest.approx(4 * apart / 2, rel=1e-4)

    def test_numbers_are_apart_by_their_difference(self) -> None:
        with_spread = torch.tensor([[1.0, 0.5], [2.0, 0.5]])
        loss = student_loss(default_loss(Regression()), Regression(), 2.0, 1.0)
        assert loss(with_spread, Taught(torch.tensor([0.0, 0.0]), torch.tensor([[2.0], [4.0]]))) == 1.5

    @pytest.mark.parametrize(
        ("task", "outputs"),
        [
            (Classification(labels=["a", "b", "c"], temperature=1.7), [[2.0, -1.0, 0.5], [0.0, 30.0, 1.0]]),
            (MultiLabel(labels=["a", "b"], temperature=0.6), [[2.0, -1.0], [0.0, 3.0]]),
        ],
    )
    def test_calibration_takes_nothing_from_what_a_teacher_says(
        self, task: Head, outputs: list[list[float]]
    ) -> None:
        logits = np.array(outputs, np.float32)
        soft = task.soft_targets(task.scores(logits))
        if isinstance(task, Classification):
            logits = logits - logits.max(1, keepdims=True)
            soft = soft - soft.max(1, keepdims=True)
        assert soft == pytest.approx(np.maximum(logits, -16 * 1.7), abs=3)
        assert soft[0] == pytest.approx(logits[0], abs=1e-4)


class TestTeaching:
    def test_a_student_learns_what_its_teacher_says_and_not_what_is_so(self) -> None:
        """With soft scores alone the targets do not matter: the teacher has the truth, they are shuffled.

        Those of the validation rows, which choose the checkpoint, are not.
        """
        truth = load().train
        targets = truth.targets.copy()
        targets[200:] = np.random.default_rng(0).permutation(targets[200:])
        wrong = Labelled(truth.inputs, targets)
        fit = msgspec.structs.replace(STUDENT, validation=lambda part: np.arange(len(part.targets)) < 200)

        def knows(_part: Labelled, _seed: int) -> nn.Module:
            class Ring(nn.Module):
                def forward(self, x: torch.Tensor) -> torch.Tensor:
                    inside = 4 * ((x[:, :2] ** 2).sum(1) - 1.4)
                    return torch.stack([-inside, inside], dim=1)

            return Ring().eval()

        own = {
            "knows": Version(knows, YES_OR_NO, {}),
            "taught": Version(fit, YES_OR_NO, {"hidden": 32, "soft": 1.0, "epochs": 12}, teacher="knows"),
            "untaught": Version(fit, YES_OR_NO, {"hidden": 32, "soft": 0.0, "epochs": 12}, teacher="knows"),
        }
        errors = {}
        for name in ("taught", "untaught"):
            module = recipe("untold", **own).train(name, wrong, 0)
            part = load().evaluation
            said = module(torch.from_numpy(part.inputs["x"])).argmax(1).numpy()
            errors[name] = float((said != part.targets).mean())
        assert errors["taught"] < 0.15
        assert errors["untaught"] > 0.3

    def test_the_bundle_teaches_and_the_lineage_knows_it(self, built: Built) -> None:
        _, manifests, said, home = built
        assert "taughtring:big teaches, by its onnx variant" in said
        teacher = {"version": "big", "bundle": digest(manifests["big"]), "variant": "onnx"}
        assert manifests["small"].lineage["teacher"] == teacher
        assert manifests["small"].lineage["training"]["temperature"] == 3.0
        (kept,) = (home / "training" / "taughtring" / "small").rglob("teacher.npy")
        soft = np.load(kept)
        (asked,) = {line for line in said if line.startswith("asking big about")}
        assert asked == f"asking big about {len(soft):,} rows"
        assert len(soft) < len(load().train.targets), "validation rows are not asked about"
        assert soft.dtype == np.float32

    def test_what_a_teacher_said_is_computed_once(self, tmp_path: Path) -> None:
        asked: list[int] = []

        def run(inputs: Mapping[str, Any]) -> Any:
            asked.append(len(inputs["x"]))
            return np.full((len(inputs["x"]), 2), 0.5, np.float32)

        part = rows(9000, 0)
        for _ in range(2):
            soft = taught_by(Teacher("t", YES_OR_NO, run), part.inputs, tmp_path, lambda _: None)
            assert soft.shape == (9000, 2)
        assert sum(asked) == 9000
        assert max(asked) <= 64
        with pytest.raises(RolloutError, match="no finite number"):
            taught_by(
                Teacher("t", Regression(), lambda inputs: np.full((len(inputs["x"]), 2), np.nan, np.float32)),
                part.inputs,
                tmp_path / "..",
                lambda _: None,
            )

    def test_without_a_bundle_the_recipe_trains_the_teacher(self) -> None:
        said: list[str] = []
        own, part = recipe("nobundle"), rows(300, 1)
        module = own.fit("tiny", part, 0, Run(on_step=said.append)).module
        assert said[0].startswith("the store has no nobundle:big: training it, to teach")
        assert same_bits(module, own.fit("tiny", part, 0).module)

    def test_a_training_that_goes_on_has_the_same_bits(self, tmp_path: Path) -> None:
        own, part = recipe("goingon"), rows(600, 1)

        def stop(checks: list[dict[str, float]]) -> None:
            if len(checks) == 2:
                raise RuntimeError("killed")

        with pytest.raises(RuntimeError, match="killed"):
            own.fit("small", part, 0, Run(folder=tmp_path, on_check=stop))
        said: list[str] = []
        module = own.fit("small", part, 0, Run(folder=tmp_path, on_step=said.append)).module
        assert "going on with the training that was interrupted" in said
        assert not any(line.startswith("asking") for line in said)
        assert same_bits(module, own.fit("small", part, 0).module)

    def test_a_search_may_vary_temperature_and_weight(self) -> None:
        assert {"temperature", "soft"} <= set(SETTINGS)

    def test_a_gate_trains_students(self) -> None:
        result = run_gate(recipe("gated"), "small", "tiny", seeds=1)
        assert result.candidate.mean < result.champion.mean


class TestRefused:
    @pytest.mark.parametrize(
        ("version", "why"),
        [
            (Version(lambda _p, _s: None, YES_OR_NO, {}, teacher="big"), "only a Fit can be a student"),
            (
                Version(STUDENT, Embedding(size=2), {}, teacher="big"),
                "Embedding cannot be taught by soft scores",
            ),
            (Version(STUDENT, Regression(), {}, teacher="big"), "answers with something else"),
            (Version(STUDENT, Classification(labels=["yes", "no"]), {}, teacher="big"), "another order of them"),
            (Version(STUDENT, YES_OR_NO, {}, teacher="odd"), "odd is taught by odd: nobody teaches the first"),
            (Version(STUDENT, YES_OR_NO, {}, teacher="gone"), "has no version gone"),
        ],
    )
    def test_what_cannot_be_a_student(self, version: Version, why: str) -> None:
        with pytest.raises(RolloutError, match=why):
            find_teacher(recipe("refused", odd=version), "odd", rows(50, 0), 0)

    @pytest.mark.parametrize("options", [{"temperature": 0}, {"soft": 1.5}, {"soft": -0.1}])
    def test_figures_out_of_range(self, options: dict[str, float]) -> None:
        with pytest.raises(RolloutError, match="temperature of a Fit is above 0, and its soft part from 0 to 1"):
            Fit(module=make_net, epochs=1, **options)  # type: ignore[arg-type]


class TestComparison:
    def test_the_lineage_and_the_report_compare_both(self, built: Built) -> None:
        _, manifests, _, _ = built
        found = msgspec.convert(manifests["tiny"].lineage["distillation"], Distillation)
        part = load().evaluation
        scores = {}
        for name, side in (("big", found.teacher), ("tiny", found.student)):
            folder, manifest = open_bundle(f"taughtring:{name}")
            variant = load_variant(folder, manifest, side.variant)
            scores[name] = run_in_batches(variant.run, part.inputs).argmax(1)
            assert side.loss.mean == pytest.approx((scores[name] != part.targets).mean())
            assert side.loss.low <= side.loss.mean <= side.loss.high
            assert side.size == (folder / manifest.variants[side.variant].file).stat().st_size
        apart = scores["big"] != scores["tiny"]
        assert found.agreement.mean == pytest.approx(1 - apart.mean())
        assert sum(parted.rows for parted in found.parted) == apart.sum() > 0
        for parted in found.parted:
            pair = [YES_OR_NO.labels.index(label) for label in (parted.teacher, parted.student)]
            assert ((scores["big"] == pair[0]) & (scores["tiny"] == pair[1])).sum() == parted.rows
        (section,) = [
            each
            for each in describe(manifests["tiny"], is_signed=False)
            if each.title == "Compared with its teacher"
        ]
        assert f"agree on {found.agreement.mean:.1%}" in section.text[0]
        assert section.table is not None
        assert list(section.table.rows) == ["taughtring:big", "taughtring:tiny"]
        titles = [each.title for each in describe(manifests["big"], is_signed=False)]
        assert "Compared with its teacher" not in titles

    def test_the_smallest_that_is_fast_and_good_enough(
        self, built: Built, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(students, "servable", lambda _: ("onnx",))  # the same of each, whichever is faster
        own, _, _, _ = built
        tiny, small = consider(own, ["big", "small", "tiny"], budget=60.0, margin=1.0)
        assert (tiny.side.version, small.side.version) == ("tiny", "small")
        assert tiny.side.size < small.side.size
        assert (tiny.misses, small.misses) == ([], [])
        assert small.worse < tiny.worse
        between = (small.worse + tiny.worse) / 2
        tiny, small = consider(own, ["small", "tiny"], budget=60.0, margin=between)
        assert small.misses == []
        assert len(tiny.misses) == 1
        assert tiny.misses[0].endswith(f"above that of big, and {between:.4g} may be")
        both = consider(own, ["tiny"], budget=1e-12, margin=between)[0].misses
        assert len(both) == 2
        assert both[0].startswith("answers a row in ")
        calibration = load().calibration
        folder, manifest = open_bundle("taughtring:small")
        scores = run_in_batches(load_variant(folder, manifest, small.side.variant).run, calibration.inputs)
        assert small.side.loss.mean == pytest.approx((scores.argmax(1) != calibration.targets).mean())
        with pytest.raises(RolloutError, match="has no student among big"):
            consider(own, ["big"], budget=1.0, margin=0.05)

    def test_a_teacher_of_other_data_is_a_finding(self, built: Built) -> None:
        own, manifests, _, _ = built
        assert judge_teacher(own, "small", manifests["small"].lineage) == []
        other = json.loads(msgspec.json.encode(manifests["small"].lineage))
        other["data"]["sha256"] = "0"
        (finding,) = judge_teacher(own, "small", other)
        assert "taughtring:big was built from other data" in finding.detail

    def test_intervals(self) -> None:
        exact = interval(np.repeat([0.0, 1.0], [95, 5]))
        assert (exact.low, exact.high) == pytest.approx((0.0164, 0.1128), abs=1e-3)
        assert interval(np.zeros(100)).high == pytest.approx(0.0362, abs=1e-3)
        values = np.random.default_rng(0).normal(3, 2, 400)
        found = interval(values)
        assert found.high - found.mean == pytest.approx(1.966 * values.std(ddof=1) / 20, rel=1e-3)
