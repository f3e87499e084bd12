"""``make models``: packs every kind, and writes docs/models.md: which variants it has, how large and how fast."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time

from rollout.bundle.parity import take
from rollout.bundle.store import bundle_path
from rollout.bundle.verify import load_variant
from tests.conftest import ROOT, STORE
from tests.kinds.kinds import KINDS, encode, raw_rows
from tests.kinds.running import Packed, pack_kind

DOCUMENT = ROOT / "docs" / "models.md"
VARIANTS = ("onnx", "onnx-int8", "torchscript", "export")
CALLS = 30
HEAD = """# Models of many kinds

Made by `make models`; do not edit. Each of these small models, written for it in `tests/kinds`, is packed, served, and
compared over HTTP with itself in Python on the same raw rows. A cell has the size of a variant and how long one row takes;
– is a variant that cannot be made, or was left out because it decides otherwise. Packing is in seconds of one core.

"""


def _cells(name: str, packed: Packed) -> list[str]:
    inputs = KINDS[name].inputs
    row = take(encode(inputs, raw_rows(inputs, 1, seed=3)), slice(0, 1))
    folder = bundle_path(packed.manifest.tag)
    cells = [name, f"{packed.seconds:.1f} s"]
    for variant in VARIANTS:
        if variant not in packed.sizes:
            cells.append("–")
            continue
        loaded, taken = load_variant(folder, packed.manifest, variant), []
        for _ in range(CALLS):
            started = time.perf_counter()
            loaded.run(row)
            taken.append(time.perf_counter() - started)
        cells.append(f"{packed.sizes[variant] / 1024:.0f} KiB, {statistics.median(taken) * 1000:.2f} ms")
    return cells


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    names = sys.argv[1:] or list(KINDS)
    lines = [_line(["kind", "packed in", *VARIANTS]), _line(["---"] * (2 + len(VARIANTS)))]
    for name in names:
        lines.append(_line(_cells(name, pack_kind(name, KINDS[name]))))
        sys.stdout.write(lines[-1])
        sys.stdout.flush()
    if names == list(KINDS):
        DOCUMENT.write_text(HEAD + "".join(lines), "utf-8")
        sys.stdout.write(f"{os.path.relpath(DOCUMENT)} is written\n")
    shutil.rmtree(STORE)
