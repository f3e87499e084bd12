"""Which predictions wait for their outcomes: those in the trial whose caller gave them a key."""

from __future__ import annotations

from collections.abc import Iterator

from rollout.bundle.task import Classification
from rollout.inference.rows import Answers, Rows
from rollout.review.predictions import PendingOutcome, Predicted
from rollout.review.state import iso


def pending_outcomes(rows: Rows, answers: Answers) -> Iterator[PendingOutcome]:
    """Yields what is kept of the rows of a request."""
    if not any(rows.keys):
        return
    at = iso(round(answers.at * 1000))
    is_class = isinstance(answers.task, Classification)
    labels = answers.task.labels if isinstance(answers.task, Classification) else []
    decisions = answers.decisions
    all_best: list[int] = decisions.best.tolist()
    confidences: list[float] = decisions.confidences.tolist() if is_class else []
    ends: list[list[float]] = [] if is_class else decisions.numbers.tolist()
    for index, assignment in enumerate(answers.assignments):
        key = rows.keys[index]
        if assignment.arm == "champion" or key is None:
            continue
        version = answers.version(index)
        predicted = Predicted(
            at=at,
            arm=assignment.arm,
            version=version,
            variant=answers.variants[version],
            revision=answers.split.revision,
            label=labels[all_best[index]] if is_class else None,
            confidence=confidences[index] if is_class else None,
            value=None if is_class else ends[index][0],
            interval=None if is_class else (ends[index][1], ends[index][2]),
            fallback=answers.fallbacks.get(index),
            pinned=assignment.rule is not None,
        )
        yield PendingOutcome(rows.client_ids[index], key, predicted)
