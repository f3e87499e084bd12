"""What the commands import, for the process that they are forked from. Each reads the environment later, on its own."""

from __future__ import annotations

import onnxscript  # noqa: F401
import scipy.stats  # noqa: F401
import torch.export  # noqa: F401

import rollout.bundle.variants
import rollout.cli.predict
import rollout.cli.review
import rollout.cli.split
import rollout.training.build
import rollout.training.gate
import rollout.training.reproduction  # noqa: F401
