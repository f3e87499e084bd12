"""The trial on a model's page: the verdict in words, how each interval narrowed, and how far the ramp is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from rollout.judge.findings import Finding, State
from rollout.judge.verdict import Verdict, judge
from rollout.routing.looks import Look, read_counted, read_looks
from rollout.routing.policy_words import describe_policy
from rollout.routing.split import Split
from rollout.routing.trial_evidence import read_course, read_trial
from rollout.routing.verdict import VerdictView, view
from rollout.store import Redis

WIDTH, HEIGHT = 300.0, 60.0
# An interval that is wider than so many times the last one reaches beyond the diagram.
WIDEST = 6.0
STATES: dict[State, str] = {
    "cleared": "cleared",
    "broken": "broken",
    "open": "not sure yet",
    "missing": "nothing known",
}
SHARES = ("accuracy", "failures", "fallbacks", "late")
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
        verdict: What the evidence says.
        policy: What decides, in words.
        questions: What is known about each question.
        steps: The ramp.
        looks: How often it was looked at.
    """

    verdict: VerdictView
    policy: str
    questions: Sequence[Question]
    steps: Sequence[Step]
    looks: int


async def read_trial_view(redis: Redis, model: str, split: Split) -> TrialView | None:
    """Reads what there is to know about a trial; ``None`` without one.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    if split.challenger is None:
        return None
    course = await read_course(redis, model, split)
    first = course[0].revision
    before = await read_counted(redis, model, first)
    evidence = await read_trial(redis, model, course)
    verdict = judge(evidence, split.policy, before)
    looks = await read_looks(redis, model, first)
    return TrialView(
        verdict=view(model, split, verdict, evidence),
        policy=describe_policy(split.policy),
        questions=_questions(verdict, looks),
        steps=_steps(split, looks),
        looks=len(looks),
    )


def _questions(verdict: Verdict, looks: Sequence[Look]) -> list[Question]:
    made = []
    for found in verdict.findings:
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
        (datetime.fromisoformat(look.at).timestamp(), found)
        for look in looks
        for found in look.findings
        if found.question == question and None not in (found.estimate, found.low, found.high)
    ]
    if len(points) < 2:
        return None
    start, end = points[0][0], points[-1][0]
    last = points[-1][1]
    assert last.low is not None and last.high is not None  # noqa: S101, PT018  those are left out above
    reach = max(abs(last.limit), abs(last.low), abs(last.high), WIDEST * (last.high - last.low) / 2, 1e-9)

    def x(at: float) -> float:
        return round(WIDTH * (at - start) / max(end - start, 1e-9), 1)

    def y(value: float | None) -> float:
        inside = max(-reach, min(reach, value or 0.0))
        return round(HEIGHT * (1 - inside / reach) / 2, 1)

    upper = [f"{x(at)},{y(found.high)}" for at, found in points]
    lower = [f"{x(at)},{y(found.low)}" for at, found in reversed(points)]
    first = points[0][1]
    assert first.low is not None and first.high is not None  # noqa: S101, PT018
    return Narrowing(
        band=" ".join(upper + lower),
        line=" ".join(f"{x(at)},{y(found.estimate)}" for at, found in points),
        limit=y(last.limit),
        zero=y(0.0),
        text=f"from {_figure(question, first.low)} to {_figure(question, first.high)} at first, "
        f"from {_figure(question, last.low)} to {_figure(question, last.high)} now",
    )


def _steps(split: Split, looks: Sequence[Look]) -> list[Step]:
    """Returns the stages of the ramp, and the shares beside them at which the trial has been."""
    came: dict[float, str] = {}
    for look in looks:
        came.setdefault(look.share, look.at)
    stages = () if split.policy is None else split.policy.stages
    steps = []
    for share in sorted({*stages, *came, split.share}):
        state: Literal["done", "now", "ahead"] = "ahead"
        if share == split.share:
            state = "now"
        elif share in came:
            state = "done"
        steps.append(Step(share, state, came.get(share, "")))
    return steps
