"""Surgery on an ONNX graph: the fields go in, and logits, values or scores come out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

from rollout.bundle.fields import Field
from rollout.bundle.fitted_columns import text_columns
from rollout.bundle.texts import Category
from rollout.errors import BundleError
from rollout.heads import Head
from rollout.heads.parts import Part, Shape, named
from rollout.heads.steps import places

# Names of the original graph stand behind this, names of fields are identifiers: they never collide.
PREFIX = "model/"
# The first version of the operators in which a softmax is over one axis.
OPSET = 13
# Probabilities below this count as it before their logarithm is taken: a tree may well say 0.
SMALLEST = 1e-6
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
PASSED_THROUGH = ("Identity", "Cast")

# What skl2onnx has for a text that is missing.
MISSING_TEXT = "nan"

Form = Literal["as it is", "probability", "probabilities"]


class Answer(NamedTuple):
    """Where a graph answers.

    Attributes:
        tensor: The name of the tensor.
        is_cut: Whether a softmax or a sigmoid came after it.
        classes: What the graph itself calls its classes, if it does.
    """

    tensor: str
    is_cut: bool = False
    classes: list[Any] | None = None


def take_fields(model: onnx.ModelProto, fields: Mapping[str, Field]) -> onnx.ModelProto:
    """Returns a copy of a model whose inputs are the fields, each of shape ``(rows, *field.shape)``.

    As many inputs as fields are matched by their names or else by their order. One input takes all fields, as the
    columns of a table; of one field, several inputs take a column each. What is of another dtype is cast.

    Raises:
        BundleError: If an input has a fixed number of rows, or its shape or type does not fit.
    """
    model = _modern(model)
    initialized = {tensor.name for tensor in model.graph.initializer}
    wanted = [each for each in model.graph.input if each.name not in initialized]
    for each in wanted:
        _require_tensor_of_rows(each)
    names = {each.name: f"{PREFIX}{each.name}" for each in wanted}
    model = compose.add_prefix(model, PREFIX)
    entry = _Entry(fields)
    if len(wanted) == len(fields):
        by_name = {each.name for each in wanted} == set(fields)
        for each, name in zip(wanted, fields, strict=True):
            entry.feed(names[each.name], each, each.name if by_name else name)
    elif len(wanted) == 1:
        entry.feed_table(names[wanted[0].name], wanted[0])
    elif len(fields) == 1:
        entry.feed_columns(names, wanted)
    else:
        raise BundleError(
            f"the graph has {len(wanted)} inputs ({', '.join(each.name for each in wanted)}) and there are "
            f"{len(fields)} fields ({', '.join(fields)}): declare one field for each input, in their order"
        )
    nodes = [*entry.nodes, *model.graph.node]
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(entry.constants)
    model.graph.ClearField("input")
    model.graph.input.extend(
        helper.make_tensor_value_info(name, _element_type(field), ["rows", *field.shape])
        for name, field in fields.items()
    )
    return model


def find_answers(model: onnx.ModelProto, head: Head) -> list[Answer]:
    """Finds the tensors that a head is about: before a ZipMap, and before a last activation that it does itself.

    Several are found by their names, or else by their order.

    Raises:
        BundleError: If there are others, or not so many.
    """
    made_by = {output: node for node in model.graph.node for output in node.output}
    candidates = []
    for output in model.graph.output:
        node = made_by.get(output.name)
        if node is not None and node.op_type == "ZipMap":
            candidates.append((output.name, node.input[0], _classes(node)))
        elif output.type.HasField("tensor_type") and output.type.tensor_type.elem_type in FLOATS:
            candidates.append((output.name, output.name, None))
    wanted = [name for name, _ in named(head.parts)]
    by_name = {name.removeprefix(PREFIX): (tensor, classes) for name, tensor, classes in candidates}
    found = [by_name[name] for name in wanted] if set(wanted) <= set(by_name) else [*by_name.values()]
    if len(found) != len(wanted):
        outputs = ", ".join(output.name.removeprefix(PREFIX) for output in model.graph.output)
        raise BundleError(
            f"the graph has the outputs {outputs}, of which {len(candidates)} hold numbers with a fraction; it "
            f"must have {'one' if len(wanted) == 1 else len(wanted)}: {head.needs}"
        )
    return [_answer(_maker(made_by, tensor), tensor, classes, head) for tensor, classes in found]


def _answer(last: onnx.NodeProto | None, tensor: str, classes: list[Any] | None, head: Head) -> Answer:
    if last is None or not head.activation:
        return Answer(tensor, classes=classes)
    if last.op_type in ("Softmax", "Sigmoid"):
        return Answer(last.input[0], is_cut=True, classes=classes)
    return Answer(tensor, classes=classes or _classes(last))


def form_of(answer: Answer, head: Head, outputs: NDArray[Any]) -> Form:
    """Says what a graph answers with, from what it gave for all rows that there are.

    Rows that each sum to 1 are probabilities: rows of logits do so by chance only. One column is about the second
    of two labels.
    """
    if not head.classes:
        return "as it is"
    if outputs.shape[1:] in ((), (1,)) and head.outputs == 2:
        is_probability = not answer.is_cut and ((outputs >= 0) & (outputs <= 1)).all()
        return "probability" if is_probability else "as it is"
    # Sums in single precision may leave a forest a little below 0.
    sums_to_1 = outputs.ndim == 2 and (outputs > -SMALLEST).all() and np.allclose(outputs.sum(-1), 1, atol=1e-3)
    return "probabilities" if sums_to_1 and not answer.is_cut else "as it is"


def giving(model: onnx.ModelProto, answer: Answer) -> onnx.ModelProto:
    """Returns a copy whose one output, ``outputs``, is what it answers with, ``float32``."""
    tail = _Tail(f"{PREFIX}answer")
    return tail.put_on(model, tail.add("Cast", answer.tensor, to=TensorProto.FLOAT), "outputs", None)


def answering(
    model: onnx.ModelProto,
    answers: Sequence[Answer],
    parts: Sequence[Part],
    given: Sequence[Shape],
    form: Form = "as it is",
    order: list[int] | None = None,
) -> onnx.ModelProto:
    """Returns a copy whose one output, ``outputs``, is that of a head, ``float32`` of shape ``(rows, width)``.

    Args:
        model: The model.
        answers: Where it answers, for each part.
        parts: The parts of the head.
        given: What shape it gives for each, of one row.
        form: With what, where it is one part; probabilities become their logarithms, from ``SMALLEST`` on.
        order: For each label the column of it, if that is not the order of the labels.
    """
    tail = _Tail(f"{PREFIX}answer")
    columns = []
    for answer, part, shape in zip(answers, parts, given, strict=True):
        tensor = tail.add("Cast", answer.tensor, to=TensorProto.FLOAT)
        if shape == part.shape or not part.alone:
            columns.append(tail.add("Reshape", tensor, np.array([-1, part.width])))
            continue
        one = tail.add("Reshape", tensor, np.array([-1, 1]))
        if form == "probability":
            columns += [tail.add("Sub", np.float32(1), one), one]
            continue
        for number in part.alone:
            columns.append(
                one
                if number is None
                else tail.add("Expand", np.full((1, 1), number, np.float32), tail.add("Shape", one))
            )
    table = columns[0] if len(columns) == 1 else tail.add("Concat", *columns, axis=1)
    if form != "as it is":
        table = tail.add("Log", tail.add("Clip", table, np.float32(SMALLEST), np.float32(1)))
    if order is not None:
        table = tail.add("Gather", table, np.array(order), axis=1)
    return tail.put_on(model, table, "outputs", None)


def as_logits(given: NDArray[np.float32], form: Form) -> NDArray[np.float32]:
    """Makes logits of probabilities that a graph gave, as the nodes do that ``answering`` adds."""
    if form == "as it is":
        return given
    if form == "probability":
        column = given.reshape(-1, 1)
        given = np.concatenate([1 - column, column], axis=1)
    return np.log(np.clip(given, SMALLEST, 1)).astype(np.float32)


def scoring(model: onnx.ModelProto, head: Head) -> onnx.ModelProto:
    """Returns a copy of a model that answers with ``outputs``, with the last step on it and ``scores`` instead.

    Args:
        model: The model.
        head: What it answers, calibrated.
    """
    tail = _Tail(f"{PREFIX}scores")
    done = []
    for step, own in places(head.last_step):
        columns = "outputs"
        if step.columns != head.width:
            columns = tail.add("Slice", columns, np.array([own.start]), np.array([own.stop]), np.array([1]))
        if step.scale != 1:
            columns = tail.add("Mul", columns, np.array(step.scale, np.float32))
        if step.shift != 0:
            columns = tail.add("Add", columns, np.array(step.shift, np.float32))
        if step.then == "sigmoid":
            columns = tail.add("Sigmoid", columns)
        elif step.then == "softmax":
            apart = tail.add("Reshape", columns, np.array([-1, step.columns // step.classes, step.classes]))
            columns = tail.add("Reshape", tail.add("Softmax", apart, axis=-1), np.array([-1, step.columns]))
        done.append(columns)
    scores = done[0] if len(done) == 1 else tail.add("Concat", *done, axis=1)
    return tail.put_on(model, scores, "scores", head.outputs)


class _Nodes:
    """Nodes that are put before or behind a graph."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._prefix = prefix

    def add(self, kind: str, *inputs: Any, output: str | None = None, **attributes: Any) -> str:
        """Adds a node; an input that is no name is a constant. Returns the name of the output."""
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        made = output or f"{self._prefix}/{kind}{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, names, [made], f"{self._prefix}/node{len(self.nodes)}", **attributes)
        )
        return made

    def _constant(self, value: Any) -> str:
        name = f"{self._prefix}/constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name


