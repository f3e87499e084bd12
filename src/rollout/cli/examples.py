"""Examples at the end of a command's help; a test reads each as the command line does."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """Returns the end of a command's help: lines that can be typed as they stand."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
