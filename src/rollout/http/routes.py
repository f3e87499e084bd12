"""Routes that say who may use them and what they take. A route without that cannot be made."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rollout.config import Role
from rollout.errors import RolloutError

JSON = "application/json"
NDJSON = "application/x-ndjson"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
MIXED = "multipart/mixed"
OCTETS = "application/octet-stream"
# Where a client says nothing of its body. Browsers let a page elsewhere do so, too, but with ``Origin``.
UNSAID = ""
# The methods whose bodies are read; a body that comes with another is thrown away.
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class GatedRoute(Route):
    """A route with what a request must show before any of its body is read.

    Args:
        path: Its template, as Starlette reads it.
        endpoint: A function from request to response, or an ``Asgi``.
        role: The role that a token needs; ``None`` for a route that is open to everybody.
        methods: Of HTTP; HEAD comes with GET, and OPTIONS is answered for every route.
        takes: Media types of the body; ``UNSAID`` where a client may leave that out.
        takes_files: Whether those of the model that the path names are taken as well, see ``files.py``.
        is_stream: Whether a body of any length is taken when it is ``application/x-ndjson``.
        problem: Answers an error in place of a problem document.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        role: Role | None,
        methods: Sequence[str] = ("GET",),
        takes: Sequence[str] = (),
        takes_files: bool = False,
        is_stream: bool = False,
        problem: Callable[[Request, RolloutError], Response] | None = None,
    ) -> None:
        super().__init__(path, endpoint, methods=list(methods))
        # As Starlette writes it, a path may have a line feed more.
        self.path_regex = re.compile(self.path_regex.pattern.removesuffix("$") + r"\Z")
        self.role = role
        self.takes = frozenset(takes)
        self.takes_files = takes_files
        self.is_stream = is_stream
        self.problem = problem


class Asgi:
    """An ASGI application as a route's endpoint: Starlette passes a request to a function, and raw ASGI to this.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
