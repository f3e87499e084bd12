"""Capturing a module as a graph, and where that fails, the author's own line and what to write instead.

``torch.export`` is sound: it refuses a way through ``forward`` that depends on a value. A trace is not: it keeps
whichever branch the example took, and where no other row takes another, no comparison would show it. It warns,
though, whenever a tensor becomes a Python value. So a trace with such a warning is kept only

- where ``torch.export`` has captured the same module without a value taken out of a tensor: then these are sizes,
- or where the line lies within PyTorch, whose layers look at sizes only.

Both leave sizes that may be fixed, which batches of every size show: those are compared for every variant. Its
warnings of other kinds are about constants, and a wrong one shows in the rows compared.
"""

from __future__ import annotations

import contextlib
import linecache
import re
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch.export._patches import register_gru_while_loop_decomposition, register_lstm_while_loop_decomposition
from torch.jit._trace import TracerWarning

from rollout.bundle.module import called, first_line
from rollout.bundle.quiet import quiet
from rollout.errors import BundleError

TORCH, ROLLOUT = str(Path(torch.__file__).parent), str(Path(__file__).parents[1])
TENSOR = torch._tensor.__file__  # where len() and iter() of a tensor are
STANDARD = sysconfig.get_path("stdlib")
FRAME = re.compile(r'File "([^"]+)", line (\d+), in \w+')
# A tensor that becomes a Python value; what a trace otherwise warns of are constants.
BECOMES_PYTHON = re.compile(
    r"Converting a tensor to a Python|Iterating over a tensor|to a NumPy array|Using len to"
)
ADVICE = {
    r"numpy|\bnp\.": "do this step in torch, since a graph holds no NumPy",
    r"\blen\(": "write x.shape[0] in the place of len(x)",
    r"\.item\(|\.tolist\(|\bint\(|\bfloat\(|Python (number|integer|float|list)": (
        "leave it a tensor: compare, index and compute with it instead of taking its value out"
    ),
    r"^(if|elif|while|assert)\b|\bif .* else\b|\band\b|\bor\b|[Dd]ata-dependent|Python boolean": (
        "compute both and choose with torch.where(condition, a, b), since a graph goes the same way for all rows"
    ),
    r"\bfor\b|[Ii]terating": "work on all rows and steps at once instead of one after the other",
}
VIOLATED = re.compile(r"Constraints violated \(([^)]*)\)")
FIXED = "leave it free: take it from x.shape, such as x.shape[0] for the rows, and write -1 for it in reshape"


class Line(NamedTuple):
    """A line of somebody's code."""

    file: str
    number: int

    @property
    def text(self) -> str:
        """What is written there, if it can be read."""
        return linecache.getline(self.file, self.number).strip()

    def __str__(self) -> str:
        return f"{Path(self.file).name}, line {self.number}" + (f", `{self.text}`" if self.text else "")


def capture(
    source: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    shapes: Sequence[dict[int, Any]],
    *,
    is_looped: bool = False,
) -> torch.export.ExportedProgram:
    """Captures a module as one graph with any number of rows, and of steps where lengths are free.

    Args:
        source: The module.
        inputs: A batch for it, of two or more rows.
        shapes: For each of them, which of its dimensions may have any size, as ``torch.export.Dim``.
        is_looped: Whether a recurrent layer goes over as many steps as there are.

    Raises:
        BundleError: If it leaves torch on the way, or depends on values, or a size that may be any does not.
    """
    for name, layer in source.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise BundleError(
                f"torch.export cannot look into {called(source, name)}, which is TorchScript already"
            )
    errors = []
    for strict in (False, True):  # the latter reads Python's bytecode, slowly: it knows what len(x) is
        try:
            with quiet(), _loops() if is_looped else contextlib.nullcontext():
                return torch.export.export(source, inputs, dynamic_shapes=(tuple(shapes),), strict=strict)
        except Exception as error:
            errors.append(error)
    failed = next((each for each in errors if author_line(each)), errors[0])
    free = " and of ".join(dict.fromkeys(size.__name__ for sizes in shapes for size in sizes.values()))
    raise BundleError(
        "the module is not one graph of torch operations; every step of it, preprocessing included, must be a "
        f"torch operation inside forward and take any number of {free}: {explain(failed)}"
    ) from failed


