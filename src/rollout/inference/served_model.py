"""A model that is being served: its split, and the versions in memory that answer under it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from rollout import metrics
from rollout.bundle.manifest import require_interchangeable
from rollout.bundle.schema import InputSchema
from rollout.bundle.task import Classification, Task
from rollout.config import Settings
from rollout.errors import HTTP_ERRORS, BundleError
from rollout.inference.arm_counters import ArmCounters
from rollout.inference.rows import Decision
from rollout.inference.trial import Trial
from rollout.inference.version import LoadedVersion
from rollout.review.sampling import Sampler
from rollout.routing.assignment import Arm
from rollout.routing.split import Split

# A version that no split names any more stays this long, in seconds, so that coming back to it is instant.
RETIRE_AFTER_S = 60.0


class Translation:
    """Puts the decisions of a version whose labels have other names or another order in the callers' labels.

    Args:
        own: The version's labels.
        meanings: What they mean to callers, where that is not the label itself; several may mean the same.
        public: The labels that callers see.
    """

    def __init__(self, own: Sequence[str], meanings: Mapping[str, str], public: Sequence[str]) -> None:
        self._places = [public.index(meanings.get(label, label)) for label in own]
        self._width = len(public)

    def __call__(self, decision: Decision) -> Decision:
        """Returns the decision on the sums of the scores that mean the same."""
        scores = [0.0] * self._width
        for place, score in zip(self._places, decision.numbers, strict=True):
            scores[place] = round(scores[place] + score, 6)
        return Decision(scores.index(max(scores)), scores, decision.needs_review)


class ServingSnapshot:
    """What answers under one revision of a split. It never changes.

    Args:
        split: The split.
        versions: The versions in memory, among them all that it names.
        trial: The challenger and its breaker, where there is one.

    Attributes:
        since: When it began, of ``time.monotonic()``.
        task: What is answered, in the labels that callers see.
        counts: What is counted of each arm.
        translations: For each version that needs it, what puts its decisions in the callers' labels.
    """

    def __init__(self, split: Split, versions: Mapping[str, LoadedVersion], trial: Trial | None) -> None:
        self.split = split
        self.trial = trial
        self.since = time.monotonic()
        self.champion = versions[split.champion]
        self.challenger = None if split.challenger is None else versions[split.challenger]
        self.variants = {version: versions[version].variant for version in split.versions}
        self.task, self.translations = _public_labels(split, [versions[version] for version in split.versions])
        arms: dict[Arm, LoadedVersion] = {"champion": self.champion}
        if self.challenger is not None:
            arms |= {"control": self.champion, "challenger": self.challenger}
        self.counts = {
            arm: ArmCounters(arm, loaded, self.champion, self.challenger, self.task, split.revision)
            for arm, loaded in arms.items()
        }

    @property
    def is_busy(self) -> bool:
        """Whether rows wait for a batch of either version."""
        waits = self.challenger is not None and self.challenger.batcher.is_waited_for
        return waits or self.champion.batcher.is_waited_for


class ServedModel:
    """A model with its split and the versions that are in memory.

    Args:
        name: The model.
        split: Its split.
        versions: Loaded versions, among them all that the split names.
        settings: How often a challenger may fail.

    Attributes:
        sampler: Decides which of its predictions are reviewed.
        snapshot: What answers now; whoever answers a request holds on to it until the end.
        has_left_a_thread: Whether a version that hangs was let go of; its thread stays.
        snapshots: It, and those before it under which requests may still end and be counted.

    Raises:
        BundleError: If the versions cannot stand in for each other, or are not what the split names.
    """

    def __init__(self, name: str, split: Split, versions: Iterable[LoadedVersion], settings: Settings) -> None:
        self.name = name
        self.sampler = Sampler(name)
        self.versions: dict[str, LoadedVersion] = {}
        self.latency = metrics.Tally(metrics.LATENCY.labels(name))
        # A series that begins with its first increment is not seen to rise.
        for error in HTTP_ERRORS:
            if error.status >= 500:
                metrics.ERRORS.labels(name, error.type)
        self._settings = settings
        self._unused_since: dict[str, float] = {}
        self.has_left_a_thread = False
        self.snapshot = self._serve(split, versions, None)
        self.snapshots = [self.snapshot]

    @property
    def split(self) -> Split:
        """The split that is served."""
        return self.snapshot.split

    @property
    def champion(self) -> LoadedVersion:
        """The champion."""
        return self.snapshot.champion

    @property
    def schema(self) -> InputSchema:
        """The input schema, in any version."""
        return self.champion.schema

    @property
    def task(self) -> Task:
        """What is answered, in the labels that callers see."""
        return self.snapshot.task

    def missing(self, split: Split) -> list[str]:
        """Returns the versions that a split keeps in memory and that are not there, or not as it names them."""
        return [
            version
            for version in split.kept
            if version not in self.versions or not _is_named(self.versions[version], split)
        ]

    def apply(self, split: Split, versions: Iterable[LoadedVersion]) -> None:
        """Switches to a split; requests that are being answered end under the one before.

        Raises:
            BundleError: If the versions cannot stand in for each other, or are not what the split names; then
                nothing changes.
        """
        self.snapshot = self._serve(split, versions, self.snapshot)
        self.snapshots.append(self.snapshot)

    def retire(self) -> None:
        """Lets go of revisions and of versions that the split has not named for a while."""
        now = time.monotonic()
        while len(self.snapshots) > 1 and now - self.snapshots[1].since > RETIRE_AFTER_S:
            del self.snapshots[0]
        for version, loaded in list(self.versions.items()):
            if version in self.split.kept:
                self._unused_since.pop(version, None)
            elif loaded.batcher.hangs():  # should it come back, it is loaded anew
                self.has_left_a_thread = True
                self._unused_since.pop(version, None)
                del self.versions[version]
            elif now - self._unused_since.setdefault(version, now) > RETIRE_AFTER_S and loaded.batcher.is_idle:
                del self.versions[version], self._unused_since[version]
                loaded.close()

    def _serve(
        self, split: Split, versions: Iterable[LoadedVersion], before: ServingSnapshot | None
    ) -> ServingSnapshot:
        together = self.versions | {loaded.version: loaded for loaded in versions}
        champion = together[split.champion]
        for version in split.versions:
            if not _is_named(together[version], split):
                raise BundleError(
                    f"{self.name}:{version} on this machine is not the bundle that the split names: its manifest "
                    f"has the SHA-256 {together[version].digest[:12]}…, not {split.digests[version][:12]}…; "
                    "`rollout split set` says which one it is to be"
                )
            require_interchangeable(champion.manifest, together[version].manifest, split.labels)
        if before is not None:
            require_interchangeable(
                before.champion.manifest, champion.manifest, before.split.labels | split.labels
            )
        trial = None
        champion.batcher.inline = True
        if split.challenger is not None:
            trial = before.trial if before is not None else None
            challenger = together[split.challenger]
            challenger.batcher.inline = False  # one that hangs must not take the event loop with it
            if trial is None or (trial.champion, trial.challenger) != (champion, challenger):
                trial = Trial(champion, challenger, self._settings)
        snapshot = ServingSnapshot(split, together, trial)
        self.versions = together
        metrics.REVISION.labels(self.name).set(split.revision)
        return serving


def _is_named(loaded: LoadedVersion, split: Split) -> bool:
    return split.digests.get(loaded.version, loaded.digest) == loaded.digest


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
