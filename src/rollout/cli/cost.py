"""``rollout cost``: how fast a bundle is on a core and on a GPU, and what a million predictions cost."""

from __future__ import annotations

import datetime
import importlib.util
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rollout.cli.completion import tag_argument
from rollout.cli.output import Table, make_console, make_table, print_json, working
from rollout.cli.shared import trust_option
from rollout.cli.termination import end_on_ctrl_c
from rollout.config import load_settings
from rollout.errors import ConfigError

if TYPE_CHECKING:
    from rollout.cost import Point, Speeds

# What a price is of, and the device that it belongs to.
DEVICES = {"cpu": "cpu", "gpu": "cuda"}
PLOTS = (".svg", ".png")
# By Okabe and Ito, for every kind of eye.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
MARKERS = ("o", "s", "D", "^")


@click.command()
@tag_argument
@click.option("--price", "prices", multiple=True, help="Price of an hour: cpu=… of a core, gpu=… of a GPU.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the speeds into this file, .svg or .png.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Say what so many rows a second take.")
@click.option("--p99", type=click.FloatRange(min=0, min_open=True), help="With --rate: in so many ms, 99 of 100.")
@trust_option
def cost(
    tag: str,
    prices: tuple[str, ...],
    plot: Path | None,
    rate: float | None,
    p99: float | None,
    *,
    as_json: bool,
    trust: bool,
) -> None:
    """Measure how many rows per second the bundle TAG, such as digits:v2, scores on a core and on a GPU.

    That is each variant alone, without HTTP. With prices, also what a million predictions cost on a device that
    is never idle, and which is the cheapest. With --rate, how many cores or GPUs that takes and how long a row
    waits; with --p99 as well, the cheapest that keeps it.
    """
    from rollout.bundle.machine import cpu_name, gpu_name  # noqa: PLC0415
    from rollout.bundle.store import open_bundle  # noqa: PLC0415  the store imports BentoML
    from rollout.cost import SECONDS, compare_costs, measure_speeds  # noqa: PLC0415
    from rollout.cost_at_rate import describe_plans  # noqa: PLC0415

    if p99 is not None and rate is None:
        raise ConfigError("--p99 is of a rate: add --rate ROWS_A_SECOND")
    priced = parse_prices(prices)
    if plot is not None:
        _require_drawable(plot)
    settings = load_settings(trust=trust or None)
    folder, manifest = open_bundle(tag, settings.public_key)
    end_on_ctrl_c()
    with working(make_console(stderr=True), "measuring: ten seconds, or minutes of a large network"):
        speeds = measure_speeds(folder, manifest, SECONDS, is_trusted=settings.trusts_bundles)
    machine = ", ".join(filter(None, (cpu_name(), gpu_name())))
    if plot is not None:
        title = f"{tag} on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine}"
        _draw(speeds.points, title, plot)
    sentences = [f"{name} {found}." for name, found in speeds.threads.items()]
    sentences += compare_costs(speeds.points, priced)
    if rate is not None:
        sentences += describe_plans(speeds.points, rate, priced, math.inf if p99 is None else p99 / 1000)
    if as_json:
        print_json(_report(tag, machine, speeds, priced, sentences))
        return
    console = make_console()
    console.print(_table(f"{tag}: {_unit(speeds.points)}, {machine}", speeds.points, priced))
    for name, left in manifest.left_out.items():
        console.print(f"{name} was left out: {left.why}", soft_wrap=True)
    for name, why in speeds.not_measured.items():
        console.print(f"{name} was not measured: {why}", soft_wrap=True)
    for sentence in sentences:
        console.print(sentence, soft_wrap=True)


def parse_prices(prices: Iterable[str]) -> dict[str, float]:
    """Reads prices such as ``cpu=0.04`` and ``gpu=2.50``.

    Returns:
        The price of an hour by device, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: If one is something else, or there are two of a kind.
    """
    found: dict[str, float] = {}
    for given in prices:
        kind, _, text = given.partition("=")
        if kind not in DEVICES:
            raise ConfigError(f"--price {given}: a price is cpu=… or gpu=…, such as cpu=0.04")
        if DEVICES[kind] in found:
            raise ConfigError(f"--price {given}: {kind} has a price already")
        try:
            price = float(text)
        except ValueError:
            price = math.nan
        if not 0 < price < math.inf:
            raise ConfigError(f"--price {given}: {text or 'nothing'} is not a price; it must be a number above 0")
        found[DEVICES[kind]] = price
    return found