def trace(
    source: torch.nn.Module, inputs: tuple[torch.Tensor, ...], program: torch.export.ExportedProgram | None
) -> Any:
    """Traces a module to TorchScript.

    Args:
        source: The module.
        inputs: A batch for it.
        program: The same as ``torch.export`` captured it, if it did.

    Raises:
        BundleError: If a way through it depends on values; see above.
    """
    fixed: list[tuple[Line, str]] = []

    def look(message: Warning | str, category: type[Warning], *_: object) -> None:
        if issubclass(category, TracerWarning) and BECOMES_PYTHON.search(str(message)):
            line = _caller()
            if line is not None:
                fixed.append((line, str(message)))

    with quiet(), torch.no_grad():
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            # It is called where the value is taken, so that the stack shows the line.
            warnings.showwarning = look  # type: ignore[assignment]
            traced: Any = torch.jit.trace(source, inputs)  # type: ignore[no-untyped-call]
        if fixed and (program is None or _takes_values(program)):
            line, message = fixed[0]
            raise BundleError(f"a trace would fix a value for all rows in {line}: {_advice(line.text, message)}")
    return traced


@contextlib.contextmanager
def _loops() -> Iterator[None]:
    """Lets recurrent layers be captured as loops and not step by step."""
    with register_gru_while_loop_decomposition(), register_lstm_while_loop_decomposition():
        yield


def explain(error: Exception) -> str:
    """Says what an exception says, with the author's line that it arose from, and what to write there instead."""
    said, line = first_line(error).rstrip("."), author_line(error)
    if violated := VIOLATED.search(said):  # the rest of its text is about how to mark dimensions
        said = f"the number of {' and of '.join(violated[1].split(', '))} is fixed"
    advice = _advice("" if line is None else line.text, str(error))
    return said + (f" ({line})" if line else "") + (f": {advice}" if advice else "")


def author_line(error: BaseException) -> Line | None:
    """Returns the line of the author's code that an exception arose from, if its traceback or its text has it."""
    frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    return _author(frames) or _author([(file, int(line)) for file, line in FRAME.findall(str(error))])


def _author(frames: Iterable[tuple[str, int]]) -> Line | None:
    """Returns the innermost of the frames that is not PyTorch's, Python's or ours."""
    own = [
        Line(file, number)
        for file, number in frames
        if not file.startswith(("<", TORCH, ROLLOUT))
        and ("site-packages" in file or not file.startswith(STANDARD))
    ]
    return next((line for line in reversed(own) if "site-packages" not in line.file), own[-1] if own else None)


def _caller() -> Line | None:
    """Returns the author's line that took a value out of a tensor; none where a layer of PyTorch or ours did."""
    frame: FrameType | None = sys._getframe(2)
    frames: list[tuple[str, int]] = []
    while frame is not None:
        if frame.f_code.co_filename not in (TENSOR, warnings.__file__):
            frames.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return None if frames[0][0].startswith((TORCH, ROLLOUT)) else _author(reversed(frames))


def _takes_values(program: torch.export.ExportedProgram) -> bool:
    taking = (torch.ops.aten.item.default, torch.ops.aten._local_scalar_dense.default)
    return any(node.target in taking for node in program.graph.nodes)


def _advice(text: str, said: str) -> str:
    for pattern, advice in ADVICE.items():
        if re.search(pattern, text):
            return advice
    if VIOLATED.search(said):
        return FIXED
    return next((advice for pattern, advice in ADVICE.items() if re.search(pattern, said)), "")