class _Entry(_Nodes):
    """From the fields to the inputs of the original graph."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        super().__init__(f"{PREFIX}entry")
        self._fields = fields

    def feed(self, to: str, wanted: onnx.ValueInfoProto, name: str) -> None:
        """Gives one field to one input."""
        field, dimensions = self._fields[name], _dimensions(wanted)[1:]
        if isinstance(field, Category) and _takes_texts(wanted):
            self.add("Reshape", self._texts_of(name, field), np.array([-1, *(1 for _ in dimensions)]), output=to)
            return
        self._require_type(wanted, name)
        tensor = name
        if len(dimensions) == len(field.shape):
            fits = all(size in (None, own) for size, own in zip(dimensions, field.shape, strict=True))
        else:  # a number a row may be wanted as a column
            sizes = [size for size in dimensions if size is not None]
            fits = len(sizes) == len(dimensions) and math.prod(sizes) == math.prod(field.step_shape)
            tensor = self.add("Reshape", tensor, np.array([-1, *dimensions])) if fits else tensor
        if not fits:
            raise BundleError(
                f"the field {name} has rows of shape {field.shape}; the graph's {wanted.name} takes "
                f"({', '.join('any' if size is None else str(size) for size in dimensions)})"
            )
        self._cast(tensor, to, wanted)

    def feed_table(self, to: str, wanted: onnx.ValueInfoProto) -> None:
        """Gives all fields to one input, as the columns of a table."""
        width = len([each for field in self._fields.values() for each in text_columns(field)])
        if _dimensions(wanted)[1:] not in ([width], [None]):
            raise BundleError(
                f"the fields have {width} numbers a row together; the graph's {wanted.name} takes rows of "
                f"{_dimensions(wanted)[1:]}"
            )
        if _takes_texts(wanted):
            columns = [
                self._texts_of(name, field) for name, field in self._fields.items() if isinstance(field, Category)
            ]
            if len(columns) == width:
                self.add("Concat", *columns, output=to, axis=1)
                return
        for name in self._fields:
            self._require_type(wanted, name)
        element = wanted.type.tensor_type.elem_type
        columns = [
            self.add("Reshape", self.add("Cast", name, to=element), np.array([-1, math.prod(field.step_shape)]))
            for name, field in self._fields.items()
        ]
        self.add("Concat", *columns, output=to, axis=1)

    def feed_columns(self, to: Mapping[str, str], wanted: list[onnx.ValueInfoProto]) -> None:
        """Gives each column of the one field to an input."""
        ((name, field),) = self._fields.items()
        if field.shape != (len(wanted),):
            raise BundleError(
                f"the graph has {len(wanted)} inputs; the field {name} has rows of shape {field.shape}"
            )
        for index, (each, values) in enumerate(zip(wanted, text_columns(field), strict=True)):
            column = self.add("Gather", name, np.array([index]), axis=1)
            if values is not None and _takes_texts(each):
                code = self.add("Where", self.add("IsNaN", column), np.float32(len(values)), column)
                self._texts_at(self.add("Cast", code, to=TensorProto.INT64), values, to[each.name])
                continue
            self._require_type(each, name)
            self._cast(column, to[each.name], each)

    def _texts_of(self, name: str, field: Category) -> str:
        """Makes texts of the bytes of a category, shape ``(rows, 1)``: the value whose bytes these are."""
        known = np.stack([*map(field.decode_value, field.values), field.nothing]).astype(np.int32)
        rows = self.add("Unsqueeze", self.add("Cast", name, to=TensorProto.INT32), np.array([1]))
        apart = self.add("ReduceSum", self.add("Abs", self.add("Sub", rows, known)), np.array([2]), keepdims=0)
        return self._texts_at(self.add("ArgMin", apart, axis=1, keepdims=1), field.values)

    def _texts_at(self, index: str, values: Sequence[str], to: str | None = None) -> str:
        return self.add("Gather", np.array([*values, MISSING_TEXT], object), index, output=to)

    def _cast(self, tensor: str, to: str, wanted: onnx.ValueInfoProto) -> None:
        self.add("Cast", tensor, output=to, to=wanted.type.tensor_type.elem_type)

    def _require_type(self, wanted: onnx.ValueInfoProto, name: str) -> None:
        element = wanted.type.tensor_type.elem_type
        if _takes_texts(wanted):
            raise BundleError(
                f"the graph's {wanted.name} takes strings, and {name} is none: declare a Category, or export the "
                "graph without the step that takes strings and give it what that step gives"
            )
        if element not in FLOATS and self._fields[name].dtype == "float32":
            raise BundleError(
                f"the graph's {wanted.name} takes {_called(element)}, and {name} is a field of float32, whose "
                'fractions would be lost: declare Tensor(dtype="int64")'
            )


class _Tail(_Nodes):
    """From what a graph gives to what is wanted."""

    def put_on(self, model: onnx.ModelProto, tensor: str, name: str, columns: int | None) -> onnx.ModelProto:
        """Returns a copy of a model with these nodes behind it, and the one output ``name``."""
        result = onnx.ModelProto()
        result.CopyFrom(model)
        self.add("Identity", tensor, output=name)
        zipped = [node for node in result.graph.node if node.op_type == "ZipMap"]
        for node in zipped:  # onnxruntime would make a dictionary of each row
            result.graph.node.remove(node)
        result.graph.node.extend(self.nodes)
        result.graph.initializer.extend(self.constants)
        result.graph.ClearField("output")
        shape: list[str | int | None] | None = None if columns is None else ["rows", columns]
        result.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return result


def _modern(model: onnx.ModelProto) -> onnx.ModelProto:
    opsets = {each.domain: each.version for each in model.opset_import}
    version = opsets.get("", opsets.get("ai.onnx"))
    if version is None:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        copy.opset_import.append(helper.make_opsetid("", OPSET))
        return copy
    if version >= OPSET:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as error:
        raise BundleError(
            f"the graph is of opset {version} and cannot be brought to {OPSET}: export it again with "
            f"opset_version={OPSET} or later ({error})"
        ) from error


def _require_tensor_of_rows(wanted: onnx.ValueInfoProto) -> None:
    if not wanted.type.HasField("tensor_type"):
        raise BundleError(f"the graph's {wanted.name} is no tensor")
    dimensions = _dimensions(wanted)
    if not dimensions:
        raise BundleError(f"the graph's {wanted.name} has no dimension for the rows")
    if (rows := dimensions[0]) is not None:
        raise BundleError(
            f"the graph's {wanted.name} takes {rows} row{'s' * (rows != 1)} and no other number: export it with "
            'a dynamic first dimension, torch.onnx.export(..., dynamic_shapes=({0: "rows"},), dynamo=True)'
        )


def _dimensions(info: onnx.ValueInfoProto) -> list[int | None]:
    sizes = info.type.tensor_type.shape.dim
    return [size.dim_value if size.HasField("dim_value") else None for size in sizes]


def _takes_texts(info: onnx.ValueInfoProto) -> bool:
    return bool(info.type.tensor_type.elem_type == TensorProto.STRING)


def _element_type(field: Field) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(field.dtype)))


def _called(element: int) -> str:
    return str(helper.tensor_dtype_to_np_dtype(element))


def _maker(made_by: Mapping[str, onnx.NodeProto], tensor: str) -> onnx.NodeProto | None:
    node = made_by.get(tensor)
    while node is not None and node.op_type in PASSED_THROUGH:
        node = made_by.get(node.input[0])
    return node


def _classes(node: onnx.NodeProto) -> list[Any] | None:
    for attribute in node.attribute:
        if attribute.name.startswith("classlabels_"):
            value = helper.get_attribute_value(attribute)
            return [each.decode() if isinstance(each, bytes) else each for each in value] or None
    return None
