"""A model whose next version is made of labels, and that notes each training: it trains in no time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from rollout.heads import Classification, Truth
from rollout.review.item import ReviewItem
from rollout.store import Redis
from tests.commands import rollout
from tests.review.decisions import decide, fill
from tests.review.items import make_item, written

TASK = Classification(labels=["left", "right"], risk=0.1)
RECIPE = """
import os
import time
from pathlib import Path

import numpy as np
import torch

from rollout import Classification, Dataset, Labelled, Recipe, Tensor, Version


def load():
    generator = np.random.default_rng(0)

    def part(rows):
        point = generator.normal(size=(rows, 2)).astype(np.float32)
        return Labelled({"point": point}, (point[:, 0] > 0).astype(np.int64))

    return Dataset(part(100), part(200), part(400), source="made here", split="at random")


def note(word, part, seed):
    with (Path(os.environ["ROLLOUT_HOME"]) / "trainings").open("a") as file:
        file.write(f"{word} {len(part.targets)} {seed}\\n")


def train(part, seed):
    note("begin", part, seed)
    time.sleep(float(os.environ.get("SLOW", "0")))
    y = 4.0 if len(part.targets) == 100 else float(os.environ.get("LEARNT", "0.5"))
    module = torch.nn.Linear(2, 2)
    with torch.no_grad():
        direction = torch.tensor([5.0, y + 0.01 * seed])
        module.weight.copy_(torch.stack([-direction, direction]))
        module.bias.zero_()
    note("end", part, seed)
    return module.eval()


RECIPE = Recipe(
    name="sides",
    inputs={"point": Tensor(shape=(2,), dtype="float32")},
    load=load,
    versions={"v1": Version(train, Classification(labels=["left", "right"], risk=0.1), {})},
)
"""


class Sides:
    """A store with ``sides:v1``, which is champion, and ``rollout`` on it."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.folder, self.home = folder, folder / "home"
        self.environment = os.environ | {
            "ROLLOUT_HOME": str(self.home),
            "ROLLOUT_REDIS_URL": redis_url,
            "BENTOML_HOME": str(folder / "store"),
            "LOGNAME": "ada",
        }

    def run(self, *arguments: str | Path, code: int = 0, **environment: str) -> str:
        """Runs ``rollout``; returns all that it printed."""
        done = rollout(*arguments, folder=self.folder, environment=self.environment | environment)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def improve(self, *options: str | Path, code: int = 0, **environment: str) -> str:
        """Runs ``rollout improve`` with as few seeds as can prove something."""
        return self.run("improve", "sides", "--seeds", "6", "--least", "30", *options, code=code, **environment)

    def trainings(self, word: str = "end") -> list[str]:
        """Returns the trainings that began, or came to their end, each as its rows and its seed."""
        file = self.home / "trainings"
        lines = [line.split(maxsplit=1) for line in file.read_text().splitlines()] if file.exists() else []
        return [training for begun, training in lines if begun == word]


def make_sides(folder: Path, redis_url: str) -> Sides:
    """Writes the recipe, and builds ``sides:v1``."""
    recipe = folder / "models" / "sides"
    recipe.mkdir(parents=True)
    (folder / "store").mkdir()
    (folder / "home").mkdir(mode=0o700)
    (recipe / "recipe.py").write_text(RECIPE)
    sides = Sides(folder, redis_url)
    sides.run("build", "models/sides")
    (sides.home / "trainings").unlink()
    return sides


async def review(redis: Redis, numbers: range, *, wrong: bool = False, task: Classification = TASK) -> None:
    """Has predictions reviewed, each labelled by the side that it is on, or by the other one."""
    answers: dict[str, Truth] = {}
    items: list[ReviewItem] = []
    for number in numbers:
        x, y = np.random.default_rng(number).normal(size=2).round(4)
        inputs: Mapping[str, list[float]] = {"point": [float(x), float(y)]}
        item = make_item(
            number,
            label="left",
            scores={"left": 0.5, "right": 0.5},
            model="sides",
            inputs=msgspec.Raw(msgspec.json.encode(inputs)),
            task=written(task),
        )
        items.append(item)
        answers[item.id] = Truth(label=task.labels[int((x > 0) != wrong)])
    await fill(redis, items)
    await decide(redis, answers, model="sides")
