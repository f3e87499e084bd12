"""The report of an attempt: what was done, why it stopped, and what to do; to be read, and as JSON."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rollout.home import prepare_home
from rollout.job.sink import until_whole
from rollout.routing.improvement import Attempt

HEADLINES = {
    "open": "is not done: the next run goes on",
    "on trial": "is on trial",
    "refused": "was refused by the gate, and no client gets it",
    "failed": "could not be made, and no client gets it",
}


def describe(model: str, attempt: Attempt) -> list[str]:
    """Returns the lines of a report."""
    lines = [
        f"{model}:{attempt.version} {HEADLINES[attempt.outcome]}",
        f"  {attempt.of} trained again on {attempt.labels:,} new labels, against {attempt.against}, since "
        f"{attempt.began}",
    ]
    lines += [f"  done     {done.step}, {done.at}: {done.detail}" for done in attempt.done]
    lines += [f"  look at  {warning}" for warning in attempt.warnings]
    if attempt.why:
        lines.append(f"  why      {attempt.why}")
    if attempt.todo:
        lines.append(f"  to do    {attempt.todo}")
    return lines


def write_report(home: Path, model: str, attempt: Attempt) -> Path:
    """Writes a report as a text and, beside it, as JSON; returns where the text is.

    Raises:
        ConfigError: If it cannot be written.
    """
    prepare_home(home)
    folder = home / "improve" / model
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / f"{attempt.version}.txt"
    with until_whole(folder / f"{attempt.version}.json") as partial:
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(attempt), indent=2))
    with until_whole(text) as partial:
        partial.write_text("\n".join([*describe(model, attempt), ""]))
    return text
