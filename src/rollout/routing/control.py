"""Changing a split: what the command line, the API and the console have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rollout.errors import BundleError, InvalidSplitError, QuarantinedError, SplitConflictError
from rollout.judge.policy import ACCURACY, Policy
from rollout.routing.changes import follow, remove, rollback
from rollout.routing.split import Split
from rollout.routing.splits import read_latest, read_quarantine, read_split, write_split
from rollout.store import Redis

# What a change is for: all of it is on a page of the console, with that of a thousand others.
LONGEST_WHY = 1000

if TYPE_CHECKING:
    from rollout.heads import Head


class Proposal(NamedTuple):
    """A change that was checked and not yet made.

    Attributes:
        model: The model.
        before: The split that it is based on, if there is one.
        after: The split that it would make.
        warnings: What speaks against it, in sentences.
        release: Digests that leave the quarantine with it.
        quarantine: Versions that go into quarantine with it, by digest.
    """

    model: str
    before: Split | None
    after: Split
    warnings: list[str]
    release: tuple[str, ...] = ()
    quarantine: Mapping[str, str] = {}


async def propose(
    redis: Redis,
    model: str,
    change: Callable[[Split | None], Split],
    *,
    revision: int | None = None,
    release: bool = False,
    renew: bool = False,
    key: Path | None = None,
) -> Proposal:
    """Checks a change: that its versions exist, are whole, can stand in for each other, and were not rolled back.

    Args:
        redis: Connection.
        model: The model.
        change: Makes the new split of the current one, which is ``None`` where nobody has set one.
        revision: The revision that the change is based on, if somebody says.
        release: Whether versions may leave the quarantine.
        renew: Whether the bundles are looked at again that the split knows: they may have been built anew.
        key: Public key of who must have signed the bundles, if anybody.

    Raises:
        InvalidSplitError: If it would make a split that cannot be served.
        QuarantinedError: If one of its versions was rolled back.
        SplitConflictError: If the current revision is another.
        StoreUnavailableError: If Redis does not answer.
    """
    latest = await read_latest(redis, model)
    before = None if latest is None or latest.removed else latest
    found = 0 if latest is None else latest.revision
    _require_revision(model, found, revision)
    after = msgspec.structs.replace(follow(before, change(before)), revision=found)
    warnings: list[str] = []
    if before is None or renew or set(after.versions) - set(before.digests) or after.labels != before.labels:
        after, warnings = await asyncio.to_thread(_vet, model, after, key)
    return Proposal(model, before, after, warnings, await _leaving(redis, model, after, release=release))


async def propose_rollback(redis: Redis, model: str) -> Proposal:
    """Prepares to send everybody back, which needs no bundle: nothing may stand in its way.

    Raises:
        InvalidSplitError: If there is nothing to go back from.
        StoreUnavailableError: If Redis does not answer.
    """
    before = await read_split(redis, model)
    if before is None:
        raise InvalidSplitError(f"{model} has no split")
    after, version = rollback(before)
    quarantine = {before.digests[version]: version} if version in before.digests else {}
    return Proposal(model, before, after, [], quarantine=quarantine)


async def propose_removal(redis: Redis, model: str, revision: int | None = None) -> Proposal:
    """Prepares to serve a model no more, which needs no bundle.

    Args:
        redis: Connection.
        model: The model.
        revision: The revision that the change is based on, if somebody says.

    Raises:
        InvalidSplitError: If it has no split.
        SplitConflictError: If the current revision is another.
        StoreUnavailableError: If Redis does not answer.
    """
    before = await read_split(redis, model)
    if before is None:
        raise InvalidSplitError(f"{model} has no split")
    _require_revision(model, before.revision, revision)
    return Proposal(model, before, remove(before), [])


async def carry_out(redis: Redis, proposal: Proposal, by: str, why: str) -> Split:
    """Makes a change.

    Args:
        redis: Connection.
        proposal: The change.
        by: Who makes it.
        why: What for.

    Returns:
        The split as it is stored.

    Raises:
        InvalidSplitError: If what it is for has more than ``LONGEST_WHY`` characters.
        SplitConflictError: If somebody else changed it since the proposal.
        StoreUnavailableError: If Redis does not answer.
    """
    if len(why) > LONGEST_WHY:
        raise InvalidSplitError(f"what a change is for has at most {LONGEST_WHY} characters, not {len(why):,}")
    split = msgspec.structs.replace(proposal.after, by=by, why=why)
    return await write_split(
        redis, proposal.model, split, quarantine=proposal.quarantine, release=proposal.release
    )


def _require_revision(model: str, found: int, wanted: int | None) -> None:
    if wanted is not None and wanted != found:
        raise SplitConflictError(
            f"the split of {model} is at revision {found}, not {wanted}: read it again, then change it"
        )


def _vet(model: str, split: Split, key: Path | None) -> tuple[Split, list[str]]:
    from rollout.bundle.manifest import digest, require_interchangeable  # noqa: PLC0415
    from rollout.bundle.store import open_bundle  # noqa: PLC0415  the store imports BentoML

    try:
        bundles = {version: open_bundle(f"{model}:{version}", key) for version in split.versions}
        champion = bundles[split.champion][1]
        for _, manifest in bundles.values():
            require_interchangeable(champion, manifest, split.labels)
        _require_judge(champion.task, split.policy)
    except BundleError as error:
        raise InvalidSplitError(error.detail) from None
    warnings = []
    if split.challenger is not None and bundles[split.challenger][1].gate is None:
        tag = f"{model}:{split.challenger}"
        warnings.append(
            f"{tag} goes on trial without a gate: `rollout gate {tag} --against {split.champion}` compares it "
            "over several seeds"
        )
    digests = split.digests | {version: digest(manifest) for version, (_, manifest) in bundles.items()}
    return msgspec.structs.replace(split, digests=digests), warnings


def _require_judge(head: Head, policy: Policy | None) -> None:
    if policy is None:
        return
    judge = head.judged(policy.head)
    if policy.metric != ACCURACY:
        return
    if not judge.has_loss:
        raise InvalidSplitError(
            "the model's answers are neither right nor wrong: a policy needs another head, or as its metric a "
            "number that callers report"
        )
    if policy.margin >= 1:  # not refused in older revisions
        raise InvalidSplitError(f"the margin of an accuracy is below 1, not {policy.margin}: 0.01 is one point")


async def _leaving(redis: Redis, model: str, after: Split, *, release: bool) -> tuple[str, ...]:
    """Returns the digests that leave the quarantine."""
    quarantine = await read_quarantine(redis, model)
    digests = {version: after.digests[version] for version in after.versions if version in after.digests}
    held = {version: digest for version, digest in digests.items() if digest in quarantine}
    if held and not release:
        version, digest = next(iter(held.items()))
        record = quarantine[digest]
        raise QuarantinedError(
            f"{model}:{version} was rolled back by {record.by} at {record.at} ({record.why}); it cannot come "
            "back unless you say --release, or ?release=true over HTTP"
        )
    return tuple(held.values())
