"""From a version that passed the gate to its trial: what decides it, and beginning it once."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from rollout.errors import InvalidSplitError
from rollout.judge.policy import ACCURACY, Policy
from rollout.routing.changes import default_experiment
from rollout.routing.control import carry_out, propose
from rollout.routing.split import Split
from rollout.routing.splits import read_history
from rollout.store import Redis

# Where no trial had a policy. A margin would be given up anew with each version that follows another by itself.
FIRST_POLICY = Policy(aim="better", margin=0.0, by_itself=("step", "promote", "rollback"))


class Wanted(NamedTuple):
    """How a version goes on trial.

    Attributes:
        policy: What decides it; without one, what decided the last trial.
        shadow: Share of the requests that it scores unseen, with no client of its own; ``None`` begins at the
            first stage instead.
    """

    policy: Policy | None = None
    shadow: float | None = None


async def last_policy(redis: Redis, model: str) -> Policy:
    """Returns what decided the last trial of a model that anything decided.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    history = await read_history(redis, model)
    return next((split.policy for split in reversed(history) if split.policy is not None), FIRST_POLICY)


async def was_on_trial(redis: Redis, model: str, version: str) -> bool:
    """Whether a version is on trial, or was.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    return any(version in split.versions for split in await read_history(redis, model))


async def put_on_trial(
    redis: Redis,
    model: str,
    version: str,
    on: Split,
    wanted: Wanted,
    *,
    by: str,
    why: str,
    key: Path | None,
) -> tuple[Split, list[str]]:
    """Puts a version on trial, if the split is still the one that was looked at.

    Args:
        redis: Connection.
        model: The model.
        version: The version.
        on: The split that was looked at.
        wanted: How.
        by: Who does it.
        why: What for.
        key: Public key of who must have signed the bundles, if anybody.

    Returns:
        The split, and what speaks against it in sentences.

    Raises:
        SplitConflictError: If somebody changed the split since: that stands.
        QuarantinedError: If the version was rolled back.
        InvalidSplitError: If it cannot be on trial.
        StoreUnavailableError: If Redis does not answer.
    """

    def change(current: Split | None) -> Split:
        if current is None:
            raise InvalidSplitError(f"{model} has no split any more")
        return trial_of(model, version, current, wanted)

    proposal = await propose(redis, model, change, revision=on.revision, key=key)
    return await carry_out(redis, proposal, by, why), proposal.warnings


def trial_of(model: str, version: str, current: Split, wanted: Wanted) -> Split:
    """Returns a split with a version on trial: in shadow, or at the first stage of its policy."""
    policy = wanted.policy or FIRST_POLICY
    if wanted.shadow is None:
        share, shadow = policy.stages[0], 0.0
    else:
        share, shadow = 0.0, wanted.shadow
        if policy.metric == ACCURACY:  # nobody gets it, so that no outcome would be its own
            policy = msgspec.structs.replace(policy, compare="disagreements")
    return msgspec.structs.replace(
        current,
        challenger=version,
        share=share,
        shadow=shadow,
        experiment=default_experiment(model, current.champion, version),
        policy=policy,
    )
