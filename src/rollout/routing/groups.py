"""Groups of clients: what is added up for the verdict of a trial, so that nothing of a single client is kept.

Clients are independent of each other, so groups of them are, too, and the variance between groups is that
between clients: clusters may be made larger (Cameron & Miller, "A practitioner's guide to cluster-robust
inference", 2015). A client has the same group in every stage of a ramp, so what stages have in common is kept as
well. With so many groups, a standard error is known to about 4 %.
"""

from __future__ import annotations

import zlib

GROUPS = 256


def group_of(client_id: str) -> int:
    """Returns the group of a client, below ``GROUPS``; it has nothing to do with the hash that makes the arms.

    Example:
        >>> group_of("c-42") == group_of("c-42")
        True
    """
    return zlib.crc32(client_id.encode("utf-8", "surrogatepass")) % GROUPS
