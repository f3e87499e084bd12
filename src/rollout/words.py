"""Counts, shares and times for people."""

from __future__ import annotations

from collections.abc import Sequence

UNITS = (("day", 86_400), ("h", 3_600), ("min", 60))


def plural(count: int, noun: str) -> str:
    """Writes how many there are of something.

    Example:
        >>> plural(1, "row"), plural(12_000, "row")
        ('1 row', '12,000 rows')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Puts names in a row.

    Example:
        >>> listed(["a"]), listed(["a", "b", "c"])
        ('a', 'a, b and c')
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def percent(share: float) -> str:
    """Writes a share: 0.0525 is 5.25 %."""
    return f"{share * 100:.4g} %"


def duration(seconds: float, digits: int = 3) -> str:
    """Writes a time in the unit of which it has two or more, or exactly one.

    Args:
        seconds: The time, 0 or more.
        digits: Significant digits.

    Example:
        >>> [duration(seconds) for seconds in (0.00043, 61, 3600, 5400, 86_400, 130_000, 216_000)]
        ['0.43 ms', '61 s', '1 h', '90 min', '1 day', '36.1 h', '2.5 days']
    """
    for unit, size in UNITS:
        if seconds >= 2 * size or seconds == size:
            ending = "s" if unit == "day" and seconds != size else ""
            return f"{_figure(seconds / size, digits)} {unit}{ending}"
    # What would be written as 1,000 ms is a second.
    if not seconds or seconds >= 0.9995:
        return f"{_figure(seconds, digits)} s"
    return f"{_figure(seconds * 1e3, digits)} ms"


def _figure(value: float, digits: int) -> str:
    return f"{value:,.0f}" if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"
