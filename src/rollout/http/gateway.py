"""What all protocols have in common: the engine, and what a request must show before its body is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from starlette.types import Receive, Scope

from rollout.config import Role, Settings
from rollout.errors import (
    BodyTooLargeError,
    MalformedRequestError,
    MisdirectedRequestError,
    OverloadedError,
    UnsupportedMediaTypeError,
)
from rollout.http.auth import Auth, Bearer
from rollout.http.encodings import require_encoding
from rollout.http.hosts import host_name, is_loopback
from rollout.http.request_options import RequestOptions
from rollout.http.routes import NDJSON
from rollout.inference.engine import Engine

BOM = b"\xef\xbb\xbf"
# Two of one of these can mean one thing to a proxy and another to us.
SINGLE = frozenset(
    {
        b"host",
        b"authorization",
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
    }
)


class Gateway:
    """Lets requests through to the engine; until ``open`` is called they are told to come back."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._auth: Auth | None = None
        self.settings = Settings()

    def open(self, engine: Engine, settings: Settings) -> None:
        """Starts letting requests through."""
        self._engine, self.settings, self._auth = engine, settings, Auth(settings)

    def close(self) -> None:
        """Stops letting requests through."""
        self._engine = None

    @property
    def is_open(self) -> bool:
        """Whether requests are answered."""
        return self._engine is not None

    @property
    def is_ready(self) -> bool:
        """Whether new requests are welcome."""
        return self.is_open

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            OverloadedError: If the service is starting or stopping.
        """
        if self._engine is None:
            raise OverloadedError("the service is starting or stopping", headers={"Retry-After": "1"})
        return self._engine

    def authorize(self, headers: Mapping[bytes, bytes], server: str | None, role: Role | None) -> Bearer:
        """Returns whose token a request has.

        Args:
            headers: Of the request, or metadata of gRPC.
            server: The address at which it arrived, if it is one.
            role: The role that it needs; ``None`` for what is open to everybody.

        Raises:
            OverloadedError: If the service is starting or stopping.
            UnauthorizedError: If there is no valid token.
            ForbiddenError: If its role is another.
        """
        if self._auth is None or self._engine is None:
            raise OverloadedError("the service is starting or stopping", headers={"Retry-After": "1"})
        return self._auth.require(headers, server, role)

    def check_host(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """Requires one ``Host``; of a service that is open on a loopback address, one that names this machine.

        A page elsewhere can let its own name point to 127.0.0.1, and would then be of our origin to a browser.

        Raises:
            MalformedRequestError: If there is none in HTTP/1.1, or one of the headers that decide is there twice.
            MisdirectedRequestError: If it names another host.
        """
        if len(headers) < len(scope["headers"]):
            names = [name for name, _ in scope["headers"] if name in SINGLE]
            if len(names) > len(set(names)):
                raise MalformedRequestError(
                    f"send each of {', '.join(sorted(name.decode() for name in SINGLE))} once at most"
                )
        host = headers.get(b"host")
        if host is None:
            if scope.get("http_version", "1.1") == "1.1":
                raise MalformedRequestError("HTTP/1.1 requires the header Host: send it")
        elif self._auth is not None and self._auth.is_open_to(headers, _address(scope)):
            name = host_name(host)
            if name is None or not (is_loopback(name) or name == self.settings.host.lower()):
                said = host.decode("latin-1")
                raise MisdirectedRequestError(
                    f"this service is for this machine alone and answers to localhost, not to {said!r}: send a "
                    "token, or set ROLLOUT_HOST to the name by which it is called"
                )

    def check_body(
        self, headers: Mapping[bytes, bytes], takes: Collection[str], *, is_stream: bool = False
    ) -> None:
        """Requires that a body is of a type, an encoding and a size that are taken.

        Args:
            headers: Of the request.
            takes: The media types that are taken.
            is_stream: Whether lines may go on for ever.

        Raises:
            UnsupportedMediaTypeError: If its type or encoding is another.
            BodyTooLargeError: If it says that it is larger than ``max_body_bytes``.
        """
        media_type = media_type_of(headers)
        if media_type not in takes:
            said = sorted(filter(None, takes))
            named = " or ".join(f"'Content-Type: {name}'" for name in said)
            raise UnsupportedMediaTypeError(
                f"send the body with the header {named}", headers={"Accept": ", ".join(said)}
            )
        encoding = headers.get(b"content-encoding", b"identity")
        if encoding != b"identity":
            require_encoding(encoding.decode("latin-1"))
        if not (is_stream and media_type == NDJSON):
            self.check_size(int(headers.get(b"content-length", b"0")))

    def authorize_options(self, scope: Scope, options: RequestOptions) -> None:
        """Lets only admins look at another arm than the client's.

        Raises:
            UnauthorizedError: If there is no valid token.
            ForbiddenError: If its role is another.
        """
        if options.preview is not None:
            self.authorize(dict(scope["headers"]), _address(scope), "admin")

    async def read(self, receive: Receive, most: int | None = None) -> bytes:
        """Reads a request's body.

        Args:
            receive: Receives its parts.
            most: Bytes that are taken; without it, ``max_body_bytes``.

        Raises:
            BodyTooLargeError: As soon as it is larger.
            MalformedRequestError: If the connection ends before it does.
        """
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise MalformedRequestError("the connection ended before the body did: send all of it")
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            self.check_size(size, most)
            more = message.get("more_body", False)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def check_size(self, size: int, most: int | None = None) -> None:
        """Refuses a body of more bytes than ``most``, or without it than ``max_body_bytes``.

        Raises:
            BodyTooLargeError: If it is larger.
        """
        most = self.settings.max_body_bytes if most is None else most
        if size > most:
            raise BodyTooLargeError(
                f"the body has {size:,} bytes; at most {most:,} are taken: send less at a time"
            )


def media_type_of(headers: Mapping[bytes, bytes]) -> str:
    """Returns the media type of a body, in lower case and without parameters; empty where none is said."""
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")


def _address(scope: Scope) -> str | None:
    server = scope.get("server")
    return None if server is None else server[0]
