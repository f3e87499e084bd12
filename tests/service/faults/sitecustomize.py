"""Faults of a runtime, in the workers of a service that a test starts with this folder on its PYTHONPATH.

``FAULT`` names one of the functions here.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import time
from types import ModuleType
from typing import Any

MODULE = "rollout.bundle.variants"


def slow(run: Any, inputs: Any) -> Any:
    """40 ms for a batch and 4 ms for each row of it."""
    time.sleep(0.04 + 0.004 * len(inputs["image"]))
    return run(inputs)


def hang_on_black(run: Any, inputs: Any) -> Any:
    """Never returns if an image is black."""
    if (inputs["image"].max((1, 2)) == 0).any():
        time.sleep(600)
    return slow(run, inputs)


class Finder(importlib.abc.MetaPathFinder):
    """Puts the fault into the module when it is imported."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def load_with_fault(module: ModuleType) -> None:
            load(module)
            fault, run = globals()[os.environ["FAULT"]], module.Onnx.run
            module.Onnx.run = lambda self, inputs: fault(lambda rows: run(self, rows), inputs)

        spec.loader.exec_module = load_with_fault  # type: ignore[method-assign]
        return spec


if "FAULT" in os.environ:
    sys.meta_path.insert(0, Finder())
