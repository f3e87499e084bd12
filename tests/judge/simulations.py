"""Trials with a known truth, many at a time: how often does the verdict say what is not so, and how soon what is?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from rollout.judge.client_sums import Arm, difference, sum_clients
from rollout.judge.disagreements import Labelled, accuracy_difference
from rollout.judge.evidence import ArmCounts, Outcomes, Stage, TrialEvidence
from rollout.judge.policy import Policy
from rollout.judge.sample_ratio import COUNTING_ERROR, REFUSED, as_counted, e_value
from rollout.judge.sequences import Floats, asymptotic_mean, bounded_mean, least_difference, proportion
from rollout.judge.verdict import judge

ALPHA = 0.05
RAMP = (0.01, 0.05, 0.1, 0.25, 0.5)
# Clients of an arm by stage, and what the base rate is there.
ADMITTED = (100, 150, 250, 400, 600)
RATES = (0.75, 0.85, 0.7, 0.9, 0.8)
LOOKS = 1_000


class Looked(NamedTuple):
    """How many of the runs ever said so.

    Attributes:
        promoted: The lower end above the limit.
        rolled_back: The upper end below it.
    """

    promoted: float
    rolled_back: float


class GrowingArms:
    """Arms of many runs that get rows one by one, as ``ClientSums`` says.

    Args:
        runs: Trials at a time.
        spread: Standard deviation of how much better off a client is than the next.
        worse: By how much the arm's rate is lower.
        generator: Of chance.
    """

    def __init__(self, runs: int, spread: float, worse: float, generator: np.random.Generator) -> None:
        self._chance, self._worse, self._runs = generator, worse, np.arange(runs)
        self._effects = np.clip(spread * generator.standard_normal((runs, ADMITTED[-1])), -0.1, 0.1)
        size = 2 * len(RAMP)
        self._vectors = np.zeros((runs, ADMITTED[-1], size))
        self.clients, self.sums = np.zeros(runs), np.zeros((runs, size))
        self.products = np.zeros((runs, size, size))

    def add_rows(self, stage: int) -> None:
        """Adds a row to each run, of a client that is in; the first clients are the busiest."""
        skewed = self._chance.random(len(self._runs)) ** 1.5
        chosen = (ADMITTED[stage] * skewed).astype(int)
        rates = RATES[stage] - self._worse + self._effects[self._runs, chosen]
        before = self._vectors[self._runs, chosen]
        row = np.zeros_like(before)
        row[:, 2 * stage] = self._chance.random(len(self._runs)) < rates
        row[:, 2 * stage + 1] = 1
        self.clients += ~before.any(axis=1)
        self.sums += row
        crossed = before[:, :, None] * row[:, None, :]
        self.products += crossed + crossed.transpose(0, 2, 1) + row[:, :, None] * row[:, None, :]
        self._vectors[self._runs, chosen] += row

    def as_arm(self) -> Arm:
        """Returns the sums so far."""
        return Arm(self.clients, self.sums, self.products)


def look_often(
    runs: int, looks: int, margin: float, worse: float, seed: int, rows: int = 3, spread: float = 0.1
) -> Looked:
    """Looks at trials with client effects and a ramp; the challenger's rate is lower by ``worse``.

    The base rate drifts from stage to stage, and a look comes after ``rows`` rows of each arm.
    """
    generator = np.random.default_rng(seed)
    control, challenger = (GrowingArms(runs, spread, below, generator) for below in (0.0, worse))
    policy = Policy(margin=margin)
    promoted, rolled_back = np.zeros(runs, bool), np.zeros(runs, bool)
    for look in range(looks):
        stage = look * len(RAMP) // looks
        for _ in range(rows):
            control.add_rows(stage)
            challenger.add_rows(stage)
        found = difference(control.as_arm(), challenger.as_arm(), is_share=True)
        low, high = asymptotic_mean(*found, alpha=ALPHA, tuned_for=policy.tuned_for)
        is_many = np.minimum(control.clients, challenger.clients) >= policy.least_clients
        promoted |= is_many & (low > -margin)
        rolled_back |= is_many & (high < -margin)
    return Looked(float(promoted.mean()), float(rolled_back.mean()))


def cover_bounded(runs: int, values: int, seed: int) -> float:
    """Returns the share of runs in which the mean of a beta distribution stayed within the sequence at all times.

    The sequence after the last value excludes what any earlier time excluded, so one look sees all of them.
    """
    generator = np.random.default_rng(seed)
    covered = 0
    for sample in generator.beta(2, 6, (runs, values)):
        low, high = bounded_mean(sample, 0, 1, ALPHA)
        covered += low <= 0.25 <= high
    return covered / runs


def cover_asymptotic(runs: int, values: int, seed: int, since: int = 100) -> float:
    """Returns that of the mean of an exponential distribution, from the first ``since`` values on."""
    samples = np.random.default_rng(seed).exponential(1.0, (runs, values))
    count = np.arange(1.0, values + 1)
    mean = samples.cumsum(axis=1) / count
    variance = (samples**2).cumsum(axis=1) / count - mean**2
    low, high = asymptotic_mean(np.broadcast_to(count, mean.shape), mean, variance, ALPHA, tuned_for=1_000)
    return float(((low <= 1) & (high >= 1))[:, since:].all(axis=1).mean())


def cover_proportion(runs: int, trials: int, rate: float, seed: int) -> float:
    """Returns that of a proportion, which is looked at after each trial."""
    successes = (np.random.default_rng(seed).random((runs, trials)) < rate).cumsum(axis=1)
    excluded = np.zeros(runs, bool)
    for trial in range(1, trials + 1):
        ends = {
            int(count): proportion(int(count), trial, ALPHA, 300) for count in np.unique(successes[:, trial - 1])
        }
        wrong = [count for count, (low, high) in ends.items() if not low <= rate <= high]
        excluded |= np.isin(successes[:, trial - 1], wrong)
    return float(1 - excluded.mean())


def cover_difference(runs: int, looks: int, rates: tuple[float, float], seed: int) -> float:
    """Returns that of the difference of two proportions, at looks that come ever more trials after each other."""
    generator, known = np.random.default_rng(seed), {}
    trials = np.unique(np.geomspace(5, 3_000, looks).astype(int))
    truth = rates[0] - rates[1]
    covered = 0
    for _ in range(runs):
        counts = [(generator.random(3_000) < rate).cumsum()[trials - 1].tolist() for rate in rates]
        for n, one, other in zip(trials.tolist(), *counts, strict=True):
            if (n, one, other) not in known:
                arms = (one, n), (other, n)
                low, high = (
                    least_difference(*arms, ALPHA / 2, 300),
                    -least_difference(*arms[::-1], ALPHA / 2, 300),
                )
                known[n, one, other] = low <= truth <= high
        covered += all(known[found] for found in zip(trials.tolist(), *counts, strict=True))
    return covered / runs


def cover_disagreements(runs: int, labels: int, seed: int) -> float:
    """Returns that of a difference in accuracy whose labels come with probabilities of two sizes."""
    generator = np.random.default_rng(seed)
    rate, right, covered = 0.05, np.array([0.5, 0.3, 0.2]), 0
    truth = rate * (right[0] - right[1])
    for _ in range(runs):
        disagreed = int(generator.binomial(20_000, rate))
        d = generator.choice([1, -1, 0], size=4 * labels, p=right)
        # Those on which the champion was right are likelier to be picked: unweighted, they would be too many.
        pi = np.where(d == -1, 0.5, 0.25)
        picked = np.flatnonzero(generator.random(len(d)) < pi)[:labels]
        labelled = [Labelled(int(d[row]), float(pi[row])) for row in picked]
        found = accuracy_difference(20_000, disagreed, labelled, ALPHA)
        covered += found.low <= truth <= found.high
    return covered / runs


def simpson(runs: int, seed: int) -> dict[str, int]:
    """Returns the verdicts on identical models whose base rate drifts while the challenger's share grows.

    Here control is everybody else, so that pooled over the stages the two look like .853 against .894.
    """
    generator = np.random.default_rng(seed)
    told: dict[str, int] = {}
    for _ in range(runs):
        vectors = {"control": np.zeros((2_000, 4)), "challenger": np.zeros((1_100, 4))}
        for stage, rate, sizes in ((0, 0.9, (2_000, 100)), (1, 0.8, (1_000, 1_000))):
            for arm, size in zip(vectors, sizes, strict=True):
                clients = slice(0, size) if arm == "control" else slice(stage * 100, stage * 100 + size)
                rows = vectors[arm][clients]
                rows[:, 2 * stage] = generator.binomial(10, rate, len(rows))
                rows[:, 2 * stage + 1] = 10
        counts = ArmCounts(clients=1_000, rows=10_000, requests=10_000)
        evidence = TrialEvidence(
            stages=tuple(
                Stage(share=share, seconds=1e6, control=counts, challenger=counts) for share in (0.05, 0.5)
            ),
            outcomes={
                "accuracy": Outcomes(
                    control=sum_clients(vectors["control"]), challenger=sum_clients(vectors["challenger"])
                )
            },
        )
        verdict = judge(evidence, Policy(margin=0.02)).verdict
        told[verdict] = told.get(verdict, 0) + 1
    return told


def requests_until_rollback(rate: float, base: float, runs: int, seed: int, most: int = 3_000) -> float:
    """Returns the median of the challenger's requests until it is rolled back for failing; looks come every fifth."""
    generator = np.random.default_rng(seed)
    needed = []
    for _ in range(runs):
        failed, others = ((generator.random(most) < one).cumsum() for one in (rate, base))
        needed.append(
            next(
                (
                    n
                    for n in range(5, most, 5)
                    if _failing(int(failed[n - 1]), int(others[n - 1]), n) == "rollback"
                ),
                most,
            )
        )
    return float(np.median(needed))


