"""What the read-only calls show of the engine."""

from __future__ import annotations

from typing import Any

from rollout.inference.rows import require_identifier
from rollout.inference.served_model import ServedModel
from rollout.routing.assignment import assign, explain
from rollout.routing.split import Split


def model_view(model: ServedModel) -> dict[str, Any]:
    """Shows a model: what it takes and gives, which versions are loaded, and who gets which.

    Rules name clients, and reasons are for those who may change the split: both stay with ``GET …/split``.
    """
    split = model.split
    return {
        "model": model.name,
        "inputs": model.champion.manifest.inputs,
        "task": model.task,
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
        "split": {name: getattr(split, name) for name in ("revision", "champion", "challenger", "share")},
    }


def assignment_view(split: Split, client_id: str, segment: str) -> dict[str, Any]:
    """Shows the arm that a client gets, and why.

    Raises:
        InvalidRequestError: If the ID may not be one: hashing takes its length, and what was hashed is kept.
    """
    if client_id:  # who sends none is outside the trial
        require_identifier(client_id, "/client_id")
    assignment = assign(split, client_id, segment)
    return {
        "client_id": client_id,
        "arm": assignment.arm,
        "version": assignment.version,
        "bucket": assignment.bucket,
        "revision": split.revision,
        "why": explain(split, assignment),
    }
