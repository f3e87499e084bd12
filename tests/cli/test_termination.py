"""A SIGTERM whose exception is lost ends the command all the same."""

from __future__ import annotations

import subprocess
import sys

LOST = """
import os, signal
from rollout.cli.termination import end_on_sigterm

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

end_if_asked = end_on_sigterm(7)
end_if_asked()
Finalized()
print("went on", flush=True)
end_if_asked()
print("was not asked", flush=True)
"""


def test_an_exception_that_is_lost_is_made_up_for() -> None:
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == ("went on\n", 7), done.stderr
    assert "Exception ignored" in done.stderr


def test_without_a_finalizer_it_ends_at_once() -> None:
    code = LOST.replace("Finalized()\n", "os.kill(os.getpid(), signal.SIGTERM)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == ("", 7), done.stderr
