"""Which versions of a model are named, and by what: the others may be removed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from rollout.bundle.manifest import Manifest
from rollout.errors import StoredValueError
from rollout.routing.improvement import Improvement, read_improvement
from rollout.routing.split import Split
from rollout.routing.splits import Quarantined, read_history, read_latest, read_models, read_quarantine
from rollout.routing.traffic import Worker, read_workers
from rollout.store import Redis


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """What Redis knows about the versions of a model.

    Attributes:
        split: The last revision of its split, which may be its removal; ``None`` where it never had one.
        history: All revisions, oldest first.
        quarantine: Its bundles that were rolled back, by digest.
        workers: The workers that serve it.
        improvement: What became of its labels.
        trouble: Why nothing is known of its versions; empty where it is.
    """

    split: Split | None = None
    history: Sequence[Split] = ()
    quarantine: Mapping[str, Quarantined] = {}
    workers: Sequence[Worker] = ()
    improvement: Improvement = Improvement()
    trouble: str = ""

    def roles(self) -> dict[str, str]:
        """Returns what the split has each of its versions for, the champion first."""
        if self.split is None or self.split.removed:
            return {}
        roles = {self.split.champion: "champion"}
        if self.split.challenger:
            roles[self.split.challenger] = "challenger"
        if self.split.previous:
            roles.setdefault(self.split.previous, "previous")
        return roles

    def loaded(self, version: str) -> int:
        """Returns how many workers have a version in memory."""
        return sum(version in worker.variants for worker in self.workers)


async def read_states(redis: Redis) -> dict[str, ModelState]:
    """Returns what Redis knows about each model that has a split, or had one.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    return {model: await _read_state(redis, model) for model in await read_models(redis)}


async def _read_state(redis: Redis, model: str) -> ModelState:
    try:
        return ModelState(
            split=await read_latest(redis, model),
            history=await read_history(redis, model),
            quarantine=await read_quarantine(redis, model),
            workers=await read_workers(redis, model),
            improvement=await read_improvement(redis, model),
        )
    except StoredValueError as error:  # which hides no other model
        return ModelState(trouble=error.detail)


def named(state: ModelState, manifests: Mapping[str, Manifest], changes: int) -> dict[str, str]:
    """Says which versions of a model are named, and by what.

    Args:
        state: What Redis knows about it.
        manifests: Its bundles, by version.
        changes: How many of the last changes of the split count.

    Returns:
        For each version that is named, why it stays.
    """
    found = {version: f"the {role} of the split" for version, role in state.roles().items()}
    for worker in state.workers:
        for version in worker.variants:
            found.setdefault(version, "a worker has it in memory")
    for split in reversed(state.history[-changes:] if changes else ()):
        for version in split.kept:
            found.setdefault(version, f"revision {split.revision} of the split names it")
    if (attempt := state.improvement.open) is not None:
        for version in (attempt.version, attempt.of, attempt.against):
            found.setdefault(version, "`rollout improve` is at work on it")
    waiting = list(found)
    while waiting:
        version = waiting.pop()
        for parent in _parents(manifests[version]) if version in manifests else ():
            if parent not in found:
                found[parent] = f"{version}, which stays, comes from it"
                waiting.append(parent)
    return found


def _parents(manifest: Manifest) -> Iterable[str]:
    """Returns the versions that a bundle refers to: teacher, what was trained again, champion of the gate."""
    teacher = manifest.lineage.get("teacher")
    names = [teacher.get("version") if isinstance(teacher, Mapping) else None, manifest.lineage.get("again")]
    names.append(None if manifest.gate is None else manifest.gate.against)
    return [str(name) for name in names if name and name != manifest.version]
