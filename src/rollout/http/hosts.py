"""Which host a request names, and whether it came straight from this machine."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

# What proxies add. Behind one on the same machine, every request arrives on a loopback address.
FORWARDED = (
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-real-ip",
    b"via",
)


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


@lru_cache(maxsize=64)
def host_name(header: bytes) -> str:
    """Returns the name in a ``Host`` header, in lower case and without its port.

    Example:
        >>> host_name(b"[::1]:3000"), host_name(b"Localhost:3000"), host_name(b"127.0.0.1")
        ('::1', 'localhost', '127.0.0.1')
    """
    text = header.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def is_cross_origin(headers: Mapping[bytes, bytes], allowed: Collection[str]) -> bool:
    """Whether a page of another origin sent a request, by what its browser says.

    Args:
        headers: Of the request.
        allowed: Origins whose pages may; ``*`` for all.
    """
    origin = headers.get(b"origin", b"").decode("latin-1")
    if "*" in allowed or (origin and origin in allowed):
        return False
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site in (b"cross-site", b"same-site")
    return bool(origin) and urlsplit(origin).netloc.encode("latin-1") != headers.get(b"host")


def is_forwarded(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a proxy passed a request on, by what it added to the headers."""
    return not headers.keys().isdisjoint(FORWARDED)
