"""Are the two arms of a trial of the same size? If not, something loses clients: judge nothing."""

from __future__ import annotations

# The standard error of Redis's HyperLogLog: 1.04 / sqrt(2**14).
COUNTING_ERROR = 0.0081
# Chi-square with one degree of freedom exceeds this with a probability of 1e-4: it is asked again and again.
CRITICAL = 15.1
FEWEST = 200


def is_mismatch(control: int, challenger: int) -> bool:
    """Whether the arms differ by more than chance and counting explain.

    Control and challenger are ranges of the same length of one hash, so each client of the trial lies in either
    with probability 1/2: the difference has the variance ``control + challenger`` (Fabijan et al., "Diagnosing
    sample ratio mismatch in online controlled experiments", 2019), to which that of the counting is added.

    Args:
        control: Different clients in control.
        challenger: Different clients in the challenger's arm.

    Example:
        >>> is_mismatch(5000, 5100), is_mismatch(5000, 5800)
        (False, True)
    """
    if control + challenger < FEWEST:
        return False
    variance = control + challenger + COUNTING_ERROR**2 * (control**2 + challenger**2)
    return (control - challenger) ** 2 / variance > CRITICAL
