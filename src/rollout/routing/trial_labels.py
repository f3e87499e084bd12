"""What the trial asks of reviewers: how many labels of disagreements it has, and how many more it wants."""

from __future__ import annotations

import msgspec

from rollout.judge.policy import Compare
from rollout.judge.verdict import labels_until_verdict
from rollout.routing.splits import read_split
from rollout.routing.trial_evidence import read_evidence
from rollout.store import Redis
from rollout.words import plural


class TrialLabels(msgspec.Struct, frozen=True, kw_only=True):
    """Labels of rows on which champion and challenger disagree.

    Attributes:
        version: The version on trial.
        compare: What decides the trial by its policy: outcomes, what is decided in review, or these labels.
        disagreed: Disagreements in shadow.
        labelled: Those of them that people have decided.
        wanted: Labels that are still to be expected until a verdict; ``None`` where nobody knows, or they do not
            decide.
    """

    version: str
    compare: Compare
    disagreed: int
    labelled: int
    wanted: int | None

    def in_words(self) -> str:
        """Says so in a sentence.

        Example:
            >>> found = TrialLabels(version="v2", compare="disagreements", disagreed=90, labelled=7, wanted=1200)
            >>> found.in_words()
            'about 1,200 more labels are expected until a verdict on v2; 7 of 90 disagreements are labelled'
        """
        known = f"{self.labelled:,} of {plural(self.disagreed, 'disagreement')} "
        known += "is labelled" if self.disagreed == 1 else "are labelled"
        if self.compare == "outcomes":
            return f"outcomes decide the trial of {self.version}; {known}"
        if self.compare == "reviews":
            return (
                f"the trial of {self.version} is decided by what comes to review, as far as all of it is decided"
            )
        if self.wanted is None:
            return f"nobody knows yet how many labels the trial of {self.version} takes; {known}"
        if not self.wanted:
            return f"the trial of {self.version} has the labels that it takes; {known}"
        more = f"{plural(self.wanted, 'more label')} {'is' if self.wanted == 1 else 'are'} expected"
        return f"about {more} until a verdict on {self.version}; {known}"


async def read_trial_labels(redis: Redis, model: str) -> TrialLabels | None:
    """Returns what the trial of a model asks of reviewers; ``None`` without one.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    split = await read_split(redis, model)
    if split is None or split.challenger is None:
        return None
    evidence = await read_evidence(redis, model, split)
    return TrialLabels(
        version=split.challenger,
        compare="outcomes" if split.policy is None else split.policy.compare,
        disagreed=evidence.disagreements.disagreed,
        labelled=len(evidence.disagreements.labelled),
        wanted=None if split.policy is None else labels_until_verdict(evidence, split.policy),
    )
