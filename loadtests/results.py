"""What a run of the comparison found: the raw figures, as they are kept."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import msgspec

from loadtests.closed_loop import Sample
from loadtests.contenders import Contender
from loadtests.in_process import Alone
from loadtests.open_loop import Arrivals
from loadtests.workers import Worker

CONNECTIONS = (1, 32, 128)
BINARY_CONNECTIONS = 8
SMALL, LARGE = MODELS = ("digits", "digits-cnn")


class Closed(msgspec.Struct):
    """One closed-loop run."""

    model: str
    contender: str
    connections: int
    sample: Sample


class Open(msgspec.Struct):
    """One open-loop run."""

    model: str
    contender: str
    arrivals: Arrivals


class Ceiling(msgspec.Struct):
    """One run of onnxruntime by itself."""

    model: str
    variant: str
    alone: Alone


class Results(msgspec.Struct):
    """All figures of a run.

    Attributes:
        machine: What it ran on, and with which versions.
        rounds: Rounds, of which the report gives medians.
        closed: Closed-loop runs, in the order in which they ran.
        open: Open-loop runs.
        idle: Open-loop runs at a rate that leaves the machine idle, with and without a shadow.
        ceilings: onnxruntime by itself.
        workers: The workers of a Rollout that served the small model with both versions of its trial.
        counted: Predictions and review items that the servers of the last comparison of costs counted.
        absent: Why a contender is not in the tables.
    """

    machine: str
    rounds: int = 0
    closed: list[Closed] = []
    open: list[Open] = []
    idle: list[Open] = []
    ceilings: list[Ceiling] = []
    workers: list[Worker] = []
    counted: dict[str, dict[str, int]] = {}
    absent: dict[str, str] = {}

    def samples(self, model: str, contender: Contender, connections: int, rows: int = 1) -> list[Sample]:
        """Returns the runs of one contender, one a round."""
        return [
            run.sample
            for run in self.closed
            if (run.model, run.contender, run.connections, run.sample.rows)
            == (model, contender.name, connections, rows)
        ]

    def median(
        self,
        of: Callable[[Sample], float],
        model: str,
        contender: Contender,
        connections: int,
        rows: int = 1,
    ) -> float | None:
        """Returns the median of a figure over the rounds; ``None`` if it was not measured."""
        found = [of(sample) for sample in self.samples(model, contender, connections, rows)]
        return statistics.median(found) if found else None

    def rate(self, model: str, contender: Contender, connections: int, rows: int = 1) -> float | None:
        """Returns the median of the rows answered a second; ``None`` if they were not measured."""
        return self.median(lambda sample: sample.rate, model, contender, connections, rows)

    def idle_p99(self, contender: Contender) -> float | None:
        """Returns the median over the rounds of the p99 on an idle machine, in milliseconds."""
        found = [run.arrivals.p99_ms for run in self.idle if run.contender == contender.name]
        return statistics.median(found) if found else None

    def ceiling(self, model: str, of: Callable[[Alone], float], variant: str = "onnx") -> float | None:
        """Returns the median of a figure of onnxruntime by itself; ``None`` if it was not measured."""
        found = [of(run.alone) for run in self.ceilings if (run.model, run.variant) == (model, variant)]
        return statistics.median(found) if found else None
