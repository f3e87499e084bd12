"""What the commands import, for the process that they are forked from. Each reads the environment later, on its own.

Exporters, quantizers and diagrams are imported when the first bundle is packed, which takes longer than that. Not
BentoML, which reads where its store is when it is imported.
"""

from __future__ import annotations

import matplotlib.backends.backend_svg
import matplotlib.figure  # noqa: F401
import onnxscript.function_libs.torch_lib.ops  # noqa: F401
import scipy.stats  # noqa: F401
import torch._inductor.ir
import torch.export._trace  # noqa: F401

import rollout.bundle.exporter
import rollout.bundle.quantizing
import rollout.bundle.variants
import rollout.cli.improve
import rollout.cli.predict
import rollout.cli.review
import rollout.cli.split
import rollout.improvement.steps
import rollout.training.build
import rollout.training.gate
import rollout.training.reproduction  # noqa: F401
