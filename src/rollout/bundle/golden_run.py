"""The golden and raw examples of a bundle from elsewhere, run in a process that ends, whatever its model does.

While a model runs in C++, no signal reaches Python. It is the system that ends this process: when its time is
over, or when the process that waits for it has ended.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from rollout.bundle.golden import read_golden
from rollout.bundle.manifest import Manifest, read_manifest
from rollout.bundle.raw_examples import read_raw_examples
from rollout.bundle.verify import check_golden, check_raw_examples, load_variant
from rollout.cores import own_cgroups
from rollout.errors import BundleError

SECONDS = 120  # for each variant
MEMORY_SHARE = 0.75
LONGEST_REASON = 2000
REFUSED = 3
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


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


def usable_memory() -> int:
    """Returns the bytes of memory of the machine, or of the container if these are fewer."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for folder in own_cgroups():
        with suppress(OSError, ValueError):  # `max` is no number
            most = min(most, int((folder / "memory.max").read_text()))
    return most


def limit_memory(further: int) -> None:
    """Gives this process so many bytes beyond those that it has.

    Only on Linux, which counts what can be written to (RLIMIT_DATA). A limit of addresses (RLIMIT_AS) would count
    what libraries reserve and never use.
    """
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        most = pages * resource.getpagesize() + further
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _in_words(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _end_with(parent: int) -> None:
    """Has this process killed when its parent ends, on Linux; elsewhere the alarm ends it later."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(REFUSED)


def _refuse(why: str) -> NoReturn:
    sys.stdout.buffer.write(why[:LONGEST_REASON].encode(errors="backslashreplace"))
    sys.exit(REFUSED)


def _main(place: str, seconds: str, parent: str, *names: str) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(seconds))
    _end_with(int(parent))
    limit_memory(int(usable_memory() * MEMORY_SHARE))
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
