"""What TensorBoard shows beside the curves that Lightning writes: settings, figures and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from rollout.bundle.manifest import Manifest
from rollout.training.tracker import Told, Tracker


class TensorBoardTracker(Tracker):
    """Files of events.

    Args:
        folder: Where they are written.
    """

    name = "TensorBoard"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._settings: dict[str, str | float] = {}

    def start(self, told: Told) -> dict[str, str]:
        """Writes what is known."""
        self._settings = {
            name: value if isinstance(value, int | float) else str(value) for name, value in told.settings.items()
        }
        known = msgspec.json.format(msgspec.json.encode({**told.settings, **told.facts}), indent=2).decode()
        with SummaryWriter(str(self._folder)) as writer:
            writer.add_text("run", "\n".join(f"    {line}" for line in known.splitlines()))
        return {}

    def tell(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Writes figures as scalars, and those files that are pictures."""
        with SummaryWriter(str(self._folder)) as writer:
            for name, figure in figures.items():
                writer.add_scalar(f"figures/{name}", figure)
            for file in files:
                if file.suffix == ".png":
                    with Image.open(file) as picture:
                        pixels = np.asarray(picture.convert("RGB"))
                    writer.add_image(file.stem, pixels, dataformats="HWC")

    def pack(self, manifest: Manifest) -> None:
        """Writes the settings beside the figures that they led to."""
        with SummaryWriter(str(self._folder)) as writer:
            writer.add_hparams(self._settings, dict(manifest.metrics), run_name=".")
