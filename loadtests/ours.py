"""Rollout under test: its models, its splits, and how it is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from loadtests.servers import ROOT

BIN = Path(sys.executable).parent
RECIPES = {"digits": "loadtests/twins", "digits-cnn": "loadtests/cnn"}
SERVE = (str(BIN / "rollout"), "serve", "--port", "{port}")


class Models:
    """The bundles that every contender takes its file from, and homes for Rollout itself.

    Args:
        folder: Where they lie; what an earlier run left there is removed.
        store: A store that has their bundles already; without, they are built into the folder.
    """

    def __init__(self, folder: Path, store: Path | None = None) -> None:
        self._folder = folder.resolve()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._store = (store or self._folder / "bentoml").resolve()
        self._is_built = store is not None
        self._environment = {"BENTOML_HOME": str(self._store), "BENTOML_DO_NOT_TRACK": "True"}

    def build(self, model: str) -> None:
        """Trains and packs both versions of a model, with the same weights, unless they are there."""
        if not self._is_built:
            self._run("build", RECIPES[model], home=self._folder / "building")

    def onnx(self, model: str, variant: str = "onnx") -> Path | None:
        """Returns the file of a variant, if it passed parity."""
        file = self._store / "models" / model / "v1" / variant / "model.onnx"
        return file if file.exists() else None

    def home(self, model: str, share: float, shadow: float) -> dict[str, str]:
        """Makes a new home, with a trial if there is a share or a shadow rate; returns its environment."""
        template = self._folder / f"{model}-{share}-{shadow}"
        if not template.exists():
            shares = ("--challenger", "v2", "--share", str(share), "--shadow", str(shadow))
            trial = shares if share or shadow else ()
            self._run("split", "set", model, "--champion", "v1", *trial, "--yes", home=template)
        home = self._folder / "running"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(template, home, ignore=shutil.ignore_patterns("*.sock", "lock"))
        return self._environment | {"ROLLOUT_HOME": str(home)}

    def _run(self, *arguments: str, home: Path) -> None:
        environment = os.environ | self._environment | {"ROLLOUT_HOME": str(home)}
        subprocess.run(
            [BIN / "rollout", *arguments], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL
        )
