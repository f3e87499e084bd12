"""``make models``: packs every kind, and prints which variants it has, how large they are, and how fast."""

from __future__ import annotations

import shutil
import sys

from tests.conftest import STORE
from tests.kinds.kinds import KINDS
from tests.kinds.running import pack_kind

VARIANTS = ("onnx", "onnx-int8", "torchscript", "export")


def _write(*cells: str) -> None:
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _write("kind", "packed in", *VARIANTS)
    _write(*["---"] * (2 + len(VARIANTS)))
    for name in sys.argv[1:] or KINDS:
        packed = pack_kind(name, KINDS[name])
        sizes = [f"{packed.sizes[one] / 1024:.0f} KiB" if one in packed.sizes else "–" for one in VARIANTS]
        _write(name, f"{packed.seconds:.1f} s", *sizes)
    shutil.rmtree(STORE)
