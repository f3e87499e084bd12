"""What a client is made with, checked once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rollout.__about__ import __version__

# What a header may have without changing on its way (RFC 9110, section 5.5).
VISIBLE = re.compile(r"[\x21-\x7e]+")
TIMEOUT_S, EXPLAIN_S = 10.0, 30.0


@dataclass(frozen=True)
class Options:
    """What both clients know.

    Attributes:
        url: Where the service is.
        headers: What is sent with every request; the token is in them.
        model: The model that is meant where none is named.
        timeout: Seconds that a call may take where none are named.
    """

    url: str
    headers: dict[str, str]
    model: str | None
    timeout: float

    @property
    def url_shown(self) -> str:
        """The URL without a password that may be in it."""
        place = urlsplit(self.url)
        return f"{place.scheme}://{place.netloc.rpartition('@')[2]}{place.path}"

    def __repr__(self) -> str:
        return f"{self.url_shown}, model={self.model!r}"

    def for_httpx(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what a client of httpx is made with: ours, and what a caller gave for it."""
        return {"base_url": self.url, **given, "headers": {**self.headers, **given.get("headers", {})}}

    def model_of(self, model: str | None) -> str:
        """Returns the model that a call is about.

        Raises:
            ValueError: If neither the call nor the client names one.
        """
        named = model or self.model
        if not named:
            raise ValueError("name the model, here or once for the client: Client(url, model=…)")
        return named

    def timeout_of(self, timeout: float | None) -> float:
        """Returns the seconds that a call may take.

        Raises:
            ValueError: If they are not more than 0.
        """
        return _positive(self.timeout if timeout is None else timeout)


def make_options(
    url: str, token: str | None, model: str | None, timeout: float, user_agent: str | None
) -> Options:
    """Returns the options of a client.

    Raises:
        ValueError: If one does not fit. The message does not hold the token.
    """
    place = urlsplit(url)
    if place.scheme not in {"http", "https"} or not place.hostname:
        raise ValueError("the URL of a service begins with http:// or https:// and names a host")
    ours = f"rollout-client/{__version__}"
    if user_agent is not None and not (user_agent.isascii() and user_agent.isprintable()):
        raise ValueError("user_agent must be printable ASCII, such as shop/1.2")
    # What is packed may be a thousand times as large as what comes.
    headers = {"User-Agent": f"{user_agent} {ours}" if user_agent else ours, "Accept-Encoding": "identity"}
    if token is not None:
        token = token.strip()  # as read from a file
        if not VISIBLE.fullmatch(token):
            raise ValueError("the token is empty, or has characters that no token has")
        headers["Authorization"] = f"Bearer {token}"
    return Options(url.rstrip("/"), headers, model, _positive(timeout))


def _positive(timeout: float) -> float:
    if not 0 < timeout < float("inf"):
        raise ValueError("a timeout is more than 0 seconds, and ends")
    return timeout
