"""What keeps runs, a class for each library: what it is told, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from rollout.bundle.manifest import Manifest
from rollout.training.runs import Checks

Outcome = Literal["FINISHED", "FAILED", "KILLED"]


class Told(NamedTuple):
    """What is known of a run when it starts.

    Attributes:
        key: What it is found by: the same after a kill, and of no other run.
        model: The model.
        name: What people call the run.
        settings: Hyperparameters, settings of the fit and seeds, by dotted names.
        facts: Environment, code and data, likewise.
        parent: The key of the run that it belongs to, if there is one.
    """

    key: str
    model: str
    name: str
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    parent: str = ""


class Tracker:
    """Keeps runs. Whatever it raises is said in a line, and ends no training.

    Attributes:
        name: What people call it; its entry in the lineage.
        remedy: What to do about one that does not take a run.
    """

    name: ClassVar[str]
    remedy: str = ""

    def start(self, told: Told) -> dict[str, str]:
        """Opens a run, or the one that was interrupted; returns what the lineage says of it."""
        raise NotImplementedError

    def reopen(self, entry: Mapping[str, str]) -> bool:
        """Opens the run of a bundle by what its lineage says; returns whether its end was not told."""
        return False

    def add(self, entry: Mapping[str, str], figures: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Takes what is found out later about the run of a bundle, where one that is over takes more."""

    def check(self, checks: Checks) -> None:
        """Takes all checks until now, of which it may have some."""

    def tell(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Takes figures and files, which may take the place of others of the same name."""

    def pack(self, manifest: Manifest) -> None:
        """Takes what the run led to."""

    def end(self, outcome: Outcome, why: str = "") -> None:
        """Takes how the run ended."""
