"""Assignment: a pure function of (experiment key, client ID, split), the same in every language.

The hash is GrowthBook's version 2, so that any GrowthBook SDK reproduces an assignment:
``n = fnv1a32(str(fnv1a32(seed + client_id))) % 10000 / 10000``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

from rollout.routing.split import Split

Arm = Literal["champion", "control", "challenger"]

CHALLENGER_START = 0.5
FNV_OFFSET = 0x811C9DC5
FNV_PRIME = 0x01000193


class Assignment(NamedTuple):
    """What a client gets.

    Attributes:
        arm: ``champion`` outside the trial; ``control`` or ``challenger`` in it.
        version: The version that serves this arm.
        bucket: Where the client lies, from 0 to 0.9999; ``None`` without a challenger or a client.
    """

    arm: Arm
    version: str
    bucket: float | None


def assign(split: Split, client_id: str) -> Assignment:
    """Returns the arm of a client.

    Control is ``[0, share)`` and challenger is ``[0.5, 0.5 + share)``: both start at fixed points, so that a
    growing share only adds clients and a shrinking one restores exactly who was where. Nobody, whose ID is empty,
    is outside the trial.
    """
    if split.challenger is None or not client_id:
        return Assignment("champion", split.champion, None)
    position = bucket(split.experiment, client_id)
    if position < split.share:
        return Assignment("control", split.champion, position)
    # Rounded, since 0.5 + 0.07 is a little more than 0.57 and would let one bucket more in than control has.
    if CHALLENGER_START <= position < round(CHALLENGER_START + split.share, 9):
        return Assignment("challenger", split.challenger, position)
    return Assignment("champion", split.champion, position)


@lru_cache(maxsize=16_384)
def bucket(seed: str, client_id: str) -> float:
    """Hashes a client to one of 10,000 evenly filled positions from 0 to 0.9999."""
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
