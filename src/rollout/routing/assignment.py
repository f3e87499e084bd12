"""Assignment: a pure function of (experiment key, client ID, split), the same in every language.

The hash is GrowthBook's version 2, so that any GrowthBook SDK reproduces an assignment:
``n = fnv1a32(str(fnv1a32(seed + client_id))) % 10000 / 10000``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fnmatch import translate
from functools import lru_cache
from typing import Literal, NamedTuple

from rollout.routing.split import Rule, Split, is_pattern

Arm = Literal["champion", "control", "challenger"]

CHALLENGER_START = 0.5
FNV_OFFSET = 0x811C9DC5
FNV_PRIME = 0x01000193
NAMED = 3  # of the clients of a rule, in a sentence


class Assignment(NamedTuple):
    """What a client gets.

    Attributes:
        arm: ``champion`` outside the trial; ``control`` or ``challenger`` in it.
        version: The version that serves this arm.
        bucket: Where the client lies, from 0 to 0.9999; ``None`` where the hash was not asked.
        rule: Index of the rule that decided, if one did.
    """

    arm: Arm
    version: str
    bucket: float | None
    rule: int | None = None


def assign(split: Split, client_id: str, segment: str = "") -> Assignment:
    """Returns the arm of a client.

    The rules come first. Then control is ``[0, share)`` and challenger is ``[0.5, 0.5 + share)``: both start at
    fixed points, so that a growing share only adds clients and a shrinking one restores exactly who was where.
    Nobody, whose ID is empty, is outside the trial.

    Args:
        split: The split.
        client_id: The caller's own ID of the client.
        segment: What the caller says the client belongs to, for the rules that ask.
    """
    if split.challenger is None or not client_id:
        return Assignment("champion", split.champion, None)
    if split.rules:
        rule = _matcher(split.rules)(client_id, segment)
        if rule is not None:
            arm = split.rules[rule].arm
            return Assignment(arm, split.challenger if arm == "challenger" else split.champion, None, rule)
    place = bucket(split.experiment, client_id)
    if place < split.share:
        return Assignment("control", split.champion, place)
    # Rounded, since 0.5 + 0.07 is a little more than 0.57 and would let one bucket more in than control has.
    if CHALLENGER_START <= place < round(CHALLENGER_START + split.share, 9):
        return Assignment("challenger", split.challenger, place)
    return Assignment("champion", split.champion, place)


def explain(split: Split, assignment: Assignment) -> str:
    """Says in a sentence why a client gets its arm."""
    if assignment.rule is not None:
        return f"rule {assignment.rule + 1} {describe(split.rules[assignment.rule])}"
    if split.challenger is None:
        return "there is no challenger on trial"
    if assignment.bucket is None:
        return "a client without an ID is outside the trial"
    end = round(CHALLENGER_START + split.share, 9)
    ranges = {
        "control": f"lies in [0, {split.share:g}), the control of experiment {split.experiment}",
        "challenger": f"lies in [{CHALLENGER_START:g}, {end:g}), the challenger of experiment {split.experiment}",
        "champion": f"lies in neither [0, {split.share:g}) nor [{CHALLENGER_START:g}, {end:g})",
    }
    return f"bucket {assignment.bucket:.4f} {ranges[assignment.arm]}"


def describe(rule: Rule) -> str:
    """Says what a rule does: "pins clients acme, tester-* to the challenger"."""
    kind, names = ("clients", rule.clients) if rule.clients else ("segments", rule.segments)
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    whom = f"{kind} {', '.join(names[:NAMED])}{more}"
    return f"pins {whom} to the challenger" if rule.arm == "challenger" else f"keeps {whom} out of the trial"


@lru_cache(maxsize=64)
def _matcher(rules: tuple[Rule, ...]) -> Callable[[str, str], int | None]:
    """Returns what finds the first rule that fits a client ID and a segment."""
    segments: dict[str, int] = {}
    names: dict[str, int] = {}
    patterns: list[tuple[int, re.Pattern[str]]] = []
    for index, rule in enumerate(rules):
        for segment in rule.segments:
            segments.setdefault(segment, index)
        for client in rule.clients:
            if is_pattern(client):
                patterns.append((index, _pattern(client)))
            else:
                names.setdefault(client, index)
    none = len(rules)

    def match(client_id: str, segment: str) -> int | None:
        found = min(names.get(client_id, none), segments.get(segment, none))
        for index, pattern in patterns:
            if index >= found:
                break
            if pattern.match(client_id):
                found = index
        return None if found == none else found

    return match


def _pattern(client: str) -> re.Pattern[str]:
    return re.compile(translate(client.replace("[", "[[]")))


@lru_cache(maxsize=16_384)
def bucket(seed: str, client_id: str) -> float:
    """Hashes a client to one of 10,000 evenly filled positions from 0 to 0.9999; those seen lately are kept."""
    return position(seed, client_id)


def position(seed: str, client_id: str) -> float:
    """Hashes anything as a client is hashed, and keeps nothing."""
    return fnv1a32(str(fnv1a32(client_id, _state(seed)))) % 10000 / 10000


def fnv1a32(text: str, state: int = FNV_OFFSET) -> int:
    """32-bit FNV-1a (Fowler, Noll & Vo, IETF draft-eastlake-fnv) over UTF-16 code units, as GrowthBook's SDKs.

    Args:
        text: What to hash.
        state: The hash of what stands before it.
    """
    if text.isascii():
        units: Iterable[int] = text.encode()
    else:
        data = text.encode("utf-16-le", "surrogatepass")
        units = (low | high << 8 for low, high in zip(data[::2], data[1::2], strict=True))
    for unit in units:
        state = ((state ^ unit) * FNV_PRIME) & 0xFFFFFFFF
    return state


@lru_cache(maxsize=1024)
def _state(seed: str) -> int:
    return fnv1a32(seed)
