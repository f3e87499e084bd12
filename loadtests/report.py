"""The report: goals first, then the ratios, then every figure."""

from __future__ import annotations

from collections.abc import Iterable

from loadtests.bodies import BATCH
from loadtests.contenders import CONTENDERS, EVERYTHING_OFF, EVERYTHING_ON, TWO, Contender
from loadtests.goals import goals
from loadtests.results import BINARY_CONNECTIONS, CONNECTIONS, MODELS, Results

ALL = (*CONTENDERS, EVERYTHING_ON, EVERYTHING_OFF)


def render(results: Results) -> str:
    """Returns the report in Markdown."""
    parts = [
        f"{results.machine}; the load generator runs on the same cores. Medians of {results.rounds} rounds.",
        "## Goals",
        _table(
            ["goal", "wanted", "found", ""],
            ([goal.what, goal.wanted, goal.found or "–", goal.verdict] for goal in goals(results)),
        ),
        "## Ratios",
        f"How many times the rate of the others {TWO.name} has; for p50 and CPU, how many times less it takes.",
        *(part for model in MODELS for part in _ratios(results, model)),
        *(
            f"{name} counted {counts['predictions']:,} predictions and {counts['review_items']:,} review items."
            for name, counts in results.counted.items()
        ),
        "## Closed loop, one row a request",
        "CPU and memory are of all processes of a server; Rollout's Valkey is one of them.",
        *(part for model in MODELS for part in _closed(results, model)),
        f"## Closed loop, {BATCH} rows a request, binary, {BINARY_CONNECTIONS} connections",
        _table(
            ["model", "server", "rows/s", "p50 ms", "p99 ms", "CPU s per 1,000", "peak MiB", "failures"],
            (
                [model, *_figures(results, model, contender, BINARY_CONNECTIONS, BATCH)]
                for model in MODELS
                for contender in ALL
                if results.samples(model, contender, BINARY_CONNECTIONS, BATCH)
            ),
        ),
        "## onnxruntime in a process by itself, one thread",
        _table(
            ["model", "variant", "rows/s, one at a time", f"rows/s in batches of {BATCH}", "session MiB"],
            _ceilings(results),
        ),
        "## Open loop, bursty arrivals",
        "Gaps are gamma-distributed with shape 0.25; latency counts from when a request was due.",
        _table(
            ["model", "server", "arrivals/s", "requests", "p50 ms", "p99 ms", "failures"], _open_loops(results)
        ),
        "## Workers of Rollout, small model",
        _table(
            ["USS MiB", "RSS MiB", "torch"],
            (
                [f"{one.uss_mib:.0f}", f"{one.rss_mib:.0f}", "loaded" if one.has_torch else "not loaded"]
                for one in results.workers
            ),
        ),
        *_absent(results),
        "![Rates and latencies](bench.svg)",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _present(results: Results, model: str) -> list[Contender]:
    return [
        contender for contender in ALL if any(_has(results, model, contender, count) for count in CONNECTIONS)
    ]


def _has(results: Results, model: str, contender: Contender, connections: int) -> bool:
    return bool(results.samples(model, contender, connections))


def _ratios(results: Results, model: str) -> list[str]:
    if not _has(results, model, TWO, 1):
        return []
    head = [model, *(f"req/s at {count}" for count in CONNECTIONS), "p50 at 1", "CPU at 32"]
    rows = []
    for other in _present(results, model):
        if other is TWO or not _has(results, model, other, 1):
            continue
        cells = [other.name]
        for count in CONNECTIONS:
            ours, theirs = (results.rate(model, who, count) for who in (TWO, other))
            cells.append(_times(ours, theirs))
        for of, count in ((lambda one: one.p50_ms, 1), (lambda one: one.cpu_per_1000, 32)):
            ours, theirs = (results.median(of, model, who, count) for who in (TWO, other))
            cells.append(_times(theirs, ours))
        rows.append(cells)
    return [_table(head, rows)]


def _times(one: float | None, other: float | None) -> str:
    return f"{one / other:.1f}×" if one and other else "–"


def _closed(results: Results, model: str) -> list[str]:
    head = ["connections", "server", "req/s", "p50 ms", "p99 ms", "CPU s per 1,000", "peak MiB", "failures"]
    rows = [
        [str(count), *_figures(results, model, contender, count)]
        for count in CONNECTIONS
        for contender in _present(results, model)
        if _has(results, model, contender, count)
    ]
    return [f"### {model}", _table(head, rows)] if rows else []


def _figures(results: Results, model: str, contender: Contender, connections: int, rows: int = 1) -> list[str]:
    samples = results.samples(model, contender, connections, rows)
    medians = [
        results.median(of, model, contender, connections, rows) or 0.0
        for of in (
            lambda one: one.rate,
            lambda one: one.p50_ms,
            lambda one: one.p99_ms,
            lambda one: one.cpu_per_1000,
            lambda one: one.peak_mib,
        )
    ]
    formats = ("{:,.0f}", "{:.2f}", "{:.2f}", "{:.3f}", "{:,.0f}")
    figures = [form.format(figure) for form, figure in zip(formats, medians, strict=True)]
    return [contender.name, *figures, str(sum(sample.failures for sample in samples))]


def _ceilings(results: Results) -> Iterable[list[str]]:
    for model, variant in dict.fromkeys((run.model, run.variant) for run in results.ceilings):
        one, many, session = (
            results.ceiling(model, of, variant) or 0.0
            for of in (lambda run: run.rows_1, lambda run: run.rows_64, lambda run: run.session_mib)
        )
        yield [model, variant, f"{one:,.0f}", f"{many:,.0f}", f"{session:.1f}"]


def _open_loops(results: Results) -> Iterable[list[str]]:
    for run in results.open:
        found = run.arrivals
        yield [
            run.model,
            run.contender,
            f"{found.rate:,.0f}",
            f"{found.requests:,}",
            f"{found.p50_ms:.2f}",
            f"{found.p99_ms:.2f}",
            str(found.failures),
        ]


def _absent(results: Results) -> list[str]:
    if not results.absent:
        return []
    return ["## Not measured", _table(["server", "why"], ([*pair] for pair in results.absent.items()))]
