"""What became of reviewed labels: the attempts to make a better version of them, in Redis."""

from __future__ import annotations

from typing import Literal

import msgspec

from rollout.keys import Keys
from rollout.store import Redis, decode_stored, guard, run_script

MOST_ATTEMPTS = 20

# KEYS: lock, record. ARGV: owner of the lock, record. Returns 1 where the lock was still theirs.
PUT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[2], ARGV[2])
return 1
"""

Step = Literal["labels", "training", "gate", "bundle", "trial"]
Outcome = Literal["open", "on trial", "refused", "failed"]


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A step of an attempt that is done, and will not be done again.

    Attributes:
        step: The step.
        at: When it was done, ISO 8601 in UTC.
        detail: What came of it, in a sentence.
    """

    step: Step
    at: str
    detail: str


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to make a better version from reviewed labels: the report of it, too.

    Attributes:
        version: The name that is kept for it.
        of: The version of the recipe that is trained again.
        against: The champion that the gate compared it with, or will.
        labels: The labels that are new.
        exports: What it learns from: SHA-256 of each export, by its name.
        began: When it began, ISO 8601 in UTC.
        digest: What its bundle is known by, once it is packed: another one of this name is somebody else's.
        done: The steps that are done, in order.
        warnings: What a person should look at, in sentences.
        tries: How often the step that is next was begun.
        outcome: What became of it: ``refused`` by the gate, or ``failed`` for another reason that would be there
            the next time, too.
        why: Why it ended, or did not go on the last time.
        todo: What a person can do about it.
        ended: When it ended, ISO 8601 in UTC; empty while it is open.
    """

    version: str
    of: str
    against: str
    labels: int
    exports: dict[str, str]
    began: str
    digest: str = ""
    done: tuple[Done, ...] = ()
    warnings: tuple[str, ...] = ()
    tries: int = 0
    outcome: Outcome = "open"
    why: str = ""
    todo: str = ""
    ended: str = ""

    def has_done(self, step: Step) -> bool:
        """Whether a step is done."""
        return any(done.step == step for done in self.done)


class Improvement(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the labels of a model.

    Attributes:
        number: Attempts so far.
        cursor: The decision up to which labels were exported.
        exports: All exports so far: SHA-256 by name.
        attempts: The last attempts, oldest first; only the last one may be open.
    """

    number: int = 0
    cursor: int = 0
    exports: dict[str, str] = {}
    attempts: tuple[Attempt, ...] = ()

    @property
    def open(self) -> Attempt | None:
        """The attempt that is not at its end."""
        return self.attempts[-1] if self.attempts and self.attempts[-1].outcome == "open" else None

    def begin(self, attempt: Attempt, cursor: int) -> Improvement:
        """Returns this with another attempt, on labels up to ``cursor``."""
        return Improvement(
            number=self.number + 1,
            cursor=cursor,
            exports=attempt.exports,
            attempts=(*self.attempts, attempt)[-MOST_ATTEMPTS:],
        )

    def with_last(self, attempt: Attempt) -> Improvement:
        """Returns this with the last attempt as it stands now."""
        return msgspec.structs.replace(self, attempts=(*self.attempts[:-1], attempt))


async def read_improvement(redis: Redis, model: str) -> Improvement:
    """Returns what became of a model's labels.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async with guard():
        data = await redis.get(Keys(model).improvement)
    return Improvement() if data is None else decode_stored(data, Improvement, Keys(model).improvement)


async def write_improvement(redis: Redis, model: str, improvement: Improvement, owner: str) -> bool:
    """Keeps what became of a model's labels; returns whether ``owner`` still holds the lock, without which not.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    keys = Keys(model)
    data = msgspec.json.encode(improvement)
    return bool(await run_script(redis, PUT, [keys.improvement_lock, keys.improvement], owner, data))
