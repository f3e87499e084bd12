"""A source that is an ONNX graph, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from rollout.bundle.columns import NO_WIDTHS, arguments
from rollout.bundle.faults import ASKED_AGAIN, NOISE
from rollout.bundle.fields import Field, with_lengths
from rollout.bundle.module import first_line
from rollout.bundle.onnx_graph import (
    Answer,
    Form,
    answering,
    as_logits,
    find_answers,
    form_of,
    giving,
    scoring,
    take_fields,
)
from rollout.bundle.parity import count, run_in_batches, take
from rollout.bundle.schema import Arrays
from rollout.bundle.source import Source
from rollout.bundle.variants import Precision
from rollout.errors import BundleError
from rollout.heads import Head, Scores
from rollout.heads.parts import leaves

NO_MODULE = "there is no PyTorch module that it could be made of: {} is served as ONNX"
MOST_BYTES = 2**31 - 1


class OnnxSource(Source):
    """An ONNX graph, with the fields as its inputs and logits or values as its output.

    Args:
        model: The graph as it was given.
        task: What it answers.
        fields: The input schema.
        rows: All rows that there are: they tell whether it answers with probabilities.
        classes: What it calls its classes, in the order of its columns, if the graph does not say so itself.

    Raises:
        BundleError: If the graph cannot be run, takes a fixed number of rows, does not take the fields or give
            what the task says, calls its classes otherwise, or answers differently when it is asked twice.
    """

    called = "an ONNX graph"

    def __init__(
        self,
        model: onnx.ModelProto,
        task: Head,
        fields: Mapping[str, Field],
        rows: Arrays,
        classes: Sequence[Any] | None = None,
    ) -> None:
        if model.ByteSize() > MOST_BYTES:
            raise BundleError(
                f"the graph has {model.ByteSize():,} bytes with its weights; at most 2 GiB can be taken"
            )
        self.task = task
        self.example = take(rows, slice(0, 2))
        taken = take_fields(model, with_lengths(fields))
        answers = find_answers(taken, task)
        form: Form = "as it is"
        self.given, self._order = [], None
        for answer, part in zip(answers, leaves(task.parts), strict=True):
            given = run_in_batches(_Session(giving(taken, answer)).run, rows)
            if not part.fits(given.shape[1:]) or len(given) != count(rows):
                raise BundleError(
                    f"the graph gives outputs of shape {given.shape} for {count(rows)} rows; {task.needs}"
                )
            self.given.append(given.shape[1:])
            if len(answers) == 1:
                form = form_of(answer, task, given)
                self._order = order_of_labels(answer.classes if classes is None else classes, task)
        self._graph = answering(taken, answers, leaves(task.parts), self.given, form, self._order)
        self._session = _Session(self._graph)
        outputs = self.outputs(self.example)
        again = [self.outputs(self.example) for _ in range(ASKED_AGAIN)]
        if not all(np.array_equal(outputs, each, equal_nan=True) for each in again):
            raise BundleError(
                "the graph gives different answers to the same input: is there a random number in it, or a "
                "dropout that was exported in training mode?"
            )

    def outputs(self, inputs: Arrays) -> NDArray[np.float32]:
        """Returns the outputs of the head, shape ``(rows, task.width)``."""
        return self._session.run(inputs)

    def to_outputs(self, given: NDArray[np.float32]) -> NDArray[np.float32]:
        """Makes outputs of what the graph itself gives, of probabilities too, in the order of the labels."""
        form = form_of(Answer(""), self.task, given) if len(self.given) == 1 else "as it is"
        outputs = super().to_outputs(given) if form == "as it is" else as_logits(given, form)
        return outputs if self._order is None else outputs[:, self._order]

    def scores(self, outputs: NDArray[np.float32]) -> Scores:
        """Applies the last step, which is NumPy's, not that of the graph which is written."""
        return self.task.scores(outputs)

    def batch_dependent_layer(self, inputs: Arrays) -> str:
        """Names the graph: which node it is cannot be told from outside."""
        return "the graph"

    def padding_dependent_layer(self, inputs: Arrays, least: Mapping[str, int]) -> str | None:
        """Names the graph, if it is so."""
        near, far = self._session.run(inputs), self._session.run(inputs, least)
        return None if np.allclose(near, far, NOISE, NOISE, equal_nan=True) else "the graph"

    def write_onnx(self, path: Path) -> None:
        """Writes the graph with the last step on it."""
        onnx.save(scoring(self._graph, self.task), path)

    def write_torchscript(self, path: Path, precision: Precision = "float32") -> None:
        """Refuses."""
        raise BundleError(NO_MODULE.format(self.called))

    def write_export(self, path: Path) -> None:
        """Refuses."""
        raise BundleError(NO_MODULE.format(self.called))


def order_of_labels(classes: Sequence[Any] | None, task: Head) -> list[int] | None:
    """Returns for each label of a task the column of it, or ``None`` where they are in the same order.

    Classes that are texts must be the labels. Numbers stand for the labels in their order, unless they are them.

    Raises:
        BundleError: If classes and labels do not fit.
    """
    if classes is None or not task.classes:
        return None
    names = [str(each) for each in classes]
    if set(names) == set(task.classes):
        order = [names.index(label) for label in task.classes]
        return None if order == list(range(len(order))) else order
    if len(names) != len(task.classes) or any(isinstance(each, str) for each in classes):
        raise BundleError(
            f"its classes are {', '.join(names)} and the labels of the task are {', '.join(task.classes)}: give "
            "the labels their names"
        )
    return None


class _Session:
    """A graph in memory, run on one thread: as exactly as can be, not as fast."""

    def __init__(self, model: onnx.ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise BundleError(f"onnxruntime cannot load the graph: {first_line(error)}") from error

    def run(self, inputs: Arrays, least: Mapping[str, int] = NO_WIDTHS) -> NDArray[np.float32]:
        try:
            outputs: NDArray[np.float32] = self._session.run(["outputs"], arguments(inputs, least))[0]
        except Exception as error:
            raise BundleError(f"the graph cannot take its fields: {first_line(error)}") from error
        return outputs
