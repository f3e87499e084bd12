"""An explanation of one prediction, and what is asked for one: plain values, ready for the wire."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

import msgspec

from rollout.bundle.apart import Method, Part
from rollout.errors import ExplainUnavailableError

MOST_SEED = 2**31 - 1
MEANING = (
    "An attribution says how the number changes when a part of this input is replaced by the baseline: positive "
    "parts hold it up, negative ones hold it down. It depends on the baseline and on how the input is taken "
    "apart, speaks of this one row and variant, and says neither what causes what in the world nor whether the "
    "answer is right."
)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be explained.

    Attributes:
        label: The label whose number is explained; empty for the one that was decided.
        head: The head, of several; empty for the one that versions are compared by.
        seed: Of the orders in which Shapley values leave parts out; from 0 to ``MOST_SEED``.
    """

    label: str = ""
    head: str = ""
    seed: int = 0


class Attribution(Part, frozen=True, kw_only=True, omit_defaults=True):
    """What one part of an input does to the number.

    Attributes:
        field: The input that it is a part of.
        attribution: In the unit of the number.
    """

    field: str
    attribution: float


class Pass(msgspec.Struct, frozen=True, kw_only=True):
    """Some inputs, whose parts were weighed together by one method while the others stayed as they are.

    Attributes:
        method: ``occlusion``: the number minus that without the part alone. ``shapley``: Shapley values of the
            parts as players (Shapley 1953; Strumbelj & Kononenko 2010), with the mean over background rows as the
            value of a set of parts. These add up; the former need not.
        fields: The inputs.
        baselines: What stands in the place of what is left out, for each input.
        orders: In how many orders parts were left out, where not all were tried.
        background_rows: How many rows of the background stood in; 0 where none did.
        base_value: The number where all parts of these inputs are left out.
        sum: Of the attributions.
        remainder: ``value`` minus ``base_value`` minus ``sum``: 0, up to rounding, for Shapley values.
        evaluations: Rows that the variant scored.
    """

    method: Method
    fields: tuple[str, ...]
    baselines: Mapping[str, str]
    orders: int | None = None
    background_rows: int = 0
    base_value: float
    sum: float
    remainder: float
    evaluations: int


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why one prediction came out.

    Attributes:
        model: The model.
        version: The version that answered.
        variant: The variant of it that was asked.
        explained: The number, in words.
        label: The label that it is of; empty where it is of none.
        head: The head that it is of, of several; empty otherwise.
        value: The number.
        attributions: One for each part, in the order of the inputs and of their parts.
        passes: How they came about.
        seed: What makes a second call the same.
        meaning: What this means, and what it does not.
    """

    model: str
    version: str
    variant: str
    explained: str
    label: str
    head: str
    value: float
    attributions: list[Attribution]
    passes: list[Pass]
    seed: int
    meaning: str = MEANING

    @property
    def largest(self) -> float:
        """The largest absolute attribution; 1 where all are 0, to divide by."""
        return max((abs(one.attribution) for one in self.attributions), default=0.0) or 1.0

    def of_field(self, name: str) -> list[Attribution]:
        """Returns the attributions of the parts of one input."""
        return [one for one in self.attributions if one.field == name]


def require_extra() -> None:
    """Makes sure that what computes explanations is installed.

    Raises:
        ExplainUnavailableError: If it is not.
    """
    if find_spec("captum") is None:
        raise ExplainUnavailableError(
            "explanations need Captum, which is not installed here: pip install 'rollout[explain]'"
        )
