"""The policy of a trial: what the challenger is to show, and what must not happen meanwhile."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal

import msgspec

from rollout.errors import InvalidSplitError

DAY_S = 86_400
MOST_NUMBERS = 20
MOST_STAGES = 20
NUMBER_NAME = re.compile("[a-z][a-z0-9_]{0,63}")
# What is counted of every trial has these names.
ACCURACY = "accuracy"
REVIEWED = "reviewed"
# What workers count of all requests, and so of all clients.
COUNTED = ("failures", "fallbacks", "late")
TAKEN_NAMES = (ACCURACY, REVIEWED, *COUNTED)
# Of a number that is reported: its squares must have sums.
LARGEST_NUMBER = 1e15

Act = Literal["step", "promote", "rollback"]
Compare = Literal["outcomes", "reviews", "disagreements"]


class Guardrails(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must not happen, whatever the metric says.

    Attributes:
        failures: Share of requests in which the challenger may fail, and by how much it may exceed control's.
        fallbacks: Share of the challenger's rows that the champion may answer since it was late or its breaker
            open; ``None`` asks nothing.
        late_ms: The budget of an answer, in milliseconds; ``None`` asks nothing.
        late: By how much the share of answers over that budget may be larger than control's.
        numbers: By how much each number that is reported may be smaller than control's, in its own unit.

    Example:
        >>> Guardrails(late_ms=200, numbers={"basket_eur": 0.5}).questions
        ('failures', 'fallbacks', 'late', 'basket_eur')
    """

    failures: float = 0.01
    fallbacks: float | None = 0.05
    late_ms: float | None = None
    late: float = 0.01
    numbers: dict[str, float] = {}

    def __post_init__(self) -> None:
        for name in COUNTED:
            share = getattr(self, name)
            if share is not None and not 0 <= share < 1:
                raise InvalidSplitError(f"the guardrail {name} is a share from 0 to below 1, not {share}")
        if self.late_ms is not None and not self.late_ms > 0:
            raise InvalidSplitError(f"late_ms is a budget above 0 milliseconds, not {self.late_ms}")
        if len(self.numbers) > MOST_NUMBERS:
            raise InvalidSplitError(f"at most {MOST_NUMBERS} numbers can be guarded, not {len(self.numbers)}")
        for name, margin in self.numbers.items():
            _require_name(name)
            if not 0 < margin < float("inf"):
                raise InvalidSplitError(f"the number {name} may fall by a margin above 0, not {margin}")

    @property
    def questions(self) -> tuple[str, ...]:
        """What is asked, each by a name."""
        asked = ["failures"]
        asked += ["fallbacks"] * (self.fallbacks is not None) + ["late"] * (self.late_ms is not None)
        return (*asked, *self.numbers)


def _require_name(name: str) -> None:
    if not NUMBER_NAME.fullmatch(name) or name in TAKEN_NAMES:
        raise InvalidSplitError(
            f"{name!r} cannot be the name of a number: that is a small letter and up to 63 more, digits or _, "
            f"and none of {', '.join(TAKEN_NAMES)}"
        )


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What decides a trial.

    How the questions, the metric and each guardrail, share one error:

    - A promotion needs **all** of them cleared. It is a mistake only if one of them is wrongly cleared, which has
      a probability of at most ``alpha``: each may use the whole of it (an intersection-union test, Berger 1982).
    - A rollback follows from **any** of them, so each may use ``alpha / questions`` (Bonferroni).

    Stages need no share: what is compared is one sequence over all of them.

    Attributes:
        metric: Name of the outcome that decides: ``accuracy``, or a number that is reported.
        head: The name of the head that it is about, where the model has several; empty for the one that the
            model itself is judged by.
        compare: Where it comes from: outcomes of both arms' own clients, what people decided in review on rows of
            theirs, or rows on which both disagree in shadow.
        aim: Whether the challenger is to be ``not_worse`` by more than the margin, or ``better`` by at least it.
        margin: In the metric's unit; of an accuracy, 0.01 is one point.
        guardrails: What must not happen meanwhile.
        alpha: The probability with which a promotion, and that with which a rollback, may ever be a mistake.
        least_s: Seconds that a stage lasts at least.
        least_clients: Clients that each arm has at least, before a stage ends; asymptotic sequences need them.
        tuned_for: Rows of an arm at which sequences are narrowest.
        stages: Shares of the ramp, rising, each above 0 and at most 0.5.
        by_itself: What is done without asking.

    Raises:
        InvalidSplitError: If the parts make no sense.

    Example:
        >>> policy = Policy(margin=0.02, by_itself=("step", "rollback"))
        >>> policy.next_stage(0.01), policy.next_stage(0.5), policy.alpha_to_break
        (0.05, None, 0.016666666666666666)
    """

    metric: str = ACCURACY
    head: str = ""
    compare: Compare = "outcomes"
    aim: Literal["not_worse", "better"] = "not_worse"
    margin: float = 0.01
    guardrails: Guardrails = Guardrails()
    alpha: float = 0.05
    least_s: float = DAY_S
    least_clients: int = 100
    tuned_for: int = 5_000
    stages: tuple[float, ...] = (0.01, 0.05, 0.1, 0.25, 0.5)
    by_itself: tuple[Act, ...] = ()

    def __post_init__(self) -> None:
        if self.compare != "outcomes" and self.metric != ACCURACY:
            raise InvalidSplitError(f"only the accuracy can be compared by {self.compare}")
        if self.metric in self.guardrails.questions:
            raise InvalidSplitError(f"{self.metric} cannot be the metric and a guardrail at once")
        if self.metric != ACCURACY:
            _require_name(self.metric)
        if not 0 <= self.margin < float("inf"):
            raise InvalidSplitError(f"a margin is 0 or more, not {self.margin}")
        if not 1e-6 <= self.alpha <= 0.5:
            raise InvalidSplitError(f"alpha must lie between 0.000001 and 0.5, not {self.alpha}")
        if not 0 <= self.least_s < float("inf"):
            raise InvalidSplitError(f"least_s must be 0 seconds or more, not {self.least_s}")
        for name, least in (("least_clients", 2), ("tuned_for", 1)):
            if getattr(self, name) < least:
                raise InvalidSplitError(f"{name} must be at least {least}, not {getattr(self, name)}")
        rising = all(one < other for one, other in pairwise(self.stages))
        if not (0 < len(self.stages) <= MOST_STAGES and rising and self.stages[0] > 0 and self.stages[-1] <= 0.5):
            raise InvalidSplitError(f"stages are 1 to {MOST_STAGES} rising shares above 0 and at most 0.5")

    @property
    def alpha_to_break(self) -> float:
        """The error of each question that can end the trial."""
        return self.alpha / (1 + len(self.guardrails.questions))

    @property
    def numbers(self) -> frozenset[str]:
        """Which of the numbers that callers report it asks about; whatever else they report counts nowhere."""
        return frozenset({self.metric, *self.guardrails.numbers} - {ACCURACY})

    def next_stage(self, share: float) -> float | None:
        """Returns the share that follows a share; ``None`` after the last."""
        return next((stage for stage in self.stages if stage > share), None)


# What is asked where nobody has said anything. Nobody has said what a mistake would cost, so they are rare. That
# a challenger is late proves nothing, since control has more time.
UNASKED = Policy(alpha=0.005, guardrails=Guardrails(fallbacks=None))
