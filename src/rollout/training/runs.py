"""A training as it runs: where it keeps what it needs to go on, whom it tells, and what comes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rollout.bundle.evidence import Finding

CURVES = "curves"  # the folder of TensorBoard's files in that of a run
# Of each check, the step that it came after, and its losses, error and learning rate.
Checks = list[dict[str, float]]


class Progress(NamedTuple):
    """How far a training is.

    Attributes:
        step: Steps done.
        steps: Steps that it has at most.
        loss: Loss of the last batch that was looked at.
        validation: Loss of the validation rows at the last check; NaN before the first one.
    """

    step: int
    steps: int
    loss: float
    validation: float


class Run(NamedTuple):
    """Where and how a training runs.

    Attributes:
        folder: Where checkpoints and curves are kept, for a training of the same data, code and settings to go on
            with; ``None`` keeps nothing.
        on_step: Called with a line for each step.
        on_progress: Called now and then.
        on_check: Called after each validation with all checks until then; what it raises ends the training.
        checks: Whether to look for faults.
        baselines: What the module must beat on the validation rows.
    """

    folder: Path | None = None
    on_step: Callable[[str], None] = lambda _: None
    on_progress: Callable[[Progress], None] = lambda _: None
    on_check: Callable[[Checks], None] = lambda _: None
    checks: bool = False
    baselines: Mapping[str, Any] = {}


class Fitted(NamedTuple):
    """What came of a training.

    Attributes:
        module: The module with the weights of the best checkpoint, in eval mode; or what a function returned.
        findings: What looks as if something went wrong.
        figures: Steps, the check that was best, its losses, and the learning rate; of a function, nothing.
        checks: What was measured at each check; of a function, nothing.
    """

    module: Any
    findings: list[Finding]
    figures: dict[str, Any]
    checks: Checks


def run_folder(home: Path, *names: str, settings: Any) -> Path:
    """Returns the folder of a training: another one for other settings, data or code.

    Args:
        home: ``ROLLOUT_HOME``.
        names: The model, the version and the like.
        settings: What decides on the result, as JSON can have it.
    """
    return home.joinpath("training", *names, digest(settings))


def digest(settings: Any) -> str:
    """Returns twelve hexadecimal digits of the SHA-256 of settings, which JSON can have."""
    return hashlib.sha256(msgspec.json.encode(settings, order="deterministic")).hexdigest()[:12]
