"""A snapshot of a split: what answers under one of its revisions, and never changes."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec

from rollout.heads.head import Translation
from rollout.inference.arm_counters import ArmCounters
from rollout.inference.rows import PublicHead
from rollout.inference.trial import Trial
from rollout.inference.version import LoadedVersion
from rollout.routing.assignment import Arm
from rollout.routing.split import Split


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
        heads: What each version answers with.
        columns: How many columns the numbers of each version have, before they are translated.
        translations: For each version that needs it, what puts its numbers in the layout of ``task``.
    """

    def __init__(self, split: Split, versions: Mapping[str, LoadedVersion], trial: Trial | None) -> None:
        self.split = split
        self.trial = trial
        self.since = time.monotonic()
        self.champion = versions[split.champion]
        self.challenger = versions.get(split.challenger or "")
        present = [versions[version] for version in split.versions if version in versions]
        self.variants = {loaded.version: loaded.variant for loaded in present}
        judge = "" if split.policy is None else split.policy.head
        self.task = self.champion.manifest.task.public(split.labels.get(split.champion, {})).judged(judge)
        self.heads: dict[str, PublicHead] = {}
        self.columns: dict[str, int] = {}
        self.translations: dict[str, Translation] = {}
        for loaded in present:
            meanings, own = split.labels.get(loaded.version, {}), loaded.manifest.task
            translation = own.translation(self.task, meanings)
            if translation is not None:
                self.translations[loaded.version] = translation
            public = own.public(meanings).judged(judge)
            self.heads[loaded.version] = PublicHead(
                public if translation is None else self.task, msgspec.Raw(msgspec.json.encode(public))
            )
            self.columns[loaded.version] = own.columns
        arms: dict[Arm, str] = {"champion": split.champion}
        if split.challenger is not None:
            arms |= {"control": split.champion, "challenger": split.challenger}
        late_ms = None if split.policy is None else split.policy.guardrails.late_ms
        budget_s = None if late_ms is None else late_ms / 1000
        self.counts = {
            arm: ArmCounters(arm, version, self.champion, self.challenger, split.revision, budget_s)
            for arm, version in arms.items()
        }

    @property
    def is_busy(self) -> bool:
        """Whether rows wait for a batch of either version."""
        waits = self.challenger is not None and self.challenger.batcher.is_waited_for
        return waits or self.champion.batcher.is_waited_for
