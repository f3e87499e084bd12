"""The split: which version is champion, which is on trial, and for which share of the clients."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from rollout.errors import InvalidSplitError
from rollout.judge.policy import Policy

MOST_RULES = 100
MOST_CLIENTS = 10_000
MOST_PATTERNS = 200  # a request may try all of them, which takes about 20 µs
LONGEST_PATTERN = 128
LONGEST_KEY = 256


class Rule(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, cache_hash=True
):
    """Clients that get an arm before the hash is asked; the first rule that fits decides.

    Attributes:
        arm: ``challenger`` pins them to it, ``champion`` keeps them out of the trial.
        clients: Client IDs, or patterns with ``*`` for any characters and ``?`` for one.
        segments: Values of the caller's ``X-Client-Segment``.

    Raises:
        InvalidSplitError: If it names neither clients nor segments, or both.

    Example:
        >>> Rule(arm="challenger", clients=("tester-*", "acme")).arm
        'challenger'
        >>> Rule(arm="champion", segments=("enterprise",)).clients
        ()
    """

    arm: Literal["champion", "challenger"]
    clients: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.clients) == bool(self.segments):
            raise InvalidSplitError("a rule names either clients or segments")
        for name in self.clients + self.segments:
            if not 1 <= len(name) <= LONGEST_PATTERN:
                raise InvalidSplitError(
                    f"a client or segment in a rule has 1 to {LONGEST_PATTERN} characters, not {len(name)}"
                )


def is_pattern(client: str) -> bool:
    """Whether a client in a rule stands for more than one."""
    return "*" in client or "?" in client


class Split(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One revision of a model's split.

    Attributes:
        revision: Counts the changes, from 1.
        champion: The version that serves by default.
        challenger: The version on trial, if any.
        share: Share of the clients that get the challenger, 0 to 0.5 in steps of 0.0001; as many again are its
            control.
        experiment: The experiment key: the seed of the hash.
        shadow: Share of the requests outside the challenger's arm that it scores unseen, 0 to 1.
        policy: What decides the trial, and what happens by itself; without one nothing does.
        rules: Assignments that come before the hash.
        labels: For a version whose labels have other names than those that callers know: what each means.
        previous: The champion before the last promotion; it stays loaded, so that going back is instant.
        digests: For each version the SHA-256 of its manifest: what exactly was put here.
        removed: Whether the model is not to be served any more.
        by: Who made this change.
        at: When, ISO 8601 in UTC.
        why: What for.
        verdict: What a change that happened by itself rests on: the verdict, with the interval of each question.

    Raises:
        InvalidSplitError: If the parts do not make a split.

    Example:
        >>> Split(champion="v1", challenger="v2", share=0.1, experiment="digits-v1-v2").share
        0.1
    """

    revision: int = 0
    champion: str
    challenger: str | None = None
    share: float = 0.0
    experiment: str = ""
    shadow: float = 0.0
    policy: Policy | None = None
    rules: tuple[Rule, ...] = ()
    labels: dict[str, dict[str, str]] = {}
    previous: str | None = None
    digests: dict[str, str] = {}
    removed: bool = False
    by: str = ""
    at: str = ""
    why: str = ""
    verdict: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 0.5:
            raise InvalidSplitError(
                f"a share must lie between 0 and 0.5, not {self.share}: above one half there is no trial left "
                "to run, so promote the challenger"
            )
        # 0.1 + 0.2 is a little more than 0.3 and would let one bucket more into control than into the challenger.
        msgspec.structs.force_setattr(self, "share", round(self.share, 4))
        if not 0 <= self.shadow <= 1:
            raise InvalidSplitError(f"a shadow rate must lie between 0 and 1, not {self.shadow}")
        if self.challenger is None and (self.share or self.shadow):
            raise InvalidSplitError("a share or a shadow rate needs a challenger")
        if self.challenger is None and self.policy is not None:
            raise InvalidSplitError("a policy needs a challenger whose trial it decides")
        if self.challenger is not None and not self.experiment:
            raise InvalidSplitError("a challenger needs an experiment key")
        if len(self.experiment) > LONGEST_KEY:
            raise InvalidSplitError(f"an experiment key has at most {LONGEST_KEY} characters")
        if self.challenger == self.champion:
            raise InvalidSplitError(f"{self.champion} cannot be its own challenger")
        named = [name for rule in self.rules for name in rule.clients + rule.segments]
        patterns = sum(is_pattern(client) for rule in self.rules for client in rule.clients)
        if len(self.rules) > MOST_RULES or len(named) > MOST_CLIENTS or patterns > MOST_PATTERNS:
            raise InvalidSplitError(
                f"at most {MOST_RULES} rules with {MOST_CLIENTS:,} clients and segments in all, "
                f"{MOST_PATTERNS} of them patterns"
            )

    def without_trial(self) -> Split:
        """Returns this split with the champion alone."""
        return msgspec.structs.replace(self, challenger=None, share=0.0, experiment="", shadow=0.0, policy=None)

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that this split serves, the champion first."""
        return (self.champion,) if self.challenger is None else (self.champion, self.challenger)

    @property
    def kept(self) -> tuple[str, ...]:
        """The versions that stay in memory under this split."""
        more = (self.previous,) if self.previous and self.previous not in self.versions else ()
        return self.versions + more
