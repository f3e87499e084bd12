"""What a hand-held scanner makes of digits: callers to try the review queue with, and what the paper says.

``python -m models.digits.scans send 400`` writes requests, a JSON object a line, for ``rollout predict``;
``python -m models.digits.scans read ANSWERS`` writes the labels of those that went to review, for
``rollout review import``, and ``… score ANSWERS`` says how many are right. The digits are those of the training
part, turned and shifted as they were not there; with ``--unseen`` they are those of the test part.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import click
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from models.digits import data
from rollout import Labelled

CLIENTS = 20
MOST_DEGREES, MOST_PIXELS = 15, 2
UNSEEN = "unseen-"
unseen_option = click.option("--unseen", is_flag=True, help="Digits that nothing is trained on.")


def scanned(pixels: NDArray[np.uint8], chance: random.Random) -> PIL.Image.Image:
    """Turns and shifts a digit a little.

    Args:
        pixels: Its scan as the data set has it, shape ``(32, 32)``.
        chance: Decides how far.
    """
    return PIL.Image.fromarray(pixels).rotate(
        chance.uniform(-MOST_DEGREES, MOST_DEGREES),
        PIL.Image.Resampling.BILINEAR,
        translate=(chance.randint(-MOST_PIXELS, MOST_PIXELS), chance.randint(-MOST_PIXELS, MOST_PIXELS)),
    )


@click.group()
def main() -> None:
    """Scan digits, and say what they are."""


@main.command()
@click.argument("count", default=400)
@unseen_option
def send(count: int, *, unseen: bool) -> None:
    """Write requests."""
    images = _part(unseen=unseen).inputs["image"]
    for number in range(count):
        file = io.BytesIO()
        scanned(images[number % len(images)], random.Random(number)).save(file, "PNG")  # noqa: S311
        pixels = base64.b64encode(file.getvalue()).decode()
        key = f"{UNSEEN if unseen else ''}scan-{number}"
        click.echo(json.dumps({"client_id": f"desk-{number % CLIENTS}", "key": key, "image": pixels}))


@main.command()
@click.argument("answers", type=click.Path(exists=True, path_type=Path))
def read(answers: Path) -> None:
    """Write the labels of what went to review."""
    for row, label in _read(answers):
        if row["review"]:
            click.echo(json.dumps({"client_id": row["client_id"], "key": row["key"], "label": label}))


@main.command()
@click.argument("answers", type=click.Path(exists=True, path_type=Path))
def score(answers: Path) -> None:
    """Say how many scans were read right, by version."""
    right: dict[str, list[bool]] = {}
    for row, label in _read(answers):
        right.setdefault(row["version"], []).append(row["label"] == label)
    for version, each in right.items():
        click.echo(f"{version} reads {sum(each) / len(each):.1%} of {len(each):,} scans right")


def _part(*, unseen: bool) -> Labelled:
    dataset = data.load()
    return dataset.evaluation if unseen else dataset.train


def _read(answers: Path) -> list[tuple[dict[str, Any], str]]:
    """Returns the answers, each with the digit that it is about."""
    with answers.open(newline="") as file:
        rows = list(csv.DictReader(file))
    targets = {is_unseen: _part(unseen=is_unseen).targets for is_unseen in (False, True)}
    found = []
    for row in rows:
        digits = targets[row["key"].startswith(UNSEEN)]
        number = int(row["key"].removeprefix(UNSEEN).removeprefix("scan-"))
        found.append((row, str(digits[number % len(digits)])))
    return found


if __name__ == "__main__":
    main()
