"""Which layer is at fault: in training mode, changing what it should not, or minding the rest of its batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from rollout.bundle.capture import explain
from rollout.bundle.module import called, named_layers, tensors_of
from rollout.errors import BundleError
from rollout.heads import Head

NOISE = 1e-3
# A dropout over few values may well do the same twice.
ASKED_AGAIN = 4

Inputs = tuple[torch.Tensor, ...]
Outputs = dict[str, list[torch.Tensor]]


def require_eval(module: torch.nn.Module) -> None:
    """Refuses a module with a layer in training mode.

    Raises:
        BundleError: If there is one; the sentence names it.
    """
    training = {name: layer for name, layer in module.named_modules() if getattr(layer, "training", False)}
    if training:
        leaf = next(
            (name for name, layer in training.items() if not list(layer.children())), next(iter(training))
        )
        raise BundleError(
            f"{called(module, leaf)} is in training mode: call module.eval() before packing; if it stays so "
            "afterwards, the layer ignores eval()"
        )


def require_repeatable(module: torch.nn.Module, inputs: Inputs, head: Head) -> None:
    """Refuses a module that changes its inputs or its buffers, or answers differently when it is asked twice.

    Args:
        module: It.
        inputs: A batch for it.
        head: What it answers.

    Raises:
        BundleError: If so, if it cannot take its own fields, or if it returns other tensors than the head needs.
    """
    before = {name: tensor.clone() for name, tensor in _state(module).items()}
    given = tuple(tensor.clone() for tensor in inputs)
    try:
        with torch.no_grad():
            returned = module(*given)
    except Exception as error:
        raise BundleError(
            f"the module cannot take its own fields: {explain(error)}{_precision(module)}"
        ) from error
    if not all(map(_same, inputs, given)):
        raise BundleError(
            f"{_changer(module, inputs)} changes the tensor that it is given: let it work on a new one, such as "
            "x = x + 1 in the place of x += 1, or on x.clone()"
        )
    tensors_of(returned, head)
    for name, tensor in _state(module).items():
        if not _same(before[name], tensor):
            layer, _, buffer = name.rpartition(".")
            raise BundleError(
                f"{called(module, layer)} changes its {buffer} when it is called: a prediction would depend on "
                "those before it"
            )
    first, *again = (layer_outputs(module, inputs) for _ in range(1 + ASKED_AGAIN))
    for name, tensors in first.items():
        if not all(_all_same(tensors, outputs.get(name, [])) for outputs in again):
            raise BundleError(
                f"{called(module, name)} gives different answers to the same input: is there a dropout or a "
                "random number in its forward?"
            )


def batch_dependent_layer(module: torch.nn.Module, inputs: Inputs) -> str:
    """Names the first layer whose output for the first row depends on the other rows of the batch."""
    together = layer_outputs(module, inputs)
    alone = layer_outputs(module, tuple(tensor[:1] for tensor in inputs))
    for name, outputs in together.items():
        pairs = zip(outputs, alone.get(name, []), strict=False)
        if any(_minds_company(output, single) for output, single in pairs):
            return called(module, name)
    return called(module, "")


def padding_dependent_layer(module: torch.nn.Module, near: Inputs, far: Inputs) -> str | None:
    """Names the first layer that answers otherwise when the same rows are padded further, if the module does.

    Of what a layer gives for each step, only those are compared that are there without the further padding.
    """
    before, after = layer_outputs(module, near), layer_outputs(module, far)
    if all(map(_alike, before[""], after[""])):
        return None
    for name, outputs in before.items():
        if not all(
            _alike(one, _corner(other, one)) for one, other in zip(outputs, after.get(name, []), strict=False)
        ):
            return called(module, name)
    return called(module, "")


def layer_outputs(module: torch.nn.Module, inputs: Inputs) -> Outputs:
    """Runs the module; returns the tensors that each layer gave, innermost first, the module itself ("") last."""
    outputs: Outputs = {}

    def keep(name: str, output: object) -> None:
        outputs[name] = [tensor.detach().clone() for tensor in _tensors(output)]

    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output, name=name: keep(name, output))
        for name, layer in named_layers(module).items()
        if name
    ]
    try:
        with torch.no_grad():
            keep("", module(*inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def _changer(module: torch.nn.Module, inputs: Inputs) -> str:
    """Names the layer in whose own forward the inputs changed: the innermost that had begun and not ended."""
    given = tuple(tensor.clone() for tensor in inputs)
    running = [""]
    found: list[str] = []

    def look() -> None:
        if not found and not all(map(_same, inputs, given)):
            found.append(running[-1])

    def begin(name: str) -> None:
        look()
        running.append(name)

    def end() -> None:
        look()
        running.pop()

    layers = [(name, layer) for name, layer in named_layers(module).items() if name]
    hooks = [layer.register_forward_pre_hook(lambda *_, name=name: begin(name)) for name, layer in layers]
    hooks += [layer.register_forward_hook(lambda *_: end()) for _, layer in layers]
    try:
        with torch.no_grad():
            module(*given)
    finally:
        for hook in hooks:
            hook.remove()
    return called(module, found[0] if found else "")


def _tensors(output: object) -> list[torch.Tensor]:
    """Returns the tensors in what a layer gave, in order; whatever else is in it is passed over."""
    if isinstance(output, torch.Tensor):
        if output.is_nested:
            return list(output.unbind())
        return [output.dequantize() if output.is_quantized else output.to_dense()]
    if isinstance(output, PackedSequence):
        return [pad_packed_sequence(output)[0]]
    if isinstance(output, Mapping):
        entries = list(output.values())
    elif isinstance(output, list | tuple):
        entries = list(output)
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        entries = [getattr(output, field.name) for field in dataclasses.fields(output)]
    else:
        entries = []
    return [tensor for entry in entries for tensor in _tensors(entry)]


def _minds_company(together: torch.Tensor, alone: torch.Tensor) -> bool:
    """Whether the part of an output that belongs to the first row differs from what it gave for that row alone.

    The rows lie along the one dimension that is longer in company. Where several differ, as in a layer that pads
    to the longest row, nothing can be said about this layer.
    """
    if together.dim() != alone.dim():
        return False
    longer = [at for at in range(alone.dim()) if together.shape[at] != alone.shape[at]]
    if len(longer) > 1 or any(together.shape[at] < alone.shape[at] for at in longer):
        return False
    return not _alike(together.narrow(longer[0], 0, alone.shape[longer[0]]) if longer else together, alone)


def _corner(output: torch.Tensor, smaller: torch.Tensor) -> torch.Tensor:
    """Returns the first elements of an output along every dimension, as many as a smaller one has."""
    return output[tuple(slice(size) for size in smaller.shape)] if output.dim() == smaller.dim() else output


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two outputs are the same but for noise."""
    if one.shape != other.shape or not one.is_floating_point() or not other.is_floating_point():
        return torch.equal(one, other)
    return torch.allclose(one.float(), other.float(), rtol=NOISE, atol=NOISE, equal_nan=True)


def _precision(module: torch.nn.Module) -> str:
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            layer = called(module, name.rpartition(".")[0])
            holds = str(parameter.dtype).removeprefix("torch.")
            return f"; {layer} holds {holds}, and fields are float32: call module.float() before packing"
    return ""


def _state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _all_same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(map(_same, first, second))


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.is_quantized:
        return torch.equal(first, second)
    return torch.equal(first, second) or torch.equal(first.nan_to_num(), second.nan_to_num())
