"""What the read-only calls show of the engine."""

from __future__ import annotations

from typing import Any

from rollout.inference.engine import ServedModel
from rollout.routing.assignment import CHALLENGER_START, Assignment, assign
from rollout.routing.split import Split

REVIEW_FILTERS = frozenset({"state", "reason", "arm", "version", "client_id"})


def model_view(model: ServedModel) -> dict[str, Any]:
    """Shows a model: what it takes and gives, which versions are loaded, and its split."""
    return {
        "model": model.name,
        "inputs": model.champion.manifest.inputs,
        "task": model.champion.manifest.task,
        "versions": [
            {
                "version": loaded.version,
                "variant": loaded.variant,
                "variants": sorted(loaded.manifest.variants),
                "measured_ms": {name: round(s * 1000, 4) for name, s in loaded.choice.seconds.items()},
                "not_served": loaded.choice.refused
                | {name: left.why for name, left in loaded.manifest.left_out.items()},
                "task": loaded.manifest.task,
                "metrics": loaded.manifest.metrics,
                "gate": loaded.manifest.gate,
                "created_at": loaded.manifest.created_at,
            }
            for loaded in model.versions.values()
        ],
        "split": model.split,
    }


def assignment_view(split: Split, client_id: str) -> dict[str, Any]:
    """Shows the arm that a client gets, and why."""
    assignment = assign(split, client_id)
    return {
        "client_id": client_id,
        "arm": assignment.arm,
        "version": assignment.version,
        "bucket": assignment.bucket,
        "revision": split.revision,
        "why": _why(split, assignment),
    }


def _why(split: Split, assignment: Assignment) -> str:
    if assignment.bucket is None:
        return "there is no challenger on trial"
    end = round(CHALLENGER_START + split.share, 9)
    ranges = {
        "control": f"lies in [0, {split.share:g}), the control of experiment {split.experiment}",
        "challenger": f"lies in [{CHALLENGER_START:g}, {end:g}), the challenger of experiment {split.experiment}",
        "champion": f"lies in neither [0, {split.share:g}) nor [{CHALLENGER_START:g}, {end:g})",
    }
    return f"bucket {assignment.bucket:.4f} {ranges[assignment.arm]}"
