"""Whether clients stayed where the split puts them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from loadtests.callers import CLIENT, Seen
from rollout.routing.assignment import assign
from rollout.routing.split import Split


def torn(seen: Counter[Seen]) -> int:
    """Counts how often a client saw two arms under one revision."""
    arms: dict[tuple[int, int], set[str]] = defaultdict(set)
    for one in seen:
        arms[one.client, one.revision].add(one.arm)
    return sum(len(several) > 1 for several in arms.values())


def wrong(seen: Counter[Seen], splits: Mapping[int, Split]) -> int:
    """Counts the answers of another arm or version than the split gives the client."""
    return sum(count for one, count in seen.items() if not _is_right(one, splits))


def _is_right(one: Seen, splits: Mapping[int, Split]) -> bool:
    if one.revision not in splits:
        return False
    arm, version, *_ = assign(splits[one.revision], CLIENT.format(one.client))
    return one.arm == arm and one.version in (version, None)
