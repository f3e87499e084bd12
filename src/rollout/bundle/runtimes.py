"""Running a variant: arrays in, scores out. One class a variant, in one table."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from rollout.bundle.schema import Arrays
from rollout.errors import BundleError

Scores = NDArray[np.float32]


class Runtime(Protocol):
    """One variant in memory.

    Args:
        path: The variant's file.
        threads: Threads that one batch may use.
    """

    def __init__(self, path: Path, threads: int = 1) -> None: ...

    def run(self, inputs: Arrays) -> Scores:
        """Scores a batch.

        Args:
            inputs: For each field an array of shape ``(rows, *field.shape)``.

        Returns:
            ``float32`` of shape ``(rows, classes)``; each row sums to 1.
        """
        ...


class OnnxRuntime:
    """The ``onnx`` variant in onnxruntime, on the CPU."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> Scores:
        scores: Scores = self._session.run(self._outputs, inputs)[0]
        return scores


class TorchScriptRuntime:
    """The ``torchscript`` variant in torch, on the CPU; the only one that imports torch."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        try:
            import torch  # noqa: PLC0415  a worker that serves ONNX does without torch
        except ImportError:
            raise BundleError(
                "the torchscript variant needs torch: pip install 'rollout[pack]', or set ROLLOUT_VARIANT=onnx"
            ) from None
        torch.set_num_threads(threads)
        self._torch: Any = torch
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is deprecated upstream
            self._module = torch.jit.load(str(path), map_location="cpu")

    def run(self, inputs: Arrays) -> Scores:
        with self._torch.inference_mode():
            # A decoded image can be a read-only view of the request, which torch would warn about.
            tensors = (self._torch.tensor(array) for array in inputs.values())
            scores: Scores = self._module(*tensors).numpy()
            return scores


RUNTIMES: dict[str, type[Runtime]] = {"onnx": OnnxRuntime, "torchscript": TorchScriptRuntime}
