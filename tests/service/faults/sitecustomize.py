"""Faults of a runtime, in the workers of a service that a test starts with this folder on its PYTHONPATH.

``FAULT`` names one of the functions here, ``FAULT_VERSION`` the version that it happens to; without, to all.
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


def _is_black(inputs: Any) -> Any:
    return inputs["image"].max((1, 2)) == 0


def raises(run: Any, inputs: Any) -> Any:
    """Fails if an image is black."""
    if _is_black(inputs).any():
        raise RuntimeError("no light")
    return run(inputs)


def hangs(run: Any, inputs: Any) -> Any:
    """Never returns if an image is black, and is as quick as ever if not."""
    if _is_black(inputs).any():
        time.sleep(600)
    return run(inputs)


def not_a_number(run: Any, inputs: Any) -> Any:
    """Gives NaN for black images."""
    scores = run(inputs)
    scores[_is_black(inputs)] = float("nan")
    return scores


def wrong_shape(run: Any, inputs: Any) -> Any:
    """Forgets a column if an image is black."""
    scores = run(inputs)
    return scores[:, 1:] if _is_black(inputs).any() else scores


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
            fault, run, init = globals()[os.environ["FAULT"]], module.Onnx.run, module.Onnx.__init__
            version = os.environ.get("FAULT_VERSION", "")

            def remember(self: Any, path: Any, *arguments: Any, **options: Any) -> None:
                init(self, path, *arguments, **options)
                self.is_faulty = version in ("", path.parts[-3])

            module.Onnx.__init__ = remember
            module.Onnx.run = lambda self, inputs: (
                fault(lambda rows: run(self, rows), inputs) if self.is_faulty else run(self, inputs)
            )

        spec.loader.exec_module = load_with_fault  # type: ignore[method-assign]
        return spec


if "FAULT" in os.environ:
    sys.meta_path.insert(0, Finder())
