"""The review policy of a model: what enters the queue, how often it is looked at, and how long it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from rollout.errors import InvalidRequestError
from rollout.keys import Keys
from rollout.review.item import OF_TRAFFIC, Reason
from rollout.store import Redis, decode_stored, guard, run_script
from rollout.whole_file import write_whole

FOLDER = "policies"
DAY_S = 24 * 3600
MOST_DAYS = 3650
FOLLOWED_WITHIN_S = 2.0

# KEYS: policy. ARGV: JSON.
PUT = "redis.call('SET', KEYS[1], ARGV[1])"


class ReviewPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the predictions of a model are reviewed.

    Attributes:
        audit: Share of the predictions that nothing else sends to review, from 0 to 1.
        required_reviews: Reviewers who must agree before an item is resolved.
        retention_days: Days that the inputs of an item are kept, and outcomes.
        outcome_days: Days that a keyed prediction of a client in the trial waits for its outcome.
        redact: Input fields whose values are never written down.
        limits: Most open items by reason, beside ROLLOUT_MAX_REVIEWS for all together.
        rates: Items by reason that may enter in a minute; of more, a random part enters.

    Raises:
        InvalidRequestError: If a figure makes no sense.

    Example:
        >>> ReviewPolicy(audit=0.01, required_reviews=2, redact=["name"], rates={"low_confidence": 600}).audit
        0.01
    """

    audit: float = 0.005
    required_reviews: int = 1
    retention_days: int = 30
    outcome_days: int = 7
    redact: list[str] = []
    limits: Mapping[Reason, int] = {}
    rates: Mapping[Reason, int] = msgspec.field(default_factory=lambda: dict.fromkeys(OF_TRAFFIC, 6000))

    def __post_init__(self) -> None:
        if not 0 <= self.audit <= 1:
            raise InvalidRequestError(f"audit must be a share from 0 to 1, not {self.audit}")
        if not 1 <= self.required_reviews <= 5:
            raise InvalidRequestError(f"required_reviews must be 1 to 5, not {self.required_reviews}")
        for name in ("retention_days", "outcome_days"):
            if not 1 <= getattr(self, name) <= MOST_DAYS:
                raise InvalidRequestError(f"{name} must be 1 to {MOST_DAYS} days, not {getattr(self, name)}")
        for name in ("limits", "rates"):
            if any(most < 0 for most in getattr(self, name).values()):
                raise InvalidRequestError(f"{name} must not be negative")

    @property
    def retention_s(self) -> int:
        """Seconds that inputs are kept."""
        return self.retention_days * DAY_S


DEFAULT = ReviewPolicy()


async def read_policy(redis: Redis, model: str) -> ReviewPolicy:
    """Returns a model's policy; the default where nobody has set one.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    async with guard():
        data = await redis.get(Keys(model).review_policy)
    return DEFAULT if data is None else decode_stored(data, ReviewPolicy, Keys(model).review_policy)


async def write_policy(redis: Redis, model: str, policy: ReviewPolicy) -> None:
    """Replaces a model's policy; replicas follow within two seconds.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    await run_script(redis, PUT, [Keys(model).review_policy], msgspec.json.encode(policy))


def cache_policy(home: Path, model: str, policy: ReviewPolicy) -> None:
    """Writes a policy down: with Redis gone it holds, over a restart too."""
    write_whole(home / FOLDER / f"{model}.json", msgspec.json.encode(policy))


def cached_policy(home: Path, model: str) -> ReviewPolicy:
    """Returns the policy of a model that was last seen; the default where none was."""
    try:
        return msgspec.json.decode((home / FOLDER / f"{model}.json").read_bytes(), type=ReviewPolicy)
    except FileNotFoundError:
        return DEFAULT
