"""The split: which version is champion, which is on trial, and for which share of the clients."""

from __future__ import annotations

from typing import Any

import msgspec

from rollout.errors import ConfigError


class Split(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One revision of a model's split.

    Attributes:
        revision: Counts the changes, from 1.
        champion: The version that serves by default.
        challenger: The version on trial, if any.
        share: Share of the clients that get the challenger, 0 to 0.5; as many again are its control.
        experiment: The experiment key: the seed of the hash.
        shadow: Share of the requests that the challenger scores unseen.
        rules: Assignments that come before the hash.
        by: Who made this change.
        at: When, ISO 8601 in UTC.
        why: What for.

    Raises:
        ConfigError: If the share lies outside 0 to 0.5, or there is one without a challenger.

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
    rules: tuple[dict[str, Any], ...] = ()
    by: str = ""
    at: str = ""
    why: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 0.5:
            raise ConfigError(
                f"a share must lie between 0 and 0.5, not {self.share}: above one half there is no trial left "
                "to run, so promote the challenger"
            )
        if self.challenger is None and self.share:
            raise ConfigError("a share needs a challenger")
        if self.challenger is not None and not self.experiment:
            raise ConfigError("a challenger needs an experiment key")
        if self.challenger == self.champion:
            raise ConfigError(f"{self.champion} cannot be its own challenger")

    def without_trial(self) -> Split:
        """Returns this split with the champion alone."""
        return msgspec.structs.replace(self, challenger=None, share=0.0, shadow=0.0)

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that this split serves, the champion first."""
        return (self.champion,) if self.challenger is None else (self.champion, self.challenger)
