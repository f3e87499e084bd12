"""The golden and raw examples of a bundle from elsewhere, run in a process that ends, whatever its model does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from rollout.bounded import bound
from rollout.bundle.golden import read_golden
from rollout.bundle.manifest import Manifest, read_manifest
from rollout.bundle.raw_examples import read_raw_examples
from rollout.bundle.verify import check_golden, check_raw_examples, load_variant
from rollout.errors import BundleError

SECONDS = 120  # for each variant
MEMORY_SHARE = 0.75
LONGEST_REASON = 2000
REFUSED = 3


def run_golden(folder: Path, manifest: Manifest, names: list[str]) -> None:
    """Runs golden examples on variants that may be loaded, in a process with bounds of time and memory.

    Args:
        folder: Where the bundle lies; its files are taken as checked.
        manifest: Its manifest.
        names: The variants.

    Raises:
        BundleError: If a variant cannot be loaded, disagrees, or takes too long or too much.
    """
    seconds = SECONDS * len(names)
    # -P: nothing is imported from the folder that the command was started in.
    command = [sys.executable, "-P", "-m", __name__, str(folder), str(seconds), str(os.getpid()), *names]
    # What onnxruntime writes to stderr may be of the model's making.
    ended = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    if ended.returncode == REFUSED:
        raise BundleError(ended.stdout.decode(errors="replace"))
    if ended.returncode == -signal.SIGALRM:
        raise BundleError(
            f"{manifest.tag} is refused: its golden examples, run on {', '.join(names)}, take more than "
            f"{seconds} s"
        )
    if ended.returncode:
        raise BundleError(
            f"{manifest.tag} is refused: its golden examples ended the process that ran them on "
            f"{', '.join(names)} ({_in_words(ended.returncode)})"
        )


def _in_words(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _refuse(why: str) -> NoReturn:
    sys.stdout.buffer.write(why[:LONGEST_REASON].encode(errors="backslashreplace"))
    sys.exit(REFUSED)


def _main(place: str, seconds: str, parent: str, *names: str) -> None:
    bound(int(seconds), int(parent), MEMORY_SHARE)
    folder = Path(place)
    manifest = read_manifest(folder)
    try:
        golden, raw = read_golden(folder), read_raw_examples(folder, manifest)
        for name in names:  # which only has those that may be loaded
            variant = load_variant(folder, manifest, name, is_trusted=True)
            check_golden(golden, manifest, name, variant)
            check_raw_examples(raw, manifest, name, variant)
    except BundleError as error:
        _refuse(error.detail)
    except Exception as error:  # whatever these files make of what reads them
        _refuse(f"{manifest.tag} is refused: its golden examples cannot be run: {error!r}")


if __name__ == "__main__":
    _main(*sys.argv[1:])
