"""A run of the comparison: who serves what, in which order, and under which load."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from loadtests import closed_loop, in_process, open_loop
from loadtests.bodies import BATCH, cycle, write_requests
from loadtests.contenders import (
    EVERYTHING_OFF,
    EVERYTHING_ON,
    FLOOR,
    MOSEC_ONE,
    ONE,
    SHADOW_OFF,
    SHADOW_ON,
    TWO,
    Contender,
)
from loadtests.ours import Models
from loadtests.results import BINARY_CONNECTIONS, CONNECTIONS, SMALL, Ceiling, Closed, Open, Results
from loadtests.servers import Server, StartError
from loadtests.workers import count_metric, find_workers, look_at

WARM_UP_S = 1
# The rate of the open loop waits for no one slower than this; they show how they fail.
SERIOUS = 250
# Above it, the client's own work would show.
HIGHEST_RATE = 500
# So few arrivals a second leave the machine idle.
IDLE_RATE = 100


class Comparison:
    """Measures contenders, one running at a time.

    Args:
        contenders: Servers to compare.
        models: Models to serve.
        seconds: Length of one run of the load generator.
        folder: Where bundles, requests and logs go.
        results: Takes the figures.
        store: A store that has the models' bundles already.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        models: Sequence[str],
        seconds: int,
        folder: Path,
        results: Results,
        store: Path | None = None,
    ) -> None:
        self._contenders = contenders
        self._models = models
        self._seconds = seconds
        self._folder = folder
        self._results = results
        self._bundles = Models(folder / "home", store)

    def prepare(self) -> None:
        """Trains and packs the models, and installs the contenders."""
        for model in self._models:
            _say(f"building {model}")
            self._bundles.build(model)
        for contender in self._contenders:
            try:
                contender.install()
            except StartError as error:
                self._leave_out(contender, error)

    def run_round(self) -> None:
        """Measures every contender with every model in closed loop; each round turns the order around."""
        turn = 1 if self._results.rounds % 2 == 0 else -1
        self._results.rounds += 1
        for model in self._models:
            for variant in ("onnx", "onnx-int8"):
                if file := self._bundles.onnx(model, variant):
                    self._results.ceilings.append(Ceiling(model, variant, in_process.measure(file)))
            for contender in self._contenders[::turn]:
                self._serve(contender, model, partial(self._closed_loops, CONNECTIONS))
        if SMALL in self._models and any(contender.is_ours for contender in self._contenders):
            for contender in (EVERYTHING_ON, EVERYTHING_OFF)[::turn]:
                self._serve(contender, SMALL, partial(self._closed_loops, CONNECTIONS[1:]))
            for contender in (SHADOW_ON, SHADOW_OFF)[::turn]:
                self._serve(contender, SMALL, self._idle)

    def run_open_loops(self) -> None:
        """Sends bursty arrivals, at half the rate that the slowest contender can answer and the same for all."""
        for model in self._models:
            rates = [self._results.rate(model, one, CONNECTIONS[-1]) or 0 for one in self._contenders]
            slowest = min((rate for rate in rates if rate > SERIOUS), default=0)
            if slowest:
                due = open_loop.schedule(min(slowest / 2, HIGHEST_RATE), 5 * self._seconds)
                for contender in self._contenders:
                    if contender not in (
                        ONE,
                        MOSEC_ONE,
                        FLOOR,
                    ):  # at half the load, a second worker changes little
                        self._serve(contender, model, partial(self._open_loop, due))

    def _serve(self, contender: Contender, model: str, measure: Callable[[Server, Contender, str], None]) -> None:
        if contender.name in self._results.absent:
            return
        try:
            with contender.running(self._bundles, model, self._folder) as server:
                measure(server, contender, model)
        except StartError as error:
            self._leave_out(contender, error)

    def _closed_loops(self, connections: Sequence[int], server: Server, contender: Contender, model: str) -> None:
        for requests, rows, counts in (
            (contender.requests(model), 1, connections),
            (contender.binary_requests(model), BATCH, [BINARY_CONNECTIONS]),
        ):
            if not requests:
                continue
            file = self._folder / "requests.bin"
            write_requests(requests, file)
            closed_loop.run(server, file, counts[-1], WARM_UP_S, rows)
            for count in counts:
                sample = closed_loop.run(server, file, count, self._seconds, rows)
                self._results.closed.append(Closed(model, contender.name, count, sample))
                _say(
                    f"round {self._results.rounds}, {model}, {count} connections, rows {rows}, "
                    f"{contender.name}: {sample.rate:,.0f} rows/s, {sample.failures} failures"
                )
        if contender is TWO and model == SMALL:
            self._results.workers = [look_at(worker) for worker in find_workers(server.process)]
        if contender in (EVERYTHING_ON, EVERYTHING_OFF):
            time.sleep(1)  # metrics are written a few times a second
            self._results.counted[contender.name] = {
                name: count_metric(server.url, f"rollout_{name}_total")
                for name in ("predictions", "review_items")
            }

    def _open_loop(self, due: open_loop.Times, server: Server, contender: Contender, model: str) -> None:
        requests = cycle(contender.requests(model))
        asyncio.run(open_loop.run(server.url, requests, due[: len(due) // 10]))  # warm-up
        arrivals = asyncio.run(open_loop.run(server.url, requests, due))
        self._results.open.append(Open(model, contender.name, arrivals))
        _say(f"{model}, {arrivals.rate:.0f} arrivals/s, {contender.name}: p99 {arrivals.p99_ms:.1f} ms")

    def _idle(self, server: Server, contender: Contender, model: str) -> None:
        due = open_loop.schedule(IDLE_RATE, 5 * self._seconds, open_loop.POISSON)
        requests = cycle(contender.requests(model))
        asyncio.run(open_loop.run(server.url, requests, due[: len(due) // 10]))  # warm-up
        arrivals = asyncio.run(open_loop.run(server.url, requests, due))
        self._results.idle.append(Open(model, contender.name, arrivals))
        _say(f"round {self._results.rounds}, {contender.name}: p99 {arrivals.p99_ms:.2f} ms on an idle machine")

    def _leave_out(self, contender: Contender, error: StartError) -> None:
        self._results.absent[contender.name] = str(error)
        _say(f"{contender.name}: {error}")


def _say(line: str) -> None:
    print(line, file=sys.stderr)
