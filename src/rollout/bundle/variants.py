"""The variants: each writes itself from a source and runs itself. One class a variant, in one table.

The source writes what it can be; running needs what the variant needs. To add one, such as TensorRT, add its
class to ``VARIANTS``.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

# onnxruntime reports to its makers unless told otherwise.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from rollout.bundle.columns import arguments, sizes
from rollout.bundle.machine import gpu_name
from rollout.bundle.parity import count, take
from rollout.bundle.quiet import quiet
from rollout.bundle.schema import Arrays
from rollout.bundle.task import Scores
from rollout.errors import BundleError

if TYPE_CHECKING:
    from rollout.bundle.source import Source

CALIBRATION_BATCH = 32
# Quantizing keeps what every layer gives for them in memory at once.
CALIBRATION_ROWS = 1024
# Rows of free lengths are padded to the longest of them: of long ones fewer are taken.
CALIBRATION_BYTES = 4 * 1024 * 1024
QUANTIZED = ["Conv", "MatMul", "Gemm"]
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Variant(ABC):
    """One executable form of a bundle.

    Args:
        path: Its file.
        threads: Threads that one batch may use.
        device: ``cpu`` or ``cuda``, one of ``devices()``.

    Raises:
        BundleError: If what it needs is not installed or the device cannot be used.
    """

    name: ClassVar[str]
    file: ClassVar[str]
    # Whether it computes in the source's precision, and so may flip no decision at all.
    is_exact: ClassVar[bool] = True
    # Whether a worker may load it.
    is_served: ClassVar[bool] = True
    needs_torch: ClassVar[bool] = False
    # Whether loading it can do more than compute: write files, or unpickle.
    can_run_code: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def export(cls, source: Source, calibration: Arrays, folder: Path) -> None:
        """Writes ``folder / file``.

        Args:
            source: What to export.
            calibration: Rows to calibrate a quantization on.
            folder: The bundle; variants further up in the table may be in it already.
        """

    @classmethod
    @abstractmethod
    def devices(cls) -> list[str]:
        """Returns the devices that it can use here: ``cpu``, and ``cuda`` where there is a GPU for it."""

    @abstractmethod
    def __init__(self, path: Path, threads: int = 1, device: str = "cpu") -> None: ...

    @abstractmethod
    def run(self, inputs: Arrays) -> Scores:
        """Scores a batch; on a GPU this takes it there and brings the scores back.

        Args:
            inputs: For each field an array of shape ``(rows, *field.shape)``, or a ragged column.

        Returns:
            ``float32`` of shape ``(rows, task.outputs)``.
        """


class Onnx(Variant):
    """ONNX in single precision, for onnxruntime; the inputs carry the names of the fields."""

    name = "onnx"
    file = "onnx/model.onnx"
    can_run_code = False  # onnxruntime takes external data from within the model's folder only

    @classmethod
    def export(cls, source: Source, calibration: Arrays, folder: Path) -> None:
        with quiet():
            source.write_onnx(folder / cls.file)

    @classmethod
    def devices(cls) -> list[str]:
        available = onnxruntime.get_available_providers()
        return [device for device, provider in PROVIDERS.items() if provider in available]

    def __init__(self, path: Path, threads: int = 1, device: str = "cpu") -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        provider = PROVIDERS[device]
        self._session = onnxruntime.InferenceSession(path, options, providers=[provider])
        if provider not in self._session.get_providers():  # it falls back on the processor and says nothing
            raise BundleError(f"onnxruntime cannot use {device} here")
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> Scores:
        scores: Scores = self._session.run(self._outputs, arguments(inputs))[0]
        return scores


class OnnxInt8(Onnx):
    """ONNX with convolutions and matrix products in 8 bits: static, per channel, calibrated.

    Those with constants, such as the waves of a spectrum, stay in single precision: nothing was trained to make
    up for what they would lose.
    """

    name = "onnx-int8"
    file = "onnx-int8/model.onnx"
    is_exact = False

    @classmethod
    def export(cls, source: Source, calibration: Arrays, folder: Path) -> None:
        import onnx  # noqa: PLC0415
        from onnxruntime import quantization  # noqa: PLC0415
        from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

        if not (folder / Onnx.file).exists():
            raise BundleError("there is no onnx variant to quantize")
        prepared = folder / "onnx-int8" / "prepared.onnx"
        with quiet():
            quant_pre_process(folder / Onnx.file, prepared, skip_symbolic_shape=True)
            nodes = [node for node in onnx.load(prepared).graph.node if node.op_type in QUANTIZED]
            constant = [node.name for node in nodes if not source.constants.isdisjoint(node.input)]
            if len(constant) == len(nodes):
                prepared.unlink()
                raise BundleError("it has no convolution and no matrix product to quantize")
            quantization.quantize_static(
                prepared,
                folder / cls.file,
                _Batches(calibration),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=QUANTIZED,
                nodes_to_exclude=constant,
                per_channel=True,
                # One freak value would coarsen every other: the range covers all but 0.001 % of them.
                calibrate_method=quantization.CalibrationMethod.Percentile,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                # What a layer gives stays in single precision; what the next one takes is rounded once.
                extra_options={"OpTypesToExcludeOutputQuantization": QUANTIZED},
            )
        prepared.unlink()


class TorchScript(Variant):
    """Frozen TorchScript, for callers in C++. It can write files: ``torch.from_file`` is an operator of it."""

    name = "torchscript"
    needs_torch = True
    file = "torchscript/model.pt"

    @classmethod
    def export(cls, source: Source, calibration: Arrays, folder: Path) -> None:
        with quiet():
            source.write_torchscript(folder / cls.file)

    @classmethod
    def devices(cls) -> list[str]:
        return ["cpu", "cuda"] if gpu_name() else ["cpu"]

    def __init__(self, path: Path, threads: int = 1, device: str = "cpu") -> None:
        self._torch = _import_torch(self.name)
        self._torch.set_num_threads(threads)
        self._device = device
        with quiet():
            self._module = self._load(path)

    def _load(self, path: Path) -> Any:
        return self._torch.jit.load(str(path), map_location=self._device)

    def run(self, inputs: Arrays) -> Scores:
        with self._torch.inference_mode():
            # A decoded image can be a read-only view of the request, which torch would warn about.
            tensors = (self._torch.tensor(array, device=self._device) for array in arguments(inputs).values())
            scores: Scores = self._module(*tensors).cpu().numpy()
            return scores


class Export(TorchScript):
    """``torch.export``, what comes after TorchScript. Loading one can unpickle, so no worker does."""

    name = "export"
    file = "export/model.pt2"
    is_served = False

    @classmethod
    def export(cls, source: Source, calibration: Arrays, folder: Path) -> None:
        with quiet():
            source.write_export(folder / cls.file)

    def _load(self, path: Path) -> Any:
        program = self._torch.export.load(path)
        if self._device != "cpu":
            from torch.export.passes import move_to_device_pass  # noqa: PLC0415

            program = move_to_device_pass(program, self._device)
        return program.module()


VARIANTS: dict[str, type[Variant]] = {kind.name: kind for kind in (Onnx, OnnxInt8, TorchScript, Export)}


class _Batches:
    """Feeds rows from all over the calibration part to onnxruntime's quantizer, in batches of one shape."""

    def __init__(self, arrays: Arrays) -> None:
        longest = int(sizes(arrays).sum(1).max())
        rows = min(count(arrays), CALIBRATION_ROWS, max(CALIBRATION_BATCH, CALIBRATION_BYTES // (longest or 1)))
        picked = np.unique(np.linspace(0, count(arrays) - 1, rows).astype(int))
        arrays = arguments(take(arrays, picked))
        picked = np.arange(len(picked))
        self._batches = iter(
            take(arrays, picked[start : start + CALIBRATION_BATCH])
            for start in range(0, max(len(picked) - CALIBRATION_BATCH, 0) + 1, CALIBRATION_BATCH)
        )

    def get_next(self) -> Arrays | None:
        return next(self._batches, None)


def _import_torch(variant: str) -> Any:
    try:
        import torch  # noqa: PLC0415  a worker that serves ONNX does without torch
    except ImportError:
        raise BundleError(
            f"the {variant} variant needs torch, which is not installed: pip install 'rollout[pack]', or serve "
            "with the image `torch`"
        ) from None
    return torch
