"""What every way in has in common: the engine behind it, who may pass, and how much one may carry."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from rollout.config import Role, Settings
from rollout.errors import BodyTooLargeError, OverloadedError
from rollout.http.auth import Auth, Bearer
from rollout.http.request_options import RequestOptions
from rollout.inference.engine import Engine


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

    def authorize(self, scope: Scope, role: Role) -> Engine:
        """Returns the engine to a request whose token has this role, or is the admin's.

        Args:
            scope: Of ASGI, or anything else with ``headers`` and ``server``.
            role: What the request takes.

        Raises:
            OverloadedError: If the service is starting or stopping.
            UnauthorizedError: If there is no valid token.
            ForbiddenError: If its role is another.
        """
        return self.identify(scope, role)[0]

    def identify(self, scope: Scope, role: Role) -> tuple[Engine, Bearer]:
        """Returns the engine likewise, and who asks.

        Raises:
            OverloadedError: If the service is starting or stopping.
            UnauthorizedError: If there is no valid token.
            ForbiddenError: If its role is another.
        """
        engine = self.engine
        assert self._auth is not None  # set together with the engine  # noqa: S101
        return engine, self._auth.require(scope, role)

    def authorize_options(self, scope: Scope, options: RequestOptions) -> None:
        """Lets only admins look at another arm than the client's.

        Raises:
            UnauthorizedError: If there is no valid token.
            ForbiddenError: If its role is another.
        """
        if options.preview is not None:
            self.authorize(scope, "admin")

    async def read(self, receive: Receive) -> bytes:
        """Reads a request's body.

        Raises:
            BodyTooLargeError: As soon as it is larger than ``max_body_bytes``.
        """
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            chunks, size = [body], len(body)
            while message.get("more_body"):
                message = await receive()
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                self.check_size(size)
            body = b"".join(chunks)
        self.check_size(len(body))
        return body

    def check_size(self, size: int) -> None:
        """Refuses a body of too many bytes.

        Raises:
            BodyTooLargeError: If it is larger than ``max_body_bytes``.
        """
        if size > self.settings.max_body_bytes:
            raise BodyTooLargeError(
                f"the body has {size:,} bytes; at most {self.settings.max_body_bytes:,} are taken: "
                "send fewer instances at a time"
            )


class Asgi:
    """An ASGI application as a route's endpoint: Starlette hands a function a request, and an object what came.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
