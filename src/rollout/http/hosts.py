"""Which host a request names, and whether it came straight from this machine."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from rollout import config

# What proxies add. Behind one on the same machine, every request arrives on a loopback address.
FORWARDED = (
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-forwarded-port",
    b"x-forwarded-server",
    b"x-forwarded",
    b"x-real-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-envoy-external-address",
    b"true-client-ip",
    b"cf-connecting-ip",
    b"via",
)
# Labels of a name or an IPv4 address, or an IPv6 address in brackets; then perhaps a port (RFC 9110, 7.2).
# What else a URL can have there, such as a path or who logs in, would end with whatever name its sender likes.
HOST = re.compile(
    rb"(?:\[([0-9a-f:.]*:[0-9a-f:.]*)\]|([a-z0-9_-]+(?:\.[a-z0-9_-]+)*)\.?)(?::[0-9]{0,5})?", re.IGNORECASE
)


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, as browsers see it."""
    return config.is_loopback(host) or host.endswith(".localhost")


@lru_cache(maxsize=64)
def host_name(header: bytes) -> str | None:
    """Returns the name in a ``Host`` header, in lower case and without its port; ``None`` where it is no host.

    Example:
        >>> host_name(b"[::1]:3000"), host_name(b"Localhost.:3000"), host_name(b"127.0.0.1")
        ('::1', 'localhost', '127.0.0.1')
        >>> host_name(b"[::1].example.com"), host_name(b"example.com/.localhost")
        (None, None)
    """
    found = HOST.fullmatch(header)
    return None if found is None else (found[1] or found[2]).decode().lower()


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
    if site in (b"cross-site", b"same-site"):
        return True
    if site == b"same-origin" or not origin:
        return False
    return not is_of_host(origin, headers.get(b"host", b"").decode("latin-1"))


def is_of_host(origin: str, host: str) -> bool:
    """Whether an origin is at a host and port; one that is no URL is at none.

    Example:
        >>> is_of_host("https://a.example:1", "a.example:1"), is_of_host("http://[", "[")
        (True, False)
    """
    try:
        return urlsplit(origin).netloc == host
    except ValueError:  # as of an address that is not closed
        return False


def is_forwarded(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a proxy passed a request on, by what it added to the headers."""
    return not headers.keys().isdisjoint(FORWARDED)
