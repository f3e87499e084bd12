"""Logging in with a token and a name, and out."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from rollout.errors import ForbiddenError
from rollout.http.auth import TOKEN_FILE
from service.console.logins import MINUTE_S, end_session, may_try, note_failure, note_success
from service.console.page_context import Page, PageContext
from service.console.session import COOKIE, LASTS_S

HOME = "/console"
LONGEST_NAME = 64
NO_NAME = f"Say your name, with at most {LONGEST_NAME} characters: what you decide is kept under it."


async def show(context: PageContext) -> Response:
    """Shows the form, or where to go for those who are logged in."""
    if context.session is not None:
        return context.redirect(_wanted(context.request.query_params.get("next", "")))
    return _form(context, context.request.query_params.get("next", ""))


async def log_in(context: PageContext) -> Response:
    """Begins a session for the token of a reviewer or admin."""
    wanted = context.form.get("next", "")
    redis, client = context.engine.redis, context.request.client
    address = "an unknown address" if client is None else client.host
    if not await may_try(redis, address):
        response = _form(context, wanted, "Too many logins from your address failed: wait a minute.", 429)
        response.headers["Retry-After"] = str(MINUTE_S)
        return response
    role = context.sessions.role_of(context.form.get("token", "").strip())
    if role is None:
        note_failure(address)
        return _form(context, wanted, "That is not a token of this service.", 401)
    await note_success(redis, address)
    if role == "app":
        return _form(
            context,
            wanted,
            "This token has the role app: it may predict, and see nothing here. "
            "Use the token of a reviewer, who may review, or of an admin, who may do everything.",
            403,
        )
    name = " ".join(context.form.get("name", "").split())
    if not _is_name(name) and (name or role == "reviewer"):
        return _form(context, wanted, NO_NAME, 422)
    return _go_on(context, context.sessions.begin(role, name))


async def take_name(context: PageContext) -> Response:
    """Adds a name to a session that has none."""
    name = " ".join(context.form.get("name", "").split())
    if context.session is None or context.name:
        raise ForbiddenError(f"you are logged in as {context.name}: log out first to use another name")
    if not _is_name(name):
        return context.page("name.html", 422, wanted=context.form.get("next", ""), refusal=NO_NAME)
    return _go_on(context, context.sessions.rename(context.session, name))


async def log_out(context: PageContext) -> Response:
    """Ends the session, wherever its cookie is."""
    if context.session is not None:
        await end_session(context.engine.redis, context.session.id, LASTS_S)
    response = context.redirect(f"{HOME}/login")
    response.delete_cookie(COOKIE, path=HOME, httponly=True, samesite="strict")
    return response


PAGES = (
    Page("/login", show, role=None),
    Page("/login", log_in, "POST", role=None),
    Page("/name", take_name, "POST", role="reviewer"),
    Page("/logout", log_out, "POST", role="reviewer"),
)


def _form(context: PageContext, wanted: str, refusal: str = "", status: int = 200) -> Response:
    token_file = None if context.settings.roles_by_token() else context.settings.home / TOKEN_FILE
    name = context.form.get("name", "")
    return context.page("login.html", status, wanted=wanted, refusal=refusal, name=name, token_file=token_file)


def _go_on(context: PageContext, cookie: str) -> Response:
    """Sends somebody with a new cookie to where they were going."""
    response = context.redirect(_wanted(context.form.get("next", "")))
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=LASTS_S,
        path=HOME,
        secure=_came_encrypted(context.request),
        httponly=True,
        samesite="strict",
    )
    return response


def _is_name(name: str) -> bool:
    return 0 < len(name) <= LONGEST_NAME and name.isprintable()


def _wanted(path: str) -> str:
    """Returns where somebody was going, if that is in the console: nobody is sent elsewhere."""
    return path if path.startswith(f"{HOME}/") and "\\" not in path else HOME


def _came_encrypted(request: Request) -> bool:
    # What ends TLS in front of us says so, each proxy adding its own. Who lies makes their own cookie stricter.
    said = request.headers.get("x-forwarded-proto", "").lower().split(",")
    return "https" in (request.url.scheme, *(one.strip() for one in said))