def _failing(failures: int, control: int, requests: int) -> str:
    ours, theirs = (
        ArmCounts(clients=requests // 2, rows=requests, requests=requests, failures=failed)
        for failed in (failures, control)
    )
    return judge(TrialEvidence(stages=(Stage(share=0.1, control=theirs, challenger=ours),))).verdict


def labels_until_verdict(runs: int, seed: int, most: int = 60_000) -> tuple[float, float]:
    """Returns the medians of labels until a challenger that is 2 points better is known to be not worse.

    Both disagree on 5 % of the rows. First by labels of disagreements, then by labels of rows drawn from all.
    """
    generator = np.random.default_rng(seed)
    shadowed, rate, chances = 40_000, 0.05, [0.6, 0.2, 0.2]
    by_disagreement, by_row = [], []
    for _ in range(runs):
        disagreed = int(generator.binomial(shadowed, rate))
        d = generator.choice([1, -1, 0], size=2_000, p=chances)
        by_disagreement.append(first(partial(_is_better, shadowed, disagreed, d.tolist()), 2_000))
        # A label of a row that is drawn from all says who was right there, too: 0 where both decide alike.
        rows = generator.choice([1, -1, 0], size=most, p=[0.6 * rate, 0.2 * rate, 1 - 0.8 * rate])
        by_row.append(first(partial(_is_better_by_rows, rows), most))
    return float(np.median(by_disagreement)), float(np.median(by_row))


def _is_better(shadowed: int, disagreed: int, labels: list[int], count: int) -> bool:
    return accuracy_difference(shadowed, disagreed, labels[:count], ALPHA).low > 0


def _is_better_by_rows(rows: Floats, count: int) -> bool:
    return bounded_mean(rows[:count], -1, 1, ALPHA)[0] > 0


def first(is_so: Callable[[int], bool], most: int) -> int:
    """Returns about the first count at which it is so; what a sequence has excluded stays excluded."""
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_so(middle) else (middle, high)
    return high


def _wandering(times: Floats, runs: int, generator: np.random.Generator) -> Floats:
    """Returns two normal figures of each run at each time, which are others where times are 1 or more apart."""
    figures = generator.standard_normal((len(times), runs, 2))
    for place, kept in enumerate(np.exp(-np.diff(times)), start=1):
        figures[place] = kept * figures[place - 1] + np.sqrt(1 - kept**2) * figures[place]
    return figures


def ratio_alarms(
    runs: int, looks: int, clients: int, odds: Sequence[float], seed: int, *, counted: bool
) -> float:
    """Returns the share of ramps in which the sample ratio was ever refused.

    Args:
        runs: Ramps.
        looks: At each.
        clients: In the trial at the end.
        odds: Of an arm and the other.
        seed: Of chance.
        counted: Whether HyperLogLogs count them, each with an error that becomes another as they grow e-fold.
    """
    generator = np.random.default_rng(seed)
    steps = np.unique(np.geomspace(20, clients, looks).astype(int))[:, None]
    more = np.diff(steps, axis=0, prepend=0)
    control = generator.binomial(more, odds[0] / sum(odds), (len(steps), runs)).cumsum(axis=0)
    counts = np.stack([control, steps - control], axis=-1).astype(float)
    if counted:
        counts = (counts * (1 + COUNTING_ERROR * _wandering(np.log(steps[:, 0]), runs, generator))).round()
    # By more than chance, or it is not worth a closer look: within three standard errors an e-value is about 100.
    total = counts.sum(axis=-1)
    effects = 1 + counted * COUNTING_ERROR**2 * (counts**2).sum(axis=-1) / total
    is_far = np.abs(counts[..., 0] - counts[..., 1]) > 3 * np.sqrt(total * effects)
    worth = as_counted if counted else list
    alarms = {
        run
        for look, run in np.argwhere(is_far).tolist()
        if e_value(worth(counts[look, run].tolist()), (1, 1)) >= REFUSED
    }
    return len(alarms) / runs
