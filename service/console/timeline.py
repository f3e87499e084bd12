"""A model over a day or a week, as small charts."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rollout.routing.timeline import Moment, Span
from rollout.words import duration
from service.console import phrases

WIDTH, HEIGHT = 288.0, 60.0
SPANS: dict[Span, str] = {"day": "Last 24 hours", "week": "Last 7 days"}


class Line(NamedTuple):
    """One figure over time.

    Attributes:
        name: What it is.
        areas: Corners of what lies under the line, one for each stretch of time without gaps, as SVG has them.
        lines: Points of the line, likewise.
        most: The largest value, in words; empty without any.
        latest: The latest value in words.
        text: What is to be seen.
    """

    name: str
    areas: Sequence[str]
    lines: Sequence[str]
    most: str
    latest: str
    text: str


class Course(NamedTuple):
    """All figures of a model.

    Attributes:
        lines: The figures.
        begins: When the charts begin, in words.
        middle: The same of their middle.
        rows: Rows that were answered over all.
        errors: Requests that failed over all.
    """

    lines: Sequence[Line]
    begins: str
    middle: str
    rows: int
    errors: int


def course(moments: Sequence[Moment], span: Span) -> Course:
    """Draws the windows of a day or a week."""
    form = "%H:%M" if span == "day" else "%a %d"
    lines = [
        _line("Predictions a second", [one.rate for one in moments], phrases.rate),
        _line("Failed requests", [one.error_share for one in moments], phrases.fraction),
        _line("95 of 100 answered within", [one.late_s for one in moments], duration),
        _line("To review", [one.review_share for one in moments], phrases.fraction),
    ]
    begins, middle = (_time(moments[at].at, form) for at in (0, len(moments) // 2))
    rows, errors = sum(one.rows for one in moments), sum(one.errors for one in moments)
    return Course(lines, begins, middle, rows, errors)


def _time(at: int, form: str) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime(form)


def _line(name: str, values: Sequence[float | None], say: Callable[[float], str]) -> Line:
    known = [value for value in values if value is not None]
    if not any(known):
        latest = say(known[-1]) if known else "–"
        return Line(name, (), (), "", latest, f"{name}: {'nothing but 0' if known else 'nothing yet'}")
    most = max(known)
    step = WIDTH / (len(values) - 1)
    stretches: list[list[tuple[float, float]]] = [[]]
    for number, value in enumerate(values):
        if value is None:
            stretches.append([])
        else:
            stretches[-1].append((number * step, HEIGHT - value / most * (HEIGHT - 2)))
    # A window that stands alone is as wide as a window.
    whole = [part if len(part) > 1 else [part[0], (part[0][0] + step, part[0][1])] for part in stretches if part]
    return Line(
        name,
        [_points([(part[0][0], HEIGHT), *part, (part[-1][0], HEIGHT)]) for part in whole],
        [_points(part) for part in whole],
        say(most),
        say(known[-1]),
        f"{name}: {say(known[-1])} at last, {say(most)} at most",
    )


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
