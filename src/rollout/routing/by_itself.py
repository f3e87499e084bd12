"""What happens by itself: which act a verdict and a policy allow (pure), and doing it once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from rollout.errors import InvalidSplitError, SplitConflictError
from rollout.judge.policy import Act
from rollout.judge.verdict import Verdict
from rollout.routing.changes import promote, ramp
from rollout.routing.control import LONGEST_WHY, carry_out, propose, propose_rollback
from rollout.routing.split import Split
from rollout.store import Redis
from rollout.words import percent

# Who makes these changes, in the history.
CONTROLLER = "rollout"
# After any change, whoever made it, so many seconds nothing but a rollback follows: workers have to follow first.
COOLDOWN_S = 10.0


def next_act(split: Split, verdict: Verdict, seconds: float) -> Act | None:
    """Returns what is to be done about a trial, if the policy allows it.

    A rollback waits for nothing. The ramp goes up by one stage at a time and never down; a version that was
    rolled back is in quarantine. So nothing flaps.

    Args:
        split: The split.
        verdict: On it.
        seconds: Since its last change.
    """
    if split.challenger is None or split.policy is None:
        return None
    allowed = split.policy.by_itself
    if verdict.verdict == "rollback":
        return "rollback" if "rollback" in allowed else None
    if seconds < COOLDOWN_S:
        return None
    if verdict.verdict == "promote" and "promote" in allowed:
        return "promote"
    return "step" if verdict.next_share is not None and "step" in allowed else None


async def carry_out_act(
    redis: Redis, model: str, split: Split, act: Act, verdict: Verdict, key: Path | None = None
) -> Split:
    """Changes a split as a verdict says, and notes the verdict in the history.

    Compared with the revision that was judged and written in one step: of several replicas one succeeds, and
    whatever a person changed meanwhile stands.

    Args:
        redis: Connection.
        model: The model.
        split: The split that was judged.
        act: What to do.
        verdict: Why.
        key: Public key of who must have signed the bundles, if anybody.

    Raises:
        SplitConflictError: If somebody else changed it first; then nothing is changed.
        RolloutError: If the change cannot be made.
    """
    if act == "rollback":
        proposal = await propose_rollback(redis, model)
        if proposal.before is None or proposal.before.revision != split.revision:
            raise SplitConflictError(f"the split of {model} is not at revision {split.revision} any more")
    else:
        proposal = await propose(redis, model, _change(act, verdict), revision=split.revision, key=key)
    after = msgspec.structs.replace(proposal.after, verdict=msgspec.to_builtins(verdict))
    why = verdict.detail[:LONGEST_WHY]
    if act == "step":
        stage = (
            f"{percent(split.share)} had its time and its clients"
            if split.share
            else "the shadow had its time and its rows"
        )
        why = f"{stage}, and nothing speaks against the next stage"
    return await carry_out(redis, proposal._replace(after=after), CONTROLLER, why)


def _change(act: Act, verdict: Verdict) -> Callable[[Split | None], Split]:
    def change(split: Split | None) -> Split:
        if split is None:
            raise InvalidSplitError("there is no split any more")
        if act == "promote":
            return promote(split)
        if verdict.next_share is None:
            raise InvalidSplitError("there is no next stage")
        return ramp(split, verdict.next_share)

    return change
