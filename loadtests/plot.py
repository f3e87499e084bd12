"""The picture: for each model the rates in closed loop, and the latencies in open loop."""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from loadtests.contenders import CONTENDERS, Contender
from loadtests.results import CONNECTIONS, MODELS, Results

OURS, THEIRS = "#1f6feb", "#57606a"
SHADES = (0.3, 0.6, 1.0)


def draw(results: Results) -> str:
    """Returns the picture as SVG."""
    models = [model for model in MODELS if any(run.model == model for run in results.closed)]
    figure = Figure(figsize=(11, 0.5 + 3.6 * len(models)), layout="constrained")
    panels = figure.subplots(len(models), 2, squeeze=False, sharey="row")
    for model, (rates, latencies) in zip(models, panels, strict=True):
        present = [one for one in CONTENDERS if results.rate(model, one, CONNECTIONS[-1])]
        present.sort(key=lambda one: results.rate(model, one, CONNECTIONS[-1]) or 0)
        _draw_rates(rates, results, model, present)
        _draw_latencies(latencies, results, model, present)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _draw_rates(axes: Axes, results: Results, model: str, present: list[Contender]) -> None:
    for row, contender in enumerate(present):
        rates = [results.rate(model, contender, count) or 0.0 for count in CONNECTIONS]
        for rate, shade in zip(rates, SHADES, strict=True):
            axes.plot(rate, row, "o", color=_color(contender), alpha=shade)
        label = f"{rates[-1]:,.0f}"
        axes.annotate(label, (max(rates), row), (8, -3), textcoords="offset points", fontsize=8)
    axes.set_yticks(range(len(present)), [contender.name for contender in present])
    axes.margins(x=0.15)
    _label(axes, f"{model}: requests a second at 1, 32 and 128 connections (pale to dark)", "req/s")


def _draw_latencies(axes: Axes, results: Results, model: str, present: list[Contender]) -> None:
    rows = {contender.name: row for row, contender in enumerate(present)}
    runs = [run for run in results.open if run.model == model and run.contender in rows]
    for run in runs:
        row, found = rows[run.contender], run.arrivals
        color = _color(present[row])
        axes.plot([found.p50_ms, found.p99_ms], [row, row], "-", color=color, alpha=0.5)
        axes.plot(found.p50_ms, row, "o", color=color)
        axes.plot(found.p99_ms, row, "|", color=color, markersize=10)
    at = f" at {runs[0].arrivals.rate:.0f} arrivals a second" if runs else ""
    _label(axes, f"{model}: p50 to p99{at}, bursty", "ms from when a request was due")


def _label(axes: Axes, title: str, unit: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", alpha=0.3)


def _color(contender: Contender) -> str:
    return OURS if contender.is_ours else THEIRS
