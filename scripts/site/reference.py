"""The reference: a page for each section of REFERENCE.md, with the tables that the code itself knows better."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from inspect import cleandoc

import prometheus_client

import rollout
from rollout import metrics
from rollout.config import LEAST, Settings
from rollout.errors import HTTP_ERRORS
from rollout.http.oip_grpc import STATUSES
from scripts.site.links import page_of_section, sections

TABLE = re.compile(r"(?:^\|.*\n)+", re.M)
KINDS: dict[type, tuple[str, str]] = {
    prometheus_client.Counter: ("counter", "_total"),
    prometheus_client.Gauge: ("gauge", ""),
    prometheus_client.Histogram: ("histogram", ""),
}
Said = Mapping[str, str]
FURTHER = {
    "The client": ["rollout.client.Client", "rollout.client.AsyncClient"],
    "Large jobs": ["rollout.spark", "rollout.ray", "rollout.job.plan.Options"],
    "Layers": ["rollout.layers"],
    "Changes of the rows that are learnt from": ["rollout.training.augmentation"],
    "Verdicts, as pure functions": ["rollout.judge.verdict", "rollout.judge.policy"],
}


def pages(text: str) -> dict[str, str]:
    """Returns the pages of the reference by where they lie in the site.

    Args:
        text: REFERENCE.md.
    """
    found = {}
    for heading, body in sections(text).items():
        if heading in GENERATED:
            (written, *_) = TABLE.findall(body)
            cells = [line.strip("| ").split(" | ") for line in written.splitlines()]
            body = body.replace(written, GENERATED[heading]({line[0]: line[-1] for line in cells}))  # noqa: PLW2901
        found[page_of_section(heading)] = f"# {heading}\n" + re.sub(r"^###", "##", body, flags=re.M)
    listed = "\n".join(f"- [{heading}]({page_of_section(heading)})" for heading in sections(text))
    start = (
        "# Reference\n\nWhat exists, and what it does. Three pages come from the code alone: "
        "[every command with its options](reference/cli.md), [every route](reference/http.md) and "
        "[every name of the Python package](reference/python.md). So do the tables of settings, metrics and "
        "problems.\n\n"
    )
    found["reference/index.md"] = (start + listed + "\n").replace("](reference/", "](")
    found["reference/cli.md"] = COMMANDS
    found["reference/python.md"] = python()
    return found


def settings(said: Said) -> str:
    """Returns the table of the settings: their defaults and bounds as ``config.py`` has them.

    Args:
        said: What REFERENCE.md says of each; of what it leaves out, the docstring of ``Settings`` does.
    """
    text = cleandoc(Settings.__doc__ or "")
    meanings = dict(re.findall(r"^    (\w+): (.*?)(?=^    \w+: |^\S|\Z)", text, re.M | re.S))
    rows = []
    for name, hint in Settings.__annotations__.items():
        variable, default = f"`ROLLOUT_{name.upper()}`", getattr(Settings(), name)
        choices = re.search(r"Literal\[(.*?)\]", str(hint))
        values = (
            re.sub("[\"']", "`", choices[1]) if choices else f"from {LEAST[name]:,} on" if LEAST.get(name) else ""
        )
        meaning = said.get(variable) or " ".join(meanings[name].split()).replace("``", "`")
        rows.append((variable, "–" if default in ("", None) else f"`{default}`", values, meaning))
    return table(("variable", "default", "values", "meaning"), rows)


def problems(said: Said) -> str:
    """Returns the table of the problems, with what each is over HTTP and gRPC and how ``errors.py`` titles it."""
    rows = []
    for error in HTTP_ERRORS:
        name = f"`{error.type}`"
        status = STATUSES.get(error.status)
        grpc = f"`{status.name}`" if status else "–"
        rows.append((name, str(error.status), grpc, error.title, said.get(name, "")))
    return table(("type", "status", "gRPC", "title", "when"), rows)


def measures(said: Said) -> str:
    """Returns the table of the metrics, with their kinds and labels as ``metrics.py`` has them."""
    rows = []
    for metric in vars(metrics).values():
        if type(metric) in KINDS:
            kind, end = KINDS[type(metric)]
            name = f"`{metric._name}{end}`"
            rows.append(
                (name, kind, ", ".join(metric._labelnames) or "–", said.get(name) or metric._documentation)
            )
    return table(("metric", "kind", "labels", "meaning"), rows)


def python() -> str:
    """Returns the page of Python's names, which mkdocstrings fills."""
    public = [f"rollout.{rollout._MODULES[name]}.{name}" for name in rollout.__all__ if name in rollout._MODULES]
    parts = ["# Python\n\nWhat `import rollout` gives, from the docstrings.\n", *map("::: {}\n".format, public)]
    for heading, names in FURTHER.items():
        parts += [f"## {heading}\n", *(f"::: {name}\n    options:\n      heading_level: 3\n" for name in names)]
    return "\n".join(parts)


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [list(heads)]
    lines += [["---"] * len(lines[0])]
    lines += [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


GENERATED: dict[str, Callable[[Said], str]] = {"Settings": settings, "Metrics": measures, "Problems": problems}
COMMANDS = """# Command line

Every command with its options, as `rollout COMMAND --help` prints them. What they are for, and their exit codes:
[commands](commands.md).

::: mkdocs-click
    :module: rollout.cli
    :command: cli
    :prog_name: rollout
    :depth: 1
    :style: plain
"""
