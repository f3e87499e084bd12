"""PyTorch's fast path of attention: off while a module is compared and exported, and what it would change."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

from rollout.bundle.module import first_line, named_layers
from rollout.bundle.parity import Run, compare, run_in_batches
from rollout.bundle.quiet import quiet
from rollout.bundle.schema import Arrays
from rollout.heads import Head, Scores

WITH_FAST_PATH = (torch.nn.MultiheadAttention, torch.nn.TransformerEncoderLayer, torch.nn.TransformerEncoder)

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


def fast_path_difference(module: torch.nn.Module, task: Head, run: Run, inputs: Arrays, scores: Scores) -> str:
    """Says by how much a module answers otherwise with the fast path than without it.

    Args:
        module: The module.
        task: What it answers.
        run: Scores a batch with the module; the fast path is taken wherever PyTorch would take it.
        inputs: Rows.
        scores: What it gives for them without the fast path.

    Returns:
        A sentence; empty if no decision differs and no score by more than the tolerance.
    """
    if not any(isinstance(layer, WITH_FAST_PATH) for layer in named_layers(module).values()):
        return ""
    try:
        with torch.inference_mode(), quiet():
            parity = compare(task, scores, run_in_batches(run, inputs))
    except Exception as error:  # it is the author's code, run another way
        found = f"fails on the evaluation part: {first_line(error)}"
    else:
        if parity.is_exact:
            return ""
        found = f"answers otherwise than in training: {parity}"
    return (
        f"With PyTorch's fast path of attention, which it takes in eval mode, the module itself {found}; the "
        "bundle answers without the fast path, as in training"
    )
