"""Logging in with a token and a name, and out."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from rollout.errors import ForbiddenError
from rollout.http.auth import TOKEN_FILE
from service.console.session import COOKIE, LASTS_S
from service.console.visit import Page, Visit

HOME = "/console"
LONGEST_NAME = 64
NO_NAME = f"Say your name, with at most {LONGEST_NAME} characters: what you decide is kept under it."


async def show(visit: Visit) -> Response:
    """Shows the form, or where to go for those who are logged in."""
    if visit.session is not None:
        return visit.go(_wanted(visit.request.query_params.get("next", "")))
    return _form(visit, visit.request.query_params.get("next", ""))


async def log_in(visit: Visit) -> Response:
    """Begins a session for the token of a reviewer or admin."""
    wanted = visit.form.get("next", "")
    role = visit.sessions.role_of(visit.form.get("token", "").strip())
    if role is None:
        return _form(visit, wanted, "That is not a token of this service.", 401)
    if role == "app":
        return _form(
            visit,
            wanted,
            "This token has the role app: it may predict, and see nothing here. "
            "Use the token of a reviewer, who may review, or of an admin, who may do everything.",
            403,
        )
    name = " ".join(visit.form.get("name", "").split())
    if not _is_name(name) and (name or role == "reviewer"):
        return _form(visit, wanted, NO_NAME, 422)
    return _go_on(visit, visit.sessions.begin(role, name))


async def take_name(visit: Visit) -> Response:
    """Adds a name to a session that has none."""
    name = " ".join(visit.form.get("name", "").split())
    if visit.session is None or visit.name:
        raise ForbiddenError(f"you are logged in as {visit.name}: log out to be somebody else")
    if not _is_name(name):
        return visit.page("name.html", 422, wanted=visit.form.get("next", ""), refusal=NO_NAME)
    return _go_on(visit, visit.sessions.rename(visit.session, name))


async def log_out(visit: Visit) -> Response:
    """Ends the session in this browser."""
    response = visit.go(f"{HOME}/login")
    response.delete_cookie(COOKIE, path=HOME, httponly=True, samesite="strict")
    return response


PAGES = (
    Page("/login", show, role=None),
    Page("/login", log_in, "POST", role=None),
    Page("/name", take_name, "POST", role="reviewer"),
    Page("/logout", log_out, "POST", role="reviewer"),
)


def _form(visit: Visit, wanted: str, refusal: str = "", status: int = 200) -> Response:
    token_file = None if visit.settings.roles_by_token() else visit.settings.home / TOKEN_FILE
    name = visit.form.get("name", "")
    return visit.page("login.html", status, wanted=wanted, refusal=refusal, name=name, token_file=token_file)


def _go_on(visit: Visit, cookie: str) -> Response:
    """Sends somebody with a new cookie to where they were going."""
    response = visit.go(_wanted(visit.form.get("next", "")))
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=LASTS_S,
        path=HOME,
        secure=_came_encrypted(visit.request),
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
    # What ends TLS in front of us says so. Who lies here makes their own cookie stricter.
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
