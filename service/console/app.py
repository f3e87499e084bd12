"""The console's routes, and what holds for each: who may pass, which forms are ours, and errors as pages."""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rollout.config import Settings
from rollout.errors import (
    ForbiddenError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    RolloutError,
    StoreUnavailableError,
    UnsupportedMediaTypeError,
)
from rollout.http.gateway import Gateway
from rollout.http.hosts import is_of_host
from rollout.http.problems import problem_response
from rollout.http.routes import FORM, GatedRoute
from rollout.inference.engine import Engine
from rollout.review.counts import read_counts
from rollout.review.state import State
from service.console import change, explained, login, models, review
from service.console.logins import has_ended
from service.console.page_context import Page, PageContext
from service.console.render import page, static
from service.console.session import Session, Sessions, cookie_in

ROOT = "/console"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MOST_FIELDS = 100
# Of a form, in bytes; the one that logs somebody in is read for everybody.
LARGEST_FORM = 64 * 1024
LARGEST_LOGIN = 8 * 1024
PAGES = (*login.PAGES, *models.PAGES, *change.PAGES, *review.PAGES, *explained.PAGES)


def console_routes(gateway: Gateway) -> list[GatedRoute]:
    """Returns the routes of the console.

    Args:
        gateway: Where the engine is, once it is open.
    """
    console = Console(gateway)
    by_path: defaultdict[str, dict[str, Page]] = defaultdict(dict)
    for one in PAGES:
        by_path[one.path][one.method] = one
    return [
        GatedRoute("/", _index, role=None),
        GatedRoute(f"{ROOT}/static/{{name}}", _static, role=None),
        *(
            GatedRoute(
                ROOT + path,
                Endpoint(console, pages),
                role=None,  # a session takes the place of a token: see `Console.answer`
                methods=METHODS,
                takes=[FORM],
                problem=console.problem,
            )
            for path, pages in [*by_path.items(), ("/{path:path}", {})]
        ),
    ]


class Console:
    """Lets visitors in.

    Args:
        gateway: Where the engine is, once it is open.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._opened: tuple[Settings, Sessions] | None = None

    @property
    def sessions(self) -> Sessions:
        """The sessions under the settings that the gateway has by now."""
        settings = self._gateway.settings
        if self._opened is None or self._opened[0] is not settings:
            self._opened = settings, Sessions(settings)
        return self._opened[1]

    async def answer(self, request: Request, wanted: Page) -> Response:
        """Answers a request for a page.

        Raises:
            ForbiddenError: If the role is another, or a form does not come from a page of this session.
            OverloadedError: If the service is starting or stopping.
        """
        engine, sessions = self._gateway.engine, self.sessions
        session = sessions.read(cookie_in(request.headers.get("cookie", "")))
        if session is not None and await has_ended(engine.redis, session.id):
            session = None
        if session is None and wanted.role is not None:
            return _ask_to_log_in(request)
        if wanted.role == "admin" and session is not None and session.role != "admin":
            raise ForbiddenError(
                "this takes the role admin; you are logged in as a reviewer, who reviews items and sees no split"
            )
        form: Mapping[str, str] = {}
        if wanted.method == "POST":
            _require_same_site(request)
            form = _parse(await self._read(request, LARGEST_LOGIN if session is None else LARGEST_FORM))
            if session is not None and wanted.role is not None:
                _require_own_form(session, form)
        context = PageContext(
            request=request,
            engine=engine,
            settings=self._gateway.settings,
            sessions=sessions,
            session=session,
            form=form,
            waiting=await _count_open(engine) if _has_header(wanted, session) else {},
        )
        return await wanted.handler(context)

    async def _read(self, request: Request, most: int) -> bytes:
        if "content-encoding" in request.headers:
            raise UnsupportedMediaTypeError("send forms of the console as they are, without a Content-Encoding")
        return await self._gateway.read(request.receive, most)

    def problem(self, request: Request, error: RolloutError) -> Response:
        """Returns an error as a page, or as JSON for a script."""
        if request.headers.get("accept") == "application/json":
            return problem_response(error)
        cookie = cookie_in(request.headers.get("cookie", ""))
        session = self.sessions.read(cookie) if self._gateway.is_open else None
        response = page("problem.html", error.status, session=session, problem=error)
        response.headers.update(error.headers)
        return response


class Endpoint:
    """One address as an ASGI application.

    Args:
        console: Lets visitors in.
        pages: What is there, by method.
    """

    def __init__(self, console: Console, pages: Mapping[str, Page]) -> None:
        self._console, self._pages = console, pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._console.answer(request, self._page(request))
        await response(scope, receive, send)

    def _page(self, request: Request) -> Page:
        found = self._pages.get("GET" if request.method == "HEAD" else request.method)
        if found is not None:
            return found
        if self._pages:
            allowed = ", ".join(self._pages)
            raise MethodNotAllowedError(
                f"{request.url.path} takes {allowed}, not {request.method}", headers={"Allow": allowed}
            )
        raise NotFoundError(f"there is nothing at {request.url.path}")


async def _index(_: Request) -> Response:
    return page("index.html", session=None)


async def _static(request: Request) -> Response:
    found = static(request.path_params["name"], request.query_params.get("v", ""))
    return found or Response(status_code=404)


def _has_header(wanted: Page, session: Session | None) -> bool:
    return wanted.method == "GET" and session is not None and not wanted.is_part


async def _count_open(engine: Engine) -> dict[str, int]:
    """Returns how many review items nobody has yet, by model."""
    try:
        return {
            name: sum((await read_counts(engine.redis, name)).states[State.OPEN].values())
            for name in engine.models
        }
    except StoreUnavailableError:
        return {}


def _ask_to_log_in(request: Request) -> Response:
    if request.method == "POST":
        return PageContext.redirect(f"{ROOT}/login")
    if request.headers.get("sec-fetch-site") == "cross-site":
        # A strict cookie stays away when a link elsewhere led here. A page of ours asks again, with the cookie.
        return page("again.html")
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return PageContext.redirect(f"{ROOT}/login" if path == ROOT else f"{ROOT}/login?next={quote(path)}")


def _parse(body: bytes) -> Mapping[str, str]:
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError:
        raise InvalidRequestError("this is not a form of the console") from None


def _require_same_site(request: Request) -> None:
    """Refuses a form of another site, where the browser says which.

    Over plain HTTP it says less, and a page without referrer has the origin ``null``; the form's own token is
    checked in any case.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin", "null")
    foreign = site != "same-origin" if site else origin != "null" and not is_of_host(origin, request.url.netloc)
    if foreign:
        raise ForbiddenError("this form was sent by another site")


def _require_own_form(session: Session, form: Mapping[str, str]) -> None:
    if not hmac.compare_digest(session.csrf.encode(), form.get("csrf", "").encode()):
        raise ForbiddenError("this form belongs to another session: go back, reload the page and send it again")
