"""Quantizing an ONNX graph: convolutions and matrix products in 8 bits, with ranges from real rows."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from rollout.bundle.columns import arguments, sizes
from rollout.bundle.parity import count, take
from rollout.bundle.schema import Arrays
from rollout.errors import BundleError

BATCH = 32
MOST_ROWS = 1024
# Rows of free lengths are padded to the longest of them: of long ones fewer are taken.
INPUT_BYTES = 4 * 1024 * 1024
# What layers take and give for rows whose ranges are found together, all of it in memory; and for all rows.
HELD_BYTES = 256 * 1024 * 1024
SEEN_BYTES = 4 * 1024 * 1024 * 1024
QUANTIZED = ["Conv", "MatMul", "Gemm"]


def quantize(path: Path, to: Path, calibration: Arrays, constants: Collection[str]) -> None:
    """Writes a graph in 8 bits: static, per channel.

    Args:
        path: The graph in single precision.
        to: Where to; files that are made on the way lie beside it.
        calibration: Rows to find the ranges of activations on.
        constants: Numbers in the graph that nobody trained: what they are multiplied with stays as it is.

    Raises:
        BundleError: If there is nothing to quantize.
    """
    prepared = to.with_name("prepared.onnx")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    graph = onnx.load(prepared).graph
    nodes = [node for node in graph.node if node.op_type in QUANTIZED]
    constant = [node.name for node in nodes if not set(constants).isdisjoint(node.input)]
    if len(constant) == len(nodes):
        prepared.unlink()
        raise BundleError("it has no convolution and no matrix product to quantize")
    quantization.quantize_static(
        prepared,
        to,
        _Batches(calibration, _bytes_a_row(graph)),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=QUANTIZED,
        nodes_to_exclude=constant,
        per_channel=True,
        # One freak value would coarsen every other: the range covers all but 0.001 % of them.
        calibrate_method=quantization.CalibrationMethod.Percentile,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        extra_options={
            # What a layer gives stays in single precision; what the next one takes is rounded once.
            "OpTypesToExcludeOutputQuantization": QUANTIZED,
            "CalibStridedMinMax": 1,  # also of percentiles: one group of batches at a time
        },
    )
    prepared.unlink()


def _bytes_a_row(graph: onnx.GraphProto) -> int:
    """Returns the bytes of what the layers to quantize take and give for a row, where the graph says shapes."""
    wanted = {name for node in graph.node if node.op_type in QUANTIZED for name in (*node.input, *node.output)}
    wanted -= {weight.name for weight in graph.initializer}
    shapes = [one.type.tensor_type.shape.dim for one in graph.value_info if one.name in wanted]
    return sum(4 * math.prod(dimension.dim_value or 1 for dimension in shape) for shape in shapes)


class _Batches:
    """Feeds rows from all over the calibration part to the quantizer, in batches of one shape.

    Batches whose activations may be in memory together are a group.
    """

    def __init__(self, arrays: Arrays, bytes_a_row: int) -> None:
        longest = int(sizes(arrays).sum(1).max())
        each = max(bytes_a_row, 1)
        most = min(MOST_ROWS, max(BATCH, INPUT_BYTES // (longest or 1)), max(BATCH, SEEN_BYTES // each))
        picked = np.unique(np.linspace(0, count(arrays) - 1, min(count(arrays), most)).astype(int))
        self._rows = arguments(take(arrays, picked))
        self._size = max(1, min(BATCH, len(picked), HELD_BYTES // each))
        self._starts = range(0, len(picked) - self._size + 1, self._size)
        self._in_group = max(1, HELD_BYTES // (each * self._size))
        self._batches = iter(self._starts)

    def __len__(self) -> int:
        return math.ceil(len(self._starts) / self._in_group)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._batches = iter(self._starts[start_index * self._in_group : end_index * self._in_group])

    def get_next(self) -> Arrays | None:
        start = next(self._batches, None)
        return None if start is None else take(self._rows, slice(start, start + self._size))
