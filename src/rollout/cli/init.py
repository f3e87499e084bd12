"""``rollout init``: a model to start from."""

from __future__ import annotations

from pathlib import Path
from string import Template

import click

from rollout.cli.output import say
from rollout.errors import ConfigError

RECIPE = Template('''"""What `rollout build models/$name` trains and packs: put your data and your module here."""

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer

from rollout import Answered, Classification, Dataset, Labelled, Recipe, Reference, Tensor, Version

HYPERPARAMETERS = {"hidden": 16, "epochs": 200, "learning_rate": 0.01}


class Network(torch.nn.Module):
    """Standardises its inputs itself: a caller sends them as they were measured."""

    def __init__(self, cells):
        super().__init__()
        self.register_buffer("mean", cells.mean(0))
        self.register_buffer("scale", cells.std(0))
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(30, HYPERPARAMETERS["hidden"]),
            torch.nn.ReLU(),
            torch.nn.Linear(HYPERPARAMETERS["hidden"], 2),
        )

    def forward(self, cells):
        """Takes float32 of shape (rows, 30); returns logits of shape (rows, 2)."""
        return self.layers((cells - self.mean) / self.scale)


def load():
    """Loads the rows in three parts; the same ones each time."""
    data = load_breast_cancer()
    x, y = data.data.astype("float32"), data.target
    parts = [Labelled({"cells": x[rows]}, y[rows]) for rows in (slice(250), slice(250, 450), slice(450, None))]
    return Dataset(*parts, source="sklearn.datasets.load_breast_cancer", split="in the order of the file")


def train(part, seed):
    """Trains the network; the recipe has seeded torch already."""
    cells, targets = torch.from_numpy(part.inputs["cells"]), torch.from_numpy(part.targets)
    network = Network(cells)
    optimizer = torch.optim.AdamW(network.parameters(), lr=HYPERPARAMETERS["learning_rate"], weight_decay=0.1)
    for _ in range(HYPERPARAMETERS["epochs"]):
        loss = torch.nn.functional.cross_entropy(network(cells), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def from_measurements(network, dataset):
    """Returns raw rows as a caller sends them, and the way of a notebook from there to the logits.

    Packing sends the same rows through the bundle, and refuses it where it decides otherwise. Put the pipeline of
    your training here, such as pandas or Pillow, without what is inside of the module.
    """
    cells = dataset.train.inputs["cells"].astype(np.float64)
    mean, scale = cells.mean(0), cells.std(0, ddof=1)

    def answer(raw):
        standardised = (np.array(raw["cells"]) - mean) / scale
        logits = network.layers(torch.from_numpy(standardised[None].astype(np.float32)))
        label = ["malignant", "benign"][int(logits.argmax())]
        return Answered(logits, {"cells": np.array(raw["cells"], np.float32)}, label)

    return Reference([{"cells": row.tolist()} for row in dataset.evaluation.inputs["cells"][:40]], answer)


RECIPE = Recipe(
    name="$name",
    inputs={"cells": Tensor(shape=(30,), minimum=0, maximum=10_000)},
    load=load,
    versions={
        "v1": Version(
            train,
            Classification(labels=["malignant", "benign"], risk=0.1),
            HYPERPARAMETERS,
            reference=from_measurements,
        )
    },
)
''')


@click.command()
@click.argument("name")
def init(name: str) -> None:
    """Write models/NAME, a recipe that packs and serves as it stands."""
    if not (name.isidentifier() and name.islower() and name.isascii()):
        raise ConfigError(f"{name!r} cannot name a model: take lower-case letters, digits and underscores")
    folder = Path("models") / name
    if folder.exists():
        raise ConfigError(f"{folder} exists already")
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(f'"""The model {name}."""\n')
    (folder / "recipe.py").write_text(RECIPE.substitute(name=name))
    say(
        f"{folder}/recipe.py trains and packs as it stands; make it yours, then",
        "",
        f"  rollout build {folder}",
        f"  rollout split set {name} --champion v1",
        "  rollout serve",
    )
