"""The gate: a version passes on evidence, not on a lucky seed or lucky rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray

from rollout import RolloutError
from rollout.bundle.fields import Tensor
from rollout.bundle.numbers import Number
from rollout.bundle.schema import Arrays, Labelled
from rollout.heads import Classification, Head, Regression
from rollout.training.gate import ALPHA, Judgement, decide, first_look, run_gate
from rollout.training.recipe import Dataset, Recipe, Version
from rollout.training.sign_flips import look, paired_p_value

Losses = NDArray[np.float64]


def errors(rate: float, *, seeds: int = 6, rows: int = 800, seed: int = 0) -> Losses:
    return (np.random.default_rng(seed).random((seeds, rows)) < rate).astype(np.float64)


RATE = Classification(labels=["no", "yes"])


def judge(candidate: Losses, champion: Losses, *, margin: float = 0.01, head: Head = RATE) -> Judgement:
    return decide(candidate, champion, margin=margin, head=head)


class TestPValues:
    def test_few_differences_are_counted_out(self) -> None:
        assert paired_p_value(np.array([1.0, 2.0, 3.0, 4.0])) == 1 / 16
        assert paired_p_value(np.array([1.0, 2.0, 3.0, -4.0])) == 7 / 16  # of the 16 sums, 7 are 2 or more

    @pytest.mark.parametrize(("wins", "losses"), [(9, 1), (30, 14), (120, 100)])
    def test_whole_errors_give_the_binomial_test(self, wins: int, losses: int) -> None:
        differences = np.repeat([1.0, -1.0, 0.0], [wins, losses, 500])
        exact = scipy.stats.binomtest(wins, wins + losses, alternative="greater").pvalue
        assert paired_p_value(differences) == pytest.approx(exact, abs=0.02)

    def test_one_difference_is_as_likely_by_chance(self) -> None:
        assert paired_p_value(np.array([0.0, 3.0, 0.0])) == 0.5

    def test_the_margin_shifts_the_differences(self) -> None:
        differences = np.array([-0.5, -0.2, -0.1, 0.0, 0.1])
        assert paired_p_value(differences) > 0.5
        assert paired_p_value(differences, margin=1.0) == 1 / 32

    @pytest.mark.parametrize("differences", [[], [0.0, 0.0], [-1.0], [1.0] * 9 + [np.nan], [1.0] * 9 + [np.inf]])
    def test_what_is_no_evidence_gives_1(self, differences: list[float]) -> None:
        assert paired_p_value(np.array(differences)) == 1


class TestDecisions:
    def test_better(self) -> None:
        judgement = judge(errors(0.03), errors(0.1, seed=1))
        assert judgement.decision == "better"
        assert judgement.why.startswith(
            "The candidate is better: its error rate is 3.04%, the champion's 10.06%, and "
        )
        assert "neither the 6 seeds (p = 0.016) nor the 800 evaluation rows" in judgement.why

    def test_worse(self) -> None:
        judgement = judge(errors(0.1), errors(0.03, seed=1))
        assert judgement.decision == "worse"
        assert judgement.why.startswith("The candidate is worse: ")

    def test_not_worse(self) -> None:
        champion = errors(0.05)
        candidate = champion.copy()
        candidate[:, :2] = 1 - candidate[:, :2]
        judgement = judge(candidate, champion, margin=0.02)
        assert judgement.decision == "not worse"
        assert judgement.why.startswith("The candidate is not worse by more than 2.00%: ")
        assert judge(candidate, champion, margin=0).decision == "cannot decide"

    def test_cannot_decide(self) -> None:
        judgement = judge(errors(0.05, rows=100), errors(0.05, rows=100, seed=1))
        assert judgement.decision == "cannot decide"
        assert (
            "tell them apart; nor is it ruled out that the candidate is worse by more than 1.00%."
            in judgement.why
        )

    def test_absolute_errors(self) -> None:
        generator = np.random.default_rng(1)
        champion = np.abs(generator.normal(size=(6, 300)))
        better = judge(champion * 0.8, champion, head=Regression())
        assert better.decision == "better"
        noise = generator.normal(scale=0.01, size=(6, 300))
        assert judge(champion + noise, champion, head=Regression()).decision == "not worse"

    def test_one_lucky_seed_does_not_decide(self) -> None:
        champion, candidate = errors(0.1), errors(0.1, seed=1)
        candidate[2] = 0
        judgement = judge(candidate, champion, margin=0)
        assert judgement.p_values["better"].rows < 0.05
        assert judgement.decision == "cannot decide"
        assert "it depends on the seed, and over 6 of them this may be chance" in judgement.why

    def test_lucky_rows_do_not_decide(self) -> None:
        """Every seed agrees, but on three rows of 600."""
        champion, candidate = np.zeros((6, 600)), np.zeros((6, 600))
        champion[:, :3] = 1
        judgement = judge(candidate, champion, margin=0)
        assert judgement.p_values["better"].seeds < 0.05
        assert judgement.decision == "cannot decide"
        assert "600 evaluation rows are too few to tell this from chance (p = 0.12)" in judgement.why

    @pytest.mark.parametrize(("seeds", "smallest"), [(2, "0.25"), (3, "0.125"), (5, "0.03125")])
    def test_few_seeds_can_never_be_significant(self, seeds: int, smallest: str) -> None:
        judgement = judge(errors(0.01, seeds=seeds), errors(0.3, seeds=seeds, seed=1))
        assert judgement.decision == "cannot decide"
        assert judgement.why == (
            f"{seeds} seeds can never be significant: the smallest p-value they can give is {smallest}, and of 0.05 "
            "either direction has half; run at least 6."
        )

    def test_one_seed(self) -> None:
        judgement = judge(errors(0.01, seeds=1), errors(0.3, seeds=1, seed=1))
        assert judgement.why.startswith(
            "1 seed can never be significant: the smallest p-value it can give is 0.5,"
        )

    def test_six_seeds_can_be(self) -> None:
        assert judge(errors(0.01, seeds=6), errors(0.3, seeds=6, seed=1)).decision == "better"

    def test_a_champion_that_no_seed_changes(self) -> None:
        champion = np.repeat(errors(0.2, seeds=1), 6, axis=0)
        assert judge(errors(0.05, seeds=6, seed=1), champion).decision == "better"

    def test_equal_versions_are_not_worse_where_rows_suffice(self) -> None:
        """600 rows without a difference rule a loss of 1 % out, 500 do not."""
        assert judge(np.zeros((6, 600)), np.zeros((6, 600))).decision == "not worse"
        assert judge(np.zeros((6, 500)), np.zeros((6, 500))).decision == "cannot decide"
        assert judge(np.zeros((6, 600)), np.zeros((6, 600)), margin=0).decision == "cannot decide"

    def test_a_loss_that_is_not_finite_decides_nothing(self) -> None:
        candidate = np.zeros((6, 500))
        candidate[:, 0] = np.nan
        assert judge(candidate, np.ones((6, 500)), head=Regression()).decision == "cannot decide"


class TestErrorRates:
    """How often the gate is wrong where the truth is known; seeds share their rows, as they do in a gate."""

    RUNS = 200
    LIMIT = scipy.stats.binom.ppf(0.999, RUNS, 0.05)

    def test_equal_versions_rarely_pass_as_better(self) -> None:
        generator = np.random.default_rng(0)
        passed = 0
        for _ in range(self.RUNS):
            difficulty = generator.beta(1, 9, 60)
            candidate, champion = (generator.random((2, 6, 60)) < difficulty).astype(np.float64)
            passed += judge(candidate, champion, margin=0).decision == "better"
        assert passed <= self.LIMIT

    @pytest.mark.parametrize("rows", [100, 300])
    def test_versions_worse_by_the_margin_rarely_pass_as_not_worse(self, rows: int) -> None:
        """Rare errors: in a third of all choices of 100 rows the candidate makes none of those that it makes more."""
        generator = np.random.default_rng(0)
        passed = 0
        for _ in range(self.RUNS):
            candidate = np.tile((generator.random(rows) < 0.01).astype(np.float64), (6, 1))
            passed += judge(candidate, np.zeros((6, rows))).decision in ("better", "not worse")
        assert passed <= self.LIMIT


class TestManyLooks:
    """How often the gate is wrong where it looks after each pair of trainings, and how soon it is through."""

    RUNS, MOST = 100, 9
    LIMIT = scipy.stats.binom.ppf(0.999, RUNS, ALPHA / 2)

    def differences(self, edge: str, generator: np.random.Generator) -> Losses:
        """Differences of versions between which there is none, over seeds, over rows, or over both."""
        rows = 12
        by_seed = generator.choice([-1.0, 1.0], (self.MOST, 1)) * generator.random((self.MOST, 1))
        by_row = generator.choice([-1.0, 1.0], (1, rows)) * generator.random((1, rows))
        if edge == "seeds":
            return np.tile(by_seed, (1, rows))
        if edge == "rows":
            return np.tile(by_row, (self.MOST, 1)) + 0.01 * by_seed
        return generator.normal(size=(self.MOST, rows))

    @pytest.mark.parametrize("edge", ["seeds", "rows", "both"])
    def test_the_error_is_that_of_all_looks_together(self, edge: str) -> None:
        generator = np.random.default_rng(0)
        better = 0
        for _ in range(self.RUNS):
            differences = self.differences(edge, generator)
            judgement = judge(np.zeros_like(differences), differences, margin=0, head=Regression())
            better += judgement.decision == "better"
        assert better <= self.LIMIT

    def test_looking_often_without_a_correction_would_be_wrong_more_often(self) -> None:
        generator, level, seeds = np.random.default_rng(0), 0.1, 9
        spent = [level * each / seeds for each in range(1, seeds + 1)]
        naive = corrected = 0
        for _ in range(500):
            found = look(np.diag(generator.normal(size=seeds)).cumsum(0), spent)
            naive += any(each.p_value <= level for each in found)
            corrected += any(each.holds for each in found)
        limit = scipy.stats.binom.ppf(0.999, 500, level)
        assert naive > limit >= corrected > 0.2 * limit

    @pytest.mark.parametrize(("most", "least"), [(5, None), (6, 6), (8, 6), (20, 7), (40, 8)])
    def test_a_clear_difference_takes_the_first_look(self, most: int, least: int | None) -> None:
        assert first_look(most) == least
        seeds = least or most
        candidate, champion = errors(0.02, seeds=seeds), errors(0.2, seeds=seeds, seed=1)
        at, before = (
            decide(candidate[:number], champion[:number], margin=0.01, head=RATE, most=most)
            for number in (seeds, seeds - 1)
        )
        assert (at.decision, at.is_final) == ("better" if least else "cannot decide", True)
        assert (before.decision, before.is_final) == ("cannot decide", False)

    def test_what_holds_at_a_look_holds_at_later_ones(self) -> None:
        candidate, champion = errors(0.02, seeds=12), errors(0.2, seeds=12, seed=1)
        candidate[7:], champion[7:] = champion[7:], candidate[7:].copy()
        for seeds in (7, 9, 12):
            judgement = decide(candidate[:seeds], champion[:seeds], margin=0.01, head=RATE, most=12)
            assert judgement.decision == "better"

    def test_it_ends_where_further_seeds_would_change_nothing(self) -> None:
        """Of 8 seeds 3 and 3 disagree: the two that are left could all be for either side."""
        champion, candidate = errors(0.1, seeds=6), errors(0.1, seeds=6, seed=1)
        candidate[::2], champion[1::2] = 0, 0
        judgement = decide(candidate, champion, margin=0, head=RATE, most=8)
        assert (judgement.decision, judgement.is_final) == ("cannot decide", True)
        assert judgement.why.endswith("The 2 seeds that were left would not have changed that.")
        assert not decide(candidate, champion, margin=0, head=RATE, most=20).is_final

    def test_versions_that_are_not_worse_may_yet_be_better(self) -> None:
        champion = errors(0.05, seeds=6)
        candidate = champion.copy()
        candidate[:, :2] = 0
        candidate[:, champion.sum(0).argmax()] = 0
        judgement = decide(candidate, champion, margin=0.02, head=RATE, most=8)
        assert judgement.decision == "not worse"


class Linear(torch.nn.Module):
    """Scores one direction of the plane, as logits of two classes or as a value."""

    def __init__(self, x: float, y: float, *, classes: bool = True) -> None:
        super().__init__()
        self.direction = torch.nn.Parameter(torch.tensor([x, y]))
        self.classes = classes

    def forward(self, point: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        value = point @ self.direction + 0 * shift
        return torch.stack([-value, value], 1) if self.classes else value


def good(_part: Labelled, seed: int) -> torch.nn.Module:
    return Linear(1, 0.01 * seed).eval()


def bad(_part: Labelled, seed: int) -> torch.nn.Module:
    return Linear(1, 1 + 0.01 * seed).eval()


def lucky(part: Labelled, seed: int) -> torch.nn.Module:
    return good(part, seed) if seed == 7 else bad(part, seed)


def broken(_part: Labelled, _seed: int) -> torch.nn.Module:
    return Linear(np.inf, 0).eval()


def majority(train: Labelled, inputs: Arrays) -> NDArray[np.int64]:
    return np.full(len(inputs["point"]), np.bincount(train.targets).argmax())


def load() -> Dataset:
    generator = np.random.default_rng(0)

    def part(rows: int) -> Labelled:
        point = generator.normal(size=(rows, 2)).astype(np.float32)
        inputs = {
            "shift": np.ones(rows, np.float32),
            "point": point,
        }  # not in the order of the module's arguments
        return Labelled(inputs, (point[:, 0] > 0).astype(np.int64))

    return Dataset(part(40), part(40), part(600), source="made here", split="at random")


CLASSES = Classification(labels=["left", "right"])
RECIPE = Recipe(
    name="plane",
    inputs={"point": Tensor(shape=(2,)), "shift": Number()},
    load=load,
    versions={
        "bad": Version(bad, CLASSES, {}),
        "good": Version(good, CLASSES, {}),
        "lucky": Version(lucky, CLASSES, {}),
        "broken": Version(broken, CLASSES, {}),
        "value": Version(lambda _part, _seed: Linear(0.5, 0, classes=False).eval(), Regression(), {}),
        "worse value": Version(lambda _part, _seed: Linear(-0.5, 0, classes=False).eval(), Regression(), {}),
    },
    baselines={"majority": majority},
    seed=3,
)


class TestRunGate:
    def test_a_good_version_beats_a_bad_one(self) -> None:
        steps: list[str] = []
        result = run_gate(RECIPE, "good", "bad", seeds=6, on_step=steps.append)
        assert (result.decision, result.against, result.seeds, result.margin) == ("better", "bad", 6, 0.01)
        assert result.metric == "error rate"
        assert result.candidate.mean < 0.03
        assert result.champion.mean > 0.2
        assert result.candidate.deviation > 0
        assert 0.4 < result.baselines["majority"] < 0.6
        assert steps[0] == "training good with seed 3"
        assert steps[-1] == "training bad with seed 8"

    def test_a_bad_version_does_not_pass(self) -> None:
        assert run_gate(RECIPE, "bad", "good", seeds=6).decision == "worse"

    def test_a_lucky_seed_does_not_pass(self) -> None:
        result = run_gate(RECIPE, "lucky", "bad", seeds=6)
        assert result.candidate.mean < result.champion.mean
        assert result.p_values["better"].rows < 0.05
        assert result.decision in ("not worse", "cannot decide")

    def test_it_trains_no_more_seeds_than_it_takes(self) -> None:
        steps: list[str] = []
        result = run_gate(RECIPE, "good", "bad", seeds=20, on_step=steps.append)
        assert (result.decision, result.seeds, result.most_seeds, len(steps)) == ("better", 7, 20, 14)
        assert result.why.endswith("Of at most 20 seeds, it took 7.")

    def test_a_gate_that_was_interrupted_goes_on(self, tmp_path: Path) -> None:
        def stop(step: str) -> None:
            if step == "training bad with seed 5":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_gate(RECIPE, "good", "bad", seeds=6, home=tmp_path, on_step=stop)
        steps: list[str] = []
        result = run_gate(RECIPE, "good", "bad", seeds=6, home=tmp_path, on_step=steps.append)
        assert [step for step in steps if "before" not in step] == [
            "training bad with seed 5",
            *(f"training {name} with seed {seed}" for seed in (6, 7, 8) for name in ("good", "bad")),
        ]
        apart = run_gate(RECIPE, "good", "bad", seeds=6)
        assert (result.candidate, result.champion, result.p_values) == (
            apart.candidate,
            apart.champion,
            apart.p_values,
        )
        for file in tmp_path.rglob("*.npy"):
            file.write_bytes(file.read_bytes()[:100])
        steps.clear()
        run_gate(RECIPE, "good", "bad", seeds=1, home=tmp_path, on_step=steps.append)
        assert steps == ["training good with seed 3", "training bad with seed 3"], "what is not whole is nothing"

    def test_one_seed_has_no_spread(self) -> None:
        result = run_gate(RECIPE, "good", "bad", seeds=1)
        assert result.candidate.deviation == 0
        assert result.decision == "cannot decide"

    def test_regressions_are_compared_by_their_absolute_error(self) -> None:
        result = run_gate(RECIPE, "value", "worse value", seeds=6)
        assert (result.metric, result.decision) == ("mean absolute error", "better")
        assert result.margin == pytest.approx(0.01 * result.champion.mean)

    def test_versions_of_different_kinds_are_refused(self) -> None:
        with pytest.raises(RolloutError, match="answer different kinds of questions"):
            run_gate(RECIPE, "value", "good", seeds=6)

    def test_outputs_that_are_not_finite_are_refused(self) -> None:
        with pytest.raises(RolloutError, match="no finite number for 600 of 600 rows"):
            run_gate(RECIPE, "broken", "good", seeds=6)
