"""The trial on a model's page, or its last one: the verdict in words, how intervals narrowed, the ramp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Literal, NamedTuple

from rollout.judge.findings import Finding, State
from rollout.judge.policy import ACCURACY, COUNTED
from rollout.judge.verdict import judge
from rollout.routing.assignment import Arm
from rollout.routing.changes import trial_began
from rollout.routing.client_counts import TRIAL
from rollout.routing.looks import Look, read_counted, read_looks
from rollout.routing.policy_words import describe_policy
from rollout.routing.split import Split
from rollout.routing.splits import read_history
from rollout.routing.trial_evidence import MOST_CHANGES, read_course, read_trial
from rollout.routing.verdict import VerdictView, view
from rollout.store import Redis
from service.console import phrases

WIDTH, HEIGHT = 300.0, 60.0
# An interval that is wider than so many times the last one reaches beyond the diagram.
WIDEST = 6.0
STATES: dict[State, str] = {
    "cleared": "cleared",
    "broken": "broken",
    "open": "not sure yet",
    "missing": "nothing known",
}
SHARES = (ACCURACY, *COUNTED)
NAMES = {"failures": "failed requests", "fallbacks": "left to the champion", "late": "late answers"}


class Narrowing(NamedTuple):
    """How an interval narrowed over time, as a diagram.

    Attributes:
        band: Corners of the area between both ends, as SVG has them.
        line: Points of the estimate.
        limit: Height of the limit.
        zero: Height of no difference.
        text: The same in words.
    """

    band: str
    line: str
    limit: float
    zero: float
    text: str


class Question(NamedTuple):
    """One question of the policy, as a row of the table.

    Attributes:
        name: What is asked.
        state: What is known.
        words: The same in words.
        estimate: The challenger's less control's.
        interval: What it surely lies between.
        limit: What it may not pass.
        chart: How that came about; ``None`` until there are two looks.
    """

    name: str
    state: State
    words: str
    estimate: str
    interval: str
    limit: str
    chart: Narrowing | None


class Step(NamedTuple):
    """A stage of the ramp.

    Attributes:
        share: Its share of the clients.
        state: Whether the trial has been there, is there, or comes there.
        at: When it came there, ISO 8601; empty where it did not.
    """

    share: float
    state: Literal["done", "now", "ahead"]
    at: str


@dataclass(frozen=True, kw_only=True)
class TrialView:
    """A trial as it is shown.

    Attributes:
        version: The challenger.
        verdict: What the evidence says; of a trial that is over, what it said last.
        policy: What decides, in words.
        questions: What is known about each question.
        steps: The ramp.
        looks: How often it was looked at.
        turns: Where in a diagram the share changed.
        requests: Requests that each arm's version attempted over the trial, as points of a line; with two looks.
        ended: The change that ended it, if it is over.
    """

    version: str
    verdict: VerdictView
    policy: str
    questions: Sequence[Question]
    steps: Sequence[Step]
    looks: int
    turns: Sequence[float]
    requests: Mapping[Arm, str]
    ended: phrases.Entry | None = None


async def read_trial_view(redis: Redis, model: str, split: Split) -> TrialView | None:
    """Reads what there is to know about a trial, or about the last one; ``None`` where nothing is.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    if split.challenger is None:
        return await _read_last(redis, model)
    course = await read_course(redis, model, split)
    first = course[0].revision
    before = await read_counted(redis, model, first)
    evidence = await read_trial(redis, model, course)
    verdict = judge(evidence, split.policy, before)
    looks = await read_looks(redis, model, first)
    return _view(split, view(model, split, verdict, evidence), looks)


async def _read_last(redis: Redis, model: str) -> TrialView | None:
    """Reads what was known of the last trial when it ended; ``None`` where nobody ever looked at one."""
    history = await read_history(redis, model, MOST_CHANGES)
    changes = (pair for pair in reversed(list(pairwise(history))) if pair[0].challenger is not None)
    last, after = next(changes, (None, None))
    if last is None or after is None:
        return None
    looks = [
        look
        for look in await read_looks(redis, model, trial_began(history, last))
        if look.revision < after.revision
    ]
    if not looks:
        return None
    verdict = VerdictView(
        model=model,
        revision=last.revision,
        verdict=looks[-1].verdict,
        reason=looks[-1].reason,
        detail=looks[-1].detail,
        findings=looks[-1].findings,
        evidence=looks[-1].evidence,
    )
    return _view(last, verdict, looks, phrases.Entry(after, phrases.changed(last, after)))


