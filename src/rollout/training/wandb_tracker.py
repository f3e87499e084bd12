"""Runs in Weights & Biases, told through its own client."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rollout.bundle.manifest import Manifest, digest
from rollout.errors import ConfigError
from rollout.mlflow_server import DIGEST, VERSION
from rollout.training.runs import Checks
from rollout.training.tracker import Outcome, Told, Tracker

# How long a server that is away may hold up a training, in seconds.
START_S, END_S = 30.0, 120.0


class WandbTracker(Tracker):
    """A run for a training, in the project that ``WANDB_PROJECT`` names.

    Args:
        folder: Where its files lie until they are sent; without one, where wandb has them otherwise.
    """

    name = "W&B"
    remedy = "see whether `wandb login` was done and the network is there, or unset WANDB_PROJECT"

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def start(self, told: Told) -> dict[str, str]:
        """Opens the run of the key."""
        try:
            import wandb  # noqa: PLC0415  takes a second
        except ModuleNotFoundError:
            raise ConfigError("WANDB_PROJECT is set and wandb is missing: pip install 'rollout[wandb]'") from None
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, init_timeout=START_S, finish_timeout=END_S
        )
        is_online = os.environ.get("WANDB_MODE", "online") == "online"
        self._run = wandb.init(
            id=told.key,
            name=told.name,
            group=told.parent or told.model,
            config={**told.settings, **told.facts},
            resume="allow" if is_online else None,
            dir=self._folder,
            settings=settings,
        )
        self._sent = float(self._run.step - 1)
        url = self._run.url if is_online else None  # it warns of one that it does not have
        return {"run": told.key, **({"url": url} if url else {})}

    def check(self, checks: Checks) -> None:
        """Logs the checks that the run does not have yet."""
        for check in checks:
            if check["step"] > self._sent:
                self._run.log({name: v for name, v in check.items() if name != "step"}, step=int(check["step"]))
                self._sent = check["step"]

    def tell(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Keeps figures as the summary, and files."""
        self._run.summary.update(dict(figures))
        for file in files:
            shutil.copy(file, self._run.dir)
            self._run.save(str(Path(self._run.dir, file.name)), base_path=self._run.dir, policy="now")

    def pack(self, manifest: Manifest) -> None:
        """Says which bundle came of it."""
        self._run.summary.update({VERSION: manifest.version, DIGEST: digest(manifest)})

    def end(self, outcome: Outcome, why: str = "") -> None:
        """Sends what is left."""
        self._run.finish(exit_code=0 if outcome == "FINISHED" else 1)
