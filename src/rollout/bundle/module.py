"""The module as it is packed: a copy on the processor, its wrappers off, and the tensors that it returns."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn.utils import parametrize, remove_weight_norm
from torch.nn.utils.weight_norm import WeightNorm

from rollout.bundle.quiet import quiet
from rollout.errors import BundleError
from rollout.heads import Head
from rollout.heads.parts import Part, Parts, leaves
from rollout.heads.steps import Step, places


def own_copy(module: torch.nn.Module) -> torch.nn.Module:
    """Copies a module to the processor.

    What ``torch.compile`` and ``DataParallel`` wrap is taken out of the wrapper, and weights that are computed
    from others at every call (weight norm, parametrizations) become weights.

    Raises:
        BundleError: If it holds weights without values, or something that cannot be copied.
    """
    module = _unwrapped(module)
    for name, layer in module.named_modules():
        own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
        if any(torch.nn.parameter.is_lazy(tensor) for tensor in own):
            raise BundleError(
                f"{called(module, name)} was never called, so its weights have no shape yet: call the module on "
                "a batch, then train it or load its weights"
            )
        if any(tensor.is_meta for tensor in own):
            raise BundleError(f"{called(module, name)} lies on the meta device: its weights have no values")
    try:
        with quiet():  # scripted modules warn of gradients that nobody asked for
            copied = copy.deepcopy(module, _results(module)).cpu()
    except Exception as error:
        raise BundleError(
            f"the module cannot be copied: {first_line(error)}; keep what is neither layer nor tensor, such as "
            "locks, files and sessions, out of its attributes"
        ) from error
    for layer in list(copied.modules()):
        if not isinstance(layer, torch.jit.ScriptModule):
            _simplify(layer)
    return copied


def require_signature(module: torch.nn.Module, fields: Sequence[str]) -> None:
    """Refuses a module whose ``forward`` does not take one argument for each field, in their order.

    Raises:
        BundleError: If so; the sentence names both.
    """
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return
    takes = f"the module's forward takes {signature}"
    given = f"packing calls it with one tensor for each field, in their order: {', '.join(fields)}"
    try:
        signature.bind(*fields)
    except TypeError as error:
        raise BundleError(f"{takes}; {given}: {error}") from None
    names = list(signature.parameters)
    if set(fields) <= set(names) and [name for name in names if name in fields] != list(fields):
        raise BundleError(f"{takes}; {given}: the same names in another order")


def tensors_of(returned: object, head: Head) -> list[torch.Tensor]:
    """Takes the tensors out of what a module returned.

    Args:
        returned: A tensor, or a tuple, mapping or dataclass with a single entry beside ``None``; where there are
            several parts, a mapping or dataclass that has them by name, or a tuple in their order.
        head: What it answers.

    Returns:
        They, in single precision and in the order of the parts.

    Raises:
        BundleError: If it is anything else; the sentence says what, and what is taken.
    """
    return list(_tensors(returned, head.parts, head, ()))


def _tensors(returned: object, parts: Parts, head: Head, path: tuple[str, ...]) -> Iterator[torch.Tensor]:
    if isinstance(parts, Part):
        yield _one_tensor(returned, parts, head.needs_at(path))
        return
    entries = entries_for(returned, parts, head.needs_at(path))
    for name, inside in parts.items():
        yield from _tensors(entries[name], inside, head, (*path, name))


def as_table(tensors: Sequence[torch.Tensor], parts: Parts) -> torch.Tensor:
    """Puts tensors side by side as columns, ``float32`` of shape ``(rows, width)``."""
    columns = []
    for tensor, part in zip(tensors, leaves(parts), strict=True):
        if tuple(tensor.shape[1:]) == part.shape or not part.alone:
            columns.append(tensor.reshape(-1, part.width))
        else:
            one = tensor.reshape(-1, 1)
            columns += [one if number is None else torch.full_like(one, number) for number in part.alone]
    return columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)


class LastStep(torch.nn.Module):
    """What becomes of the columns of the outputs, as a layer.

    Args:
        steps: The steps, one after the other for columns that follow each other.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self._steps = list(places(steps))
        self.training = False
        for at, (step, _) in enumerate(self._steps):
            for name in ("scale", "shift"):
                numbers = torch.tensor(getattr(step, name), dtype=torch.float32).reshape(1, -1)
                self.register_buffer(f"{name}{at}", numbers, persistent=False)

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        """Makes scores of outputs, both of shape ``(rows, columns)``."""
        done = []
        for at, (step, own) in enumerate(self._steps):
            columns = outputs if len(self._steps) == 1 else outputs[:, own]
            if step.scale != 1:
                columns = columns * self.get_buffer(f"scale{at}")
            if step.shift != 0:
                columns = columns + self.get_buffer(f"shift{at}")
            if step.then == "sigmoid":
                columns = torch.sigmoid(columns)
            elif step.then == "softmax" and step.classes == step.columns:
                columns = torch.softmax(columns, dim=-1)
            elif step.then == "softmax":
                apart = columns.reshape(-1, step.columns // step.classes, step.classes)
                columns = torch.softmax(apart, dim=-1).reshape(-1, step.columns)
            done.append(columns)
        return done[0] if len(done) == 1 else torch.cat(done, dim=1)


def _one_tensor(returned: object, part: Part, needs: str) -> torch.Tensor:
    tensor = returned if isinstance(returned, torch.Tensor) else _only_entry(returned, needs)
    if tensor.is_nested or tensor.layout != torch.strided:
        kind = "a nested" if tensor.is_nested else "a sparse"
        raise BundleError(
            f"the module returns {kind} tensor; {needs}: to_padded_tensor() or to_dense() makes one"
        )
    if not tensor.is_floating_point() and not part.takes_integers:
        what = "truth values" if tensor.dtype == torch.bool else f"numbers of type {str(tensor.dtype)[6:]}"
        raise BundleError(
            f"the module returns {what}; {needs}, in floating point: return what was there before a comparison, "
            "an argmax or a rounding"
        )
    return tensor.float()


def named_layers(module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Returns the layers that are in Python, by name; the module itself is named ""."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if not isinstance(layer, torch.jit.ScriptModule)  # it takes no hooks
    }


def called(module: torch.nn.Module, name: str) -> str:
    """Says which layer of ``module`` is meant."""
    layer = dict(module.named_modules())[name]  # get_submodule is nothing that TorchScript has
    kind = getattr(layer, "original_name", type(layer).__name__)
    return f"layer {name} ({kind})" if name else f"the module itself ({kind})"


def first_line(error: Exception) -> str:
    """Returns the first line of what an exception says, or its name."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    while True:
        if isinstance(inside := getattr(module, "_orig_mod", None), torch.nn.Module):  # of torch.compile
            module = inside
        elif isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
            module = module.module
        else:
            return module


def _results(module: torch.nn.Module) -> dict[int, Any]:
    """Returns copies of tensors that layers keep and that were computed, by ID: ``deepcopy`` refuses those."""
    return {
        id(value): value.detach().clone()
        for layer in named_layers(module).values()
        for value in vars(layer).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }


def _simplify(layer: torch.nn.Module) -> None:
    for name, child in list(layer.named_children()):
        if (inside := _unwrapped(child)) is not child:
            setattr(layer, name, inside)
    compiled = getattr(vars(layer).get("forward"), "_torchdynamo_orig_callable", None)
    if isinstance(compiled, types.MethodType):  # it is bound to the layer that was copied
        layer.forward = types.MethodType(compiled.__func__, layer)
    if parametrize.is_parametrized(layer):
        for name in list(layer.parametrizations):  # type: ignore[arg-type]
            parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
    for hook in list(layer._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(layer, hook.name)


def _only_entry(returned: object, needs: str) -> torch.Tensor:
    entries = _entries(returned)
    if entries is None:
        raise BundleError(f"the module returns {_in_words(returned)}; {needs}, as a tensor")
    only = next(iter(entries.values()), None)
    if len(entries) == 1 and isinstance(only, torch.Tensor):
        return only
    raise BundleError(
        f"the module returns a {type(returned).__name__} with {_holds(entries)}; {needs}, in one tensor: let "
        "forward return the one that is to be served, or give each answer a head, Heads(heads={name: …})"
    )


def entries_for(returned: object, parts: Mapping[str, Any], needs: str) -> dict[str, Any]:
    """Returns what was returned for each part: by name, or in their order from a tuple."""
    wanted = ", ".join(parts)
    entries = _entries(returned)
    if entries is None and len(parts) == 1:
        entries = {next(iter(parts)): returned}
    if entries is None:
        raise BundleError(f"the module returns {_in_words(returned)}; {needs}: {wanted}, by name or as a tuple")
    if set(parts) <= set(entries):
        return entries
    if isinstance(returned, list | tuple) and len(entries) == len(parts):
        return dict(zip(parts, entries.values(), strict=True))
    raise BundleError(
        f"the module returns a {type(returned).__name__} with {_holds(entries)}; {needs}: {wanted}, by name or "
        f"as a tuple of {len(parts)}"
    )


def _entries(returned: object) -> dict[str, Any] | None:
    """Returns what a tuple, mapping or dataclass holds beside ``None``; ``None`` for anything else."""
    if isinstance(returned, Mapping):
        entries = {str(name): entry for name, entry in returned.items()}
    elif isinstance(returned, list | tuple):
        names = getattr(returned, "_fields", range(len(returned)))
        entries = {str(name): entry for name, entry in zip(names, returned, strict=True)}
    elif dataclasses.is_dataclass(returned) and not isinstance(returned, type):
        entries = {field.name: getattr(returned, field.name) for field in dataclasses.fields(returned)}
    else:
        return None
    return {name: entry for name, entry in entries.items() if entry is not None}


def _holds(entries: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {_in_words(entry)}" for name, entry in entries.items()) or "nothing"


def _in_words(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype)[6:]} {'(nested)' if value.is_nested else tuple(value.shape)}"
    return (
        "None" if value is None else f"a {type(value).__module__}.{type(value).__name__}".replace("builtins.", "")
    )
