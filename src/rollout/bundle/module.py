"""The module as it is packed: a copy on the processor, its wrappers off, and the one tensor that it returns."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import threading
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn.utils import parametrize, remove_weight_norm
from torch.nn.utils.weight_norm import WeightNorm

from rollout.bundle.quiet import quiet
from rollout.errors import BundleError

_fast_path = threading.Lock()
_holders = 0
_was_on = True


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Keeps PyTorch's fast path of attention off: in eval mode it makes nested tensors, which no graph can hold.

    It also puts zeros where training had padding. The switch is one for the whole process: it goes back when the
    last of several threads is done, and meanwhile others take the ordinary path, which answers as in training.
    """
    global _holders, _was_on  # noqa: PLW0603
    with _fast_path:
        if not _holders:
            _was_on = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)
        _holders += 1
    try:
        yield
    finally:
        with _fast_path:
            _holders -= 1
            if not _holders:
                torch.backends.mha.set_fastpath_enabled(_was_on)


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


def one_tensor(returned: object, needs: str) -> torch.Tensor:
    """Takes the tensor out of what a module returned.

    Args:
        returned: A tensor, or a tuple, mapping or dataclass with a single entry beside ``None``.
        needs: What the task needs, in words.

    Returns:
        It, in single precision.

    Raises:
        BundleError: If it is anything else; the sentence says what, and what is taken.
    """
    tensor = returned if isinstance(returned, torch.Tensor) else _only_entry(returned, needs)
    if tensor.is_nested or tensor.layout != torch.strided:
        kind = "a nested" if tensor.is_nested else "a sparse"
        raise BundleError(
            f"the module returns {kind} tensor; {needs}: to_padded_tensor() or to_dense() makes one"
        )
    if not tensor.is_floating_point():
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
    if isinstance(returned, Mapping):
        entries = {str(name): entry for name, entry in returned.items()}
    elif isinstance(returned, list | tuple):
        entries = {str(place): entry for place, entry in enumerate(returned)}
    elif dataclasses.is_dataclass(returned) and not isinstance(returned, type):
        entries = {field.name: getattr(returned, field.name) for field in dataclasses.fields(returned)}
    else:
        raise BundleError(f"the module returns {_in_words(returned)}; {needs}, as a tensor")
    entries = {name: entry for name, entry in entries.items() if entry is not None}
    only = next(iter(entries.values()), None)
    if len(entries) == 1 and isinstance(only, torch.Tensor):
        return only
    holds = ", ".join(f"{name}: {_in_words(entry)}" for name, entry in entries.items()) or "nothing"
    raise BundleError(
        f"the module returns a {type(returned).__name__} with {holds}; {needs}, in one tensor: several answers "
        "of one model are not taken yet, so let forward return the one that is to be served"
    )


def _in_words(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype)[6:]} {'(nested)' if value.is_nested else tuple(value.shape)}"
    return (
        "None" if value is None else f"a {type(value).__module__}.{type(value).__name__}".replace("builtins.", "")
    )
