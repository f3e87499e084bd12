"""A snapshot of a split: what answers under one of its revisions, and never changes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from rollout.bundle.task import Classification, Task
from rollout.inference.arm_counters import ArmCounters
from rollout.inference.decisions import Decisions
from rollout.inference.trial import Trial
from rollout.inference.version import LoadedVersion
from rollout.routing.assignment import Arm
from rollout.routing.split import Split


class Translation:
    """Puts the decisions of a version whose labels have other names or another order in the callers' labels.

    Args:
        own: The version's labels.
        meanings: What they mean to callers, where that is not the label itself; several may mean the same.
        public: The labels that callers see.

    Attributes:
        outputs: How many labels the version has.
    """

    def __init__(self, own: Sequence[str], meanings: Mapping[str, str], public: Sequence[str]) -> None:
        self._places = [public.index(meanings.get(label, label)) for label in own]
        self._width = len(public)
        self.outputs = len(own)

    def __call__(self, decisions: Decisions) -> Decisions:
        """Returns the decisions on the sums of the scores that mean the same."""
        scores = np.zeros((len(decisions), self._width))
        for column, place in enumerate(self._places):
            scores[:, place] += decisions.numbers[:, column]
        scores = scores.round(6)
        return Decisions(scores.argmax(-1), scores, decisions.needs_review, decisions.errors)


class ServingSnapshot:
    """What answers under one revision of a split. It never changes.

    Args:
        split: The split.
        versions: The versions in memory, its champion among them.
        trial: The challenger and its breaker, where there is one.

    Attributes:
        since: When it began, of ``time.monotonic()``.
        challenger: The version on trial; ``None`` without one, and where its bundle is missing.
        task: What is answered, in the labels that callers see.
        counts: What is counted of each arm.
        translations: For each version that needs it, what puts its decisions in the callers' labels.
    """

    def __init__(self, split: Split, versions: Mapping[str, LoadedVersion], trial: Trial | None) -> None:
        self.split = split
        self.trial = trial
        self.since = time.monotonic()
        self.champion = versions[split.champion]
        self.challenger = versions.get(split.challenger or "")
        present = [versions[version] for version in split.versions if version in versions]
        self.variants = {loaded.version: loaded.variant for loaded in present}
        self.task, self.translations = _public_labels(split, present)
        arms: dict[Arm, str] = {"champion": split.champion}
        if split.challenger is not None:
            arms |= {"control": split.champion, "challenger": split.challenger}
        self.counts = {
            arm: ArmCounters(arm, version, self.champion, self.challenger, self.task, split.revision)
            for arm, version in arms.items()
        }

    @property
    def is_busy(self) -> bool:
        """Whether rows wait for a batch of either version."""
        waits = self.challenger is not None and self.challenger.batcher.is_waited_for
        return waits or self.champion.batcher.is_waited_for


def _public_labels(split: Split, versions: Sequence[LoadedVersion]) -> tuple[Task, dict[str, Translation]]:
    """Returns the task in the labels that callers see, and a translation for each version that has others."""
    task = versions[0].manifest.task
    if not isinstance(task, Classification):
        return task, {}
    meanings = {loaded.version: split.labels.get(loaded.version, {}) for loaded in versions}
    public = list(dict.fromkeys(meanings[split.champion].get(label, label) for label in task.labels))
    translations = {}
    for loaded in versions:
        own = loaded.manifest.task.labels if isinstance(loaded.manifest.task, Classification) else []
        if own != public:
            translations[loaded.version] = Translation(own, meanings[loaded.version], public)
    return msgspec.structs.replace(task, labels=public), translations
