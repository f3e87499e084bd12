"""A model that is being served: its split, and the versions in memory that answer under it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from functools import cached_property

from rollout import metrics
from rollout.bundle.manifest import require_interchangeable
from rollout.bundle.schema import InputSchema
from rollout.config import Settings
from rollout.errors import HTTP_ERRORS, BundleError, RolloutError
from rollout.heads import Head
from rollout.inference.refusals import Refusals
from rollout.inference.snapshot import ServingSnapshot
from rollout.inference.trial import Trial
from rollout.inference.version import LoadedVersion
from rollout.review.sampling import Sampler
from rollout.routing.split import Split

# A version that no split names any more stays this long, in seconds, so that coming back to it is instant.
RETIRE_AFTER_S = 60.0
# The input that a pointer leads to.
OF_INPUT = re.compile(r"(?:/instances/[0-9]+)?/inputs/([^/]+)")


class ServedModel:
    """A model with its split and the versions that are in memory.

    Args:
        name: The model.
        split: Its split.
        versions: Loaded versions, its champion among them; the champion answers for a challenger that is not.
        settings: How often a challenger may fail.

    Attributes:
        loading: Versions that are on their way into memory.
        sampler: Decides which of its predictions are reviewed.
        snapshot: What answers now; whoever answers a request holds on to it until the end.
        has_left_a_thread: Whether a version that hangs was let go of; its thread stays.
        snapshots: It, and those before it under which requests may still end and be counted.
        refused: Requests that were refused lately.

    Raises:
        BundleError: If the versions cannot stand in for each other, or are not what the split names.
    """

    def __init__(self, name: str, split: Split, versions: Iterable[LoadedVersion], settings: Settings) -> None:
        self.name = name
        self.loading: dict[str, asyncio.Task[LoadedVersion]] = {}
        self.sampler = Sampler(name)
        self.versions: dict[str, LoadedVersion] = {}
        self.latency = metrics.Tally(metrics.LATENCY.labels(name))
        # A series that begins with its first increment is not seen to rise.
        for error in HTTP_ERRORS:
            if error.status >= 500:
                metrics.ERRORS.labels(name, error.type)
        self.refused = Refusals()
        self._settings = settings
        self._unused_since: dict[str, float] = {}
        self.has_left_a_thread = False
        self.snapshot = self._serve(split, versions, None)
        self.snapshots = [self.snapshot]
        for field in self.schema.fields:
            metrics.REFUSED_INPUTS.labels(name, field)

    @cached_property
    def secret(self) -> bytes:
        """What keys the hashes of inputs: the same in a whole deployment, and not kept with the hashes."""
        return self._settings.hash_secret()

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
    def task(self) -> Head:
        """What is answered, in the labels that callers see."""
        return self.snapshot.task

    def note_refused(self, error: RolloutError) -> None:
        """Counts a request whose inputs do not fit, once for each input that it is refused for."""
        found = {found[1] for pointer, _ in error.errors if (found := OF_INPUT.match(pointer))}
        names = [name for name in self.schema.fields if name in found]
        for name in names:
            metrics.REFUSED_INPUTS.labels(self.name, name).inc()
        if names:
            self.refused.add(error.client_id, names)

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
        for version in together.keys() & set(split.versions):
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
        if split.challenger in together:
            trial = before.trial if before is not None else None
            challenger = together[split.challenger]
            challenger.batcher.inline = False  # one that hangs must not take the event loop with it
            if trial is None or (trial.champion, trial.challenger) != (champion, challenger):
                trial = Trial(champion, challenger, self._settings)
        snapshot = ServingSnapshot(split, together, trial)
        self.versions = together
        metrics.REVISION.labels(self.name).set(split.revision)
        return snapshot


def _is_named(loaded: LoadedVersion, split: Split) -> bool:
    return split.digests.get(loaded.version, loaded.digest) == loaded.digest
