"""Which predictions wait for their outcomes: those in the trial whose caller gave them a key."""

from __future__ import annotations

from collections.abc import Iterator

from rollout.inference.rows import Answers, Rows
from rollout.review.predictions import PendingOutcome, Predicted
from rollout.review.state import iso


def pending_outcomes(rows: Rows, answers: Answers) -> Iterator[PendingOutcome]:
    """Yields what is kept of the rows of a request."""
    if not any(rows.keys):
        return
    head = answers.task
    at = iso(round(answers.at * 1000))
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
            answer=head.brief(head.answer(answers.decisions.numbers[index].tolist())._asdict()),
            fallback=answers.fallbacks.get(index),
            pinned=assignment.rule is not None,
        )
        yield PendingOutcome(rows.client_ids[index], key, predicted)
