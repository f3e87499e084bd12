"""``make bench``: this service and others, side by side in one run.

Every contender serves the same ONNX files on the same machine. Only one runs at a time, in an order that turns
from round to round, and the tables hold medians over the rounds: a machine's speed drifts, ratios do not.
"""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path

import click
import msgspec

from loadtests.comparison import Comparison
from loadtests.contenders import CONTENDERS
from loadtests.plot import draw
from loadtests.report import render
from loadtests.results import MODELS, Results
from loadtests.servers import ROOT
from rollout.bundle.machine import cpu_name


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Rounds; the tables hold their medians.")
@click.option("--seconds", default=2, show_default=True, help="Length of one run of the load generator.")
@click.option("--only", help="Contenders, separated by commas, such as rollout,mosec; all by default.")
@click.option("--models", default=",".join(MODELS), show_default=True, help="Models, separated by commas.")
@click.option("--store", type=click.Path(path_type=Path), help="Bundle store with the models; built by default.")
@click.option("--results", "folder", default=ROOT / "loadtests" / "results", type=click.Path(path_type=Path))
def main(rounds: int, seconds: int, only: str | None, models: str, store: Path | None, folder: Path) -> None:
    """Compares this service with others, and says which of its goals it reaches."""
    folder.mkdir(parents=True, exist_ok=True)
    peers = {contender.peer for contender in CONTENDERS}
    chosen = _choose("--only", only or ",".join(peers), peers)
    results = Results(_machine())
    comparison = Comparison(
        [contender for contender in CONTENDERS if contender.peer in chosen],
        _choose("--models", models, set(MODELS)),
        seconds,
        folder,
        results,
        store,
    )
    comparison.prepare()
    for _ in range(rounds):
        comparison.run_round()
    comparison.run_open_loops()
    (folder / "bench.json").write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    (folder / "bench.svg").write_text(draw(results), "utf-8")
    report = render(results)
    (folder / "bench.md").write_text(report, "utf-8")
    print(report)


def _choose(option: str, names: str, known: set[str]) -> list[str]:
    chosen = [name.strip() for name in names.split(",")]
    if unknown := sorted(set(chosen) - known):
        raise click.BadParameter(
            f"there is no {unknown[0]}; there are {', '.join(sorted(known))}", param_hint=option
        )
    return chosen


def _machine() -> str:
    return (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {os.cpu_count()} cores ({cpu_name()}), Python "
        f"{platform.python_version()}, onnxruntime {version('onnxruntime')}"
    )


if __name__ == "__main__":
    main()
