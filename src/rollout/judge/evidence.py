"""What is known of a trial: counts and sums, by stage of the ramp and arm. Nothing of a single client."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from statistics import median

import msgspec

from rollout.judge.client_sums import ClientSums
from rollout.judge.disagreements import Labelled

# Traffic that is a tenth of what it was has dried up, as far as so many rows were to be expected.
DRY = 0.1
FEWEST_ROWS = 20


class ArmCounts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was counted of an arm in a stage.

    Attributes:
        clients: Different clients that the hash put there.
        rows: Rows of its clients that were answered, by whichever version.
        requests: Requests in which its version attempted any row.
        failures: Those of them in which it failed on a row, by an error of its own.
        late: Rows that the champion answered because its version was late or its breaker open.
    """

    clients: int = 0
    rows: int = 0
    requests: int = 0
    failures: int = 0
    late: int = 0


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A share of the ramp, for as long as it held.

    Attributes:
        share: Of the clients, in each arm.
        seconds: For how long it has held.
        control: The champion's arm.
        challenger: The challenger's.
        outside: Rows of clients outside the trial that were answered meanwhile.
    """

    share: float
    seconds: float = 0.0
    control: ArmCounts = ArmCounts()
    challenger: ArmCounts = ArmCounts()
    outside: int = 0


class Outcomes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An outcome of the trial's own time and clients, those that a rule put there left out.

    Attributes:
        is_share: Whether each row's lies between 0 and 1.
        control: Of the champion's clients.
        challenger: Of the challenger's.
    """

    is_share: bool = True
    control: ClientSums
    challenger: ClientSums


class Disagreements(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What both versions made of the same rows, in shadow.

    Attributes:
        shadowed: Rows that both scored.
        disagreed: Those of them that they decided otherwise.
        labelled: Those that people decided, in that order.
        failed: Rows beside these that the challenger failed to score.
    """

    shadowed: int = 0
    disagreed: int = 0
    failed: int = 0
    labelled: tuple[Labelled, ...] = ()


class TrialEvidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is known of a trial.

    Attributes:
        stages: Since these bundles are on trial, the present one last; as many as the sums have.
        outcomes: By name: the metric, ``late`` for answers over the budget, ``failures`` and ``fallbacks`` for
            what clients have in common, and the numbers that are guarded.
        disagreements: In shadow.
        traffic: Rows of the trial in spans of equal length, oldest first, as far as they are over.
    """

    stages: tuple[Stage, ...]
    outcomes: dict[str, Outcomes] = {}
    disagreements: Disagreements = Disagreements()
    traffic: tuple[int, ...] = ()

    @property
    def present(self) -> Stage:
        """The stage that holds now."""
        return self.stages[-1]

    def total(self, arm: str, name: str) -> int:
        """Returns a count of an arm over all stages."""
        return sum(getattr(getattr(stage, arm), name) for stage in self.stages)

    @property
    def is_shadow(self) -> bool:
        """Whether no client has ever had the challenger: what there is to know of it, it did unseen."""
        return len(self.stages) == 1 and not self.present.share

    @property
    def is_finite(self) -> bool:
        """Whether no sum is infinite or not a number."""
        return all(
            math.isfinite(figure)
            for outcomes in self.outcomes.values()
            for sums in (outcomes.control, outcomes.challenger)
            for row in (sums.sums, *sums.products)
            for figure in row
        )

    @property
    def has_dried_up(self) -> bool:
        """Whether the last span has next to nothing of what was usual."""
        *before, last = self.traffic or (0,)
        return bool(before) and median(before) >= FEWEST_ROWS and last < DRY * median(before)


def impossible(evidence: TrialEvidence, before: TrialEvidence | None) -> str:
    """Says what cannot be, such as a counter that went backwards; empty where nothing is wrong.

    Args:
        evidence: As it is now.
        before: As it was earlier, if that is known; counts of clients are left out, since they are estimates.
    """
    faults = _faults(evidence) if before is None else chain(_faults(evidence), _steps_back(evidence, before))
    return next(faults, "")


def _faults(evidence: TrialEvidence) -> Iterator[str]:
    for where, arm in _arms(evidence):
        if min(msgspec.structs.astuple(arm)) < 0:
            yield f"{where} has counts below 0"
        if arm.failures > arm.requests:
            yield f"{where} has {arm.failures} failures in {arm.requests} requests"
    for name, outcomes in evidence.outcomes.items():
        for sums in (outcomes.control, outcomes.challenger):
            if len(sums.sums) != 2 * len(evidence.stages):
                yield f"the sums of {name} are not those of {len(evidence.stages)} stages"


def _steps_back(evidence: TrialEvidence, before: TrialEvidence) -> Iterator[str]:
    if len(before.stages) > len(evidence.stages):
        yield f"there were {len(before.stages)} stages and are {len(evidence.stages)}"
    for (where, now), (_, then) in zip(_arms(evidence), _arms(before), strict=False):
        for name in ("rows", "requests", "failures", "late"):
            if getattr(now, name) < getattr(then, name):
                yield f"{name} of {where} went from {getattr(then, name):,} back to {getattr(now, name):,}"


def _arms(evidence: TrialEvidence) -> Iterator[tuple[str, ArmCounts]]:
    for number, stage in enumerate(evidence.stages, start=1):
        yield f"control in stage {number}", stage.control
        yield f"the challenger in stage {number}", stage.challenger
