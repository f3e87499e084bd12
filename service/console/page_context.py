"""What the handler of a page gets, and what every page shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rollout.config import Role, Settings
from rollout.inference.engine import Engine
from rollout.inference.served_model import ServedModel
from service.console.render import HEADERS, page
from service.console.session import Session, Sessions


@dataclass(frozen=True, kw_only=True)
class PageContext:
    """One request to the console that was let in.

    Attributes:
        request: The request.
        engine: The engine.
        settings: The settings.
        sessions: Begins sessions.
        session: Whose request it is; ``None`` where nobody needs to be logged in.
        form: What was sent with it.
        waiting: How many review items are open, by model; without those that nobody could count.
    """

    request: Request
    engine: Engine
    settings: Settings
    sessions: Sessions
    session: Session | None = None
    form: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)

    @property
    def model(self) -> ServedModel:
        """The model that the address names.

        Raises:
            UnknownModelError: If there is none of this name.
        """
        return self.engine.model(self.request.path_params["model"])

    @property
    def role(self) -> Role | None:
        """The role of whoever is logged in."""
        return None if self.session is None else self.session.role

    @property
    def name(self) -> str:
        """The name of whoever is logged in, if they said it."""
        return "" if self.session is None else self.session.name

    @property
    def address(self) -> str:
        """The path and the query that were asked for."""
        url = self.request.url
        return url.path + (f"?{url.query}" if url.query else "")

    def page(self, template: str, status: int = 200, **values: object) -> Response:
        """Returns a template as a page of the console, with what is above every page."""
        return page(
            template,
            status,
            session=self.session,
            models=sorted(self.engine.models),
            waiting=self.waiting,
            **values,
        )

    @staticmethod
    def redirect(path: str) -> Response:
        """Sends the browser to another page."""
        return RedirectResponse(path, 303, HEADERS)


@dataclass(frozen=True)
class Page:
    """An address of the console.

    Attributes:
        path: Below ``/console``.
        handler: Answers it.
        method: Of HTTP.
        role: Who may, and the admin; ``None`` for everybody.
        is_part: Whether it goes into a page that is open, and has no header of its own.
    """

    path: str
    handler: Callable[[PageContext], Awaitable[Response]]
    method: Literal["GET", "POST"] = "GET"
    role: Role | None = "admin"
    is_part: bool = False
