"""Changes of a split: what each makes of it, and what follows for the clients. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product

import msgspec

from rollout.errors import InvalidSplitError
from rollout.routing.assignment import CHALLENGER_START
from rollout.routing.split import Split
from rollout.words import percent

BUCKETS = 10_000


def default_experiment(model: str, champion: str, challenger: str | None) -> str:
    """Returns the experiment key of a trial to which nobody gave one."""
    return f"{model}-{champion}-{challenger}" if challenger else ""


def ramp(split: Split, share: float) -> Split:
    """Gives the challenger another share of the clients.

    Raises:
        InvalidSplitError: If there is no challenger, or the share lies outside 0 to 0.5.
    """
    if split.challenger is None:
        raise InvalidSplitError("there is no challenger on trial whose share could change")
    return msgspec.structs.replace(split, share=share)


def promote(split: Split) -> Split:
    """Makes the challenger champion; the old champion stays loaded.

    Raises:
        InvalidSplitError: If there is no challenger.
    """
    if split.challenger is None:
        raise InvalidSplitError("there is no challenger on trial that could be promoted")
    return msgspec.structs.replace(split.without_trial(), champion=split.challenger)


def rollback(split: Split) -> tuple[Split, str]:
    """Sends everybody back: from the challenger to the champion, or after a promotion to the champion before it.

    One step, and not a second one by pressing twice: nothing remains to go back to.

    Returns:
        The split, and the version that nobody gets any more.

    Raises:
        InvalidSplitError: If there is nothing to go back from.
    """
    champion, left = (
        (split.previous, split.champion) if split.challenger is None else (split.champion, split.challenger)
    )
    if champion is None:
        raise InvalidSplitError(
            "there is neither a challenger on trial nor a promotion to go back from; "
            "`rollout split set MODEL --champion VERSION` goes anywhere"
        )
    after = msgspec.structs.replace(split.without_trial(), champion=champion, previous=None, verdict=None)
    return _with_known(after, split), left


def remove(split: Split) -> Split:
    """Ends serving: the model leaves, and its history stays."""
    return msgspec.structs.replace(split.without_trial(), previous=None, rules=(), removed=True, verdict=None)


def follow(current: Split | None, wanted: Split) -> Split:
    """Fills in what is not the caller's to say: the revision, the champion to go back to, and the digests.

    Who went back to a champion has nothing further to go back to, unless it came back by a trial.
    """
    if current is None:
        return msgspec.structs.replace(wanted, revision=0, previous=None, digests={}, removed=False, verdict=None)
    if wanted.champion == current.champion:
        previous = current.previous
    else:
        went_back = wanted.champion == current.previous and wanted.champion != current.challenger
        previous = None if went_back else current.champion
    after = msgspec.structs.replace(
        wanted, revision=current.revision, previous=previous, removed=False, verdict=None
    )
    return _with_known(after, current)


def _with_known(after: Split, before: Split) -> Split:
    """Keeps the digests and labels of those versions that stay."""
    return msgspec.structs.replace(
        after,
        digests={version: before.digests[version] for version in after.kept if version in before.digests},
        labels={version: names for version, names in after.labels.items() if version in after.kept},
    )


def trial_began(history: Sequence[Split], split: Split) -> int:
    """Returns the revision since which the same bundles have been on trial without a break, on the same clients.

    Args:
        history: The changes before it, oldest first; where they do not reach back so far, the first of them.
        split: The split.
    """
    first = split.revision
    for before in reversed(history):
        if before.revision < first:
            if before.experiment != split.experiment or _bundles(before) != _bundles(split):
                break
            first = before.revision
    return first


def _bundles(split: Split) -> list[tuple[str, str | None]]:
    return [(version, split.digests.get(version)) for version in split.versions]


def moves(before: Split, after: Split) -> dict[tuple[str, str], float]:
    """Returns the share of clients that get another version, by (version before, version after).

    Exact where the experiment stays; the product of the shares where a new one shuffles the clients. Rules are
    left out: nobody knows how many clients they fit.
    """
    if before.experiment == after.experiment:
        pairs = Counter(zip(_versions(before), _versions(after), strict=True))
        shares = {pair: count / BUCKETS for pair, count in pairs.items()}
    else:
        one, other = Counter(_versions(before)), Counter(_versions(after))
        shares = {(a, b): one[a] * other[b] / BUCKETS**2 for a, b in product(one, other)}
    return {pair: share for pair, share in shares.items() if pair[0] != pair[1]}


def consequences(before: Split | None, after: Split) -> list[str]:
    """Says in sentences what a change does to the clients."""
    if before is None:
        if after.challenger is None:
            return [f"Everybody gets {after.champion}."]
        return [_trial(after), *([_by_itself(after)] if after.policy is not None else [])]
    if after.removed:
        return ["The model is not served any more: its callers get 404. Its bundles, history and reviews stay."]
    sentences = []
    moved = moves(before, after)
    for (old, new), share in sorted(moved.items(), key=lambda item: -item[1]):
        back = "" if (new, old) in moved else ", and none back"
        who = "everybody" if share == 1 else f"about {percent(share)} of the clients"
        sentences.append(f"Moves {who} from {old} to {new}{back if share < 1 else ''}.")
    if not moved:
        sentences.append("No client gets another version.")
    if after.challenger is not None and before.experiment != after.experiment:
        sentences.append(_trial(after))
        if before.challenger is not None:
            sentences.append("The new experiment key shuffles all clients: who was in the trial may now be out.")
    if after.challenger is not None and after.shadow != before.shadow:
        sentences.append(f"{after.challenger} scores {percent(after.shadow)} of the others' requests unseen.")
    if after.challenger is not None and after.policy != before.policy:
        sentences.append(_by_itself(after))
    if after.rules != before.rules:
        sentences.append(
            f"Rules before the hash: {len(before.rules)} → {len(after.rules)}. "
            "Whom they move depends on who calls."
        )
    return sentences


def _trial(split: Split) -> str:
    return (
        f"{split.challenger} goes on trial with {percent(split.share)} of the clients, and as many are its "
        f"control; everybody else gets {split.champion}."
    )


def _by_itself(split: Split) -> str:
    acts = () if split.policy is None else split.policy.by_itself
    if not acts:
        return "Nothing happens by itself."
    can = {
        "step": f"gives {split.challenger} the next share of the ramp",
        "promote": f"makes {split.challenger} champion",
        "rollback": f"rolls {split.challenger} back",
    }
    return f"By itself, the service {', '.join(can[act] for act in acts)}, when the evidence says so."


def _versions(split: Split) -> list[str]:
    """Returns the version of each bucket."""
    versions = [split.champion] * BUCKETS
    if split.challenger is not None:
        start, size = round(CHALLENGER_START * BUCKETS), round(split.share * BUCKETS)
        versions[start : start + size] = [split.challenger] * size
    return versions