def _require_drawable(file: Path) -> None:
    if file.suffix not in PLOTS:
        raise ConfigError(f"--plot {file}: draws {' or '.join(PLOTS)}")
    if not file.parent.is_dir():
        raise ConfigError(f"--plot {file}: there is no folder {file.parent}")
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("--plot needs matplotlib: pip install 'rollout[pack]'")


def _unit(points: list[Point]) -> str:
    on_gpu = any(point.device == "cuda" for point in points)
    return "rows per second, per core or GPU" if on_gpu else "rows per second and core"


def _table(title: str, points: list[Point], prices: dict[str, float]) -> Table:
    from rollout.cost import BATCH_SIZES, at_best_size, cost_per_million, shown_cost  # noqa: PLC0415

    table = make_table(title)
    for column in ("variant", "device"):
        table.add_column(column)
    for column in [f"batch {size}" for size in BATCH_SIZES] + ["cost per million"] * bool(prices):
        table.add_column(column, justify="right")
    speeds = {(point.contender, point.batch_size): f"{point.rows_per_second:,.0f}" for point in points}
    for best in at_best_size(points):
        row = [best.variant, best.device, *(speeds[best.contender, size] for size in BATCH_SIZES)]
        if best.device in prices:
            row.append(shown_cost(cost_per_million(prices[best.device], best.rows_per_second)))
        table.add_row(*row)
    return table


def _report(
    tag: str, machine: str, speeds: Speeds, prices: dict[str, float], sentences: list[str]
) -> dict[str, Any]:
    from rollout.cost import cost_per_million  # noqa: PLC0415

    return {
        "tag": tag,
        "machine": machine,
        "prices": {kind: prices[device] for kind, device in DEVICES.items() if device in prices},
        "points": [
            point._asdict()
            | {
                "cost_per_million": cost_per_million(prices[point.device], point.rows_per_second)
                if point.device in prices
                else None
            }
            for point in speeds.points
        ],
        "threads": {
            name: {"cores": found.cores, "in_a_batch": found.in_a_batch}
            | {
                way: {"rows_per_second": profile.rate, "one_row_ms": profile.seconds[1] * 1000}
                for way, profile in (("apart", found.apart), ("together", found.together))
                if profile is not None
            }
            for name, found in speeds.threads.items()
        },
        "not_measured": speeds.not_measured,
        "summary": sentences,
    }


def _draw(points: list[Point], title: str, file: Path) -> None:
    """Draws a line for each variant on each device: speed over batch size, both on log axes."""
    import matplotlib  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator  # noqa: PLC0415

    from rollout.cost import BATCH_SIZES, at_best_size  # noqa: PLC0415

    variants = list(dict.fromkeys(point.variant for point in points))
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # texts stay texts
        figure = Figure(figsize=(7.5, 4.5), dpi=150, layout="constrained")
        axes = figure.add_subplot(xscale="log", yscale="log")
        for best in sorted(at_best_size(points), key=lambda point: -point.rows_per_second):
            line = [point for point in points if point.contender == best.contender]
            look = variants.index(best.variant)
            axes.plot(
                [point.batch_size for point in line],
                [point.rows_per_second for point in line],
                label=best.contender,
                color=COLOURS[look % len(COLOURS)],
                marker=MARKERS[look % len(MARKERS)],
                linestyle="--" if best.device == "cuda" else "-",
            )
        axes.set_title(title, loc="left", fontsize="medium")
        axes.set_xlabel("rows in a batch")
        axes.set_ylabel(_unit(points))
        axes.set_xticks(BATCH_SIZES, [str(size) for size in BATCH_SIZES])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.grid(visible=True, alpha=0.3)
        figure.legend(loc="outside right upper", frameon=False)
        figure.savefig(file)
