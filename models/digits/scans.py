"""What a hand-held scanner makes of digits: callers to try the review queue with, and what the paper says.

``python -m models.digits.scans send 400`` writes requests, a JSON object a line, for ``rollout predict``;
``python -m models.digits.scans read ANSWERS`` writes the labels of those that went to review, for
``rollout review import``. The digits are those of the training part, turned and shifted as they were not there.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import random
from pathlib import Path

import click
import PIL.Image

from models.digits import data

CLIENTS = 20
MOST_DEGREES, MOST_PIXELS = 15, 2


@click.group()
def main() -> None:
    """Scan digits, and say what they are."""


@main.command()
@click.argument("count", default=400)
def send(count: int) -> None:
    """Write requests."""
    images = data.load().train.inputs["image"]
    for number in range(count):
        chance = random.Random(number)  # noqa: S311
        turned = PIL.Image.fromarray(images[number]).rotate(
            chance.uniform(-MOST_DEGREES, MOST_DEGREES),
            PIL.Image.Resampling.BILINEAR,
            translate=(chance.randint(-MOST_PIXELS, MOST_PIXELS), chance.randint(-MOST_PIXELS, MOST_PIXELS)),
        )
        file = io.BytesIO()
        turned.save(file, "PNG")
        pixels = base64.b64encode(file.getvalue()).decode()
        click.echo(
            json.dumps({"client_id": f"desk-{number % CLIENTS}", "key": f"scan-{number}", "image": pixels})
        )


@main.command()
@click.argument("answers", type=click.Path(exists=True, path_type=Path))
def read(answers: Path) -> None:
    """Write the labels of what went to review."""
    targets = data.load().train.targets
    with answers.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["review"]:
                label = str(targets[int(row["key"].removeprefix("scan-"))])
                click.echo(json.dumps({"client_id": row["client_id"], "key": row["key"], "label": label}))


if __name__ == "__main__":
    main()