def _view(
    split: Split, verdict: VerdictView, looks: Sequence[Look], ended: phrases.Entry | None = None
) -> TrialView:
    across = _across(looks)
    return TrialView(
        version=split.challenger or "",
        verdict=verdict,
        policy=describe_policy(split.policy),
        questions=_questions(verdict.findings, looks),
        steps=_steps(split, looks, is_over=ended is not None),
        looks=len(looks),
        turns=[
            x
            for x, (one, next_one) in zip(across[1:], pairwise(looks), strict=True)
            if one.share != next_one.share
        ],
        requests=_requests(looks),
        ended=ended,
    )


def _across(looks: Sequence[Look]) -> list[float]:
    """Returns how far to the right each look lies in a diagram."""
    times = [datetime.fromisoformat(look.at).timestamp() for look in looks]
    return [round(WIDTH * (at - times[0]) / max(times[-1] - times[0], 1e-9), 1) for at in times]


def _requests(looks: Sequence[Look]) -> Mapping[Arm, str]:
    """Draws how many requests each arm had."""
    known = [(x, look.evidence) for x, look in zip(_across(looks), looks, strict=True) if look.evidence]
    most = max((counts.requests for _, evidence in known for counts in evidence.values()), default=0)
    if len(known) < 2 or not most:
        return {}
    return {
        arm: " ".join(f"{x},{round(HEIGHT * (1 - evidence[arm].requests / most), 1)}" for x, evidence in known)
        for arm in TRIAL
    }


def _questions(findings: Sequence[Finding], looks: Sequence[Look]) -> list[Question]:
    made = []
    for found in findings:
        name = found.question
        ends = "–" if found.low is None or found.high is None else f"{_figure(name, found.low)} to "
        made.append(
            Question(
                name=NAMES.get(name, name),
                state=found.state,
                words=STATES[found.state],
                estimate="–" if found.estimate is None else _figure(name, found.estimate),
                interval=ends if found.high is None else f"{ends}{_figure(name, found.high)}",
                limit=_figure(name, found.limit),
                chart=narrowing(name, looks),
            )
        )
    return made


def _figure(question: str, value: float) -> str:
    return f"{100 * value:+.2f} pt" if question in SHARES else f"{value:+.4g}"


def narrowing(question: str, looks: Sequence[Look]) -> Narrowing | None:
    """Draws how an interval narrowed.

    Args:
        question: What was asked.
        looks: At the trial, oldest first.
    """
    points: list[tuple[float, Finding]] = [
        (x, found)
        for x, look in zip(_across(looks), looks, strict=True)
        for found in look.findings
        if found.question == question and None not in (found.estimate, found.low, found.high)
    ]
    if len(points) < 2:
        return None
    last = points[-1][1]
    assert last.low is not None and last.high is not None  # noqa: S101, PT018  those are left out above
    reach = max(abs(last.limit), abs(last.low), abs(last.high), WIDEST * (last.high - last.low) / 2, 1e-9)

    def y(value: float | None) -> float:
        inside = max(-reach, min(reach, value or 0.0))
        return round(HEIGHT * (1 - inside / reach) / 2, 1)

    upper = [f"{x},{y(found.high)}" for x, found in points]
    lower = [f"{x},{y(found.low)}" for x, found in reversed(points)]
    first = points[0][1]
    assert first.low is not None and first.high is not None  # noqa: S101, PT018
    return Narrowing(
        band=" ".join(upper + lower),
        line=" ".join(f"{x},{y(found.estimate)}" for x, found in points),
        limit=y(last.limit),
        zero=y(0.0),
        text=f"from {_figure(question, first.low)} to {_figure(question, first.high)} at first, "
        f"from {_figure(question, last.low)} to {_figure(question, last.high)} now",
    )


def _steps(split: Split, looks: Sequence[Look], *, is_over: bool) -> list[Step]:
    """Returns the stages of the ramp, and the shares beside them at which the trial has been."""
    came: dict[float, str] = {}
    for look in looks:
        came.setdefault(look.share, look.at)
    stages = () if split.policy is None else split.policy.stages
    steps = []
    for share in sorted({*stages, *came, split.share}):
        state: Literal["done", "now", "ahead"] = "ahead"
        if share == split.share and not is_over:
            state = "now"
        elif share in came:
            state = "done"
        steps.append(Step(share, state, came.get(share, "")))
    return steps
