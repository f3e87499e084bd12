"""Who may call what: a table made from the routes that exist. A route that nobody decided about fails it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.routing import Match

from rollout.http.routes import FORM, GatedRoute
from service.service import Predictor, all_routes
from tests.conftest import TRIAL, Service, run_service, set_split
from tests.service.test_bentoml import SERVE

TOKENS = {role: f"{role}-token-0123456789" for role in ("app", "reviewer", "admin")}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
# The decisions. What needs a session of the console instead of a token is decided in its own tests.
EVERYBODY = {"/livez", "/healthz", "/readyz", "/docs.json", "/schema.json", "/metrics", "/", "/v2/health/live"}
EVERYBODY |= {"/v2/health/ready", "/console/static/{name}"}
EVERYBODY |= {f"/gates/{{model}}/{gate}" for gate in ("go-on", "promote", "rollback")}
APP = {
    "/openapi.json",
    "/predict",
    "/v1/models",
    "/v1/models/{model}",
    "/v1/models/{model}/predict",
    "/v1/models/{model}/assignments/{client_id:path}",
    "/v1/models/{model}/explain",
    "/v1/models/{model}/feedback",
    "/v1/models/{model}/drift",
    "/v1/models/{model}/verdict",
    "/v2",
    "/v2/models/{model}",
    "/v2/models/{model}/versions/{version}",
    "/v2/models/{model}/ready",
    "/v2/models/{model}/versions/{version}/ready",
    "/v2/models/{model}/infer",
    "/v2/models/{model}/versions/{version}/infer",
}
REVIEWS = "/v1/models/{model}/reviews"
STEPS = ("resolve", "skip", "escalate", "release", "undo")
REVIEWER = {REVIEWS, f"{REVIEWS}/claim", f"{REVIEWS}/export", f"{REVIEWS}/{{id}}"}
REVIEWER |= {f"{REVIEWS}/{{id}}/{step}" for step in STEPS}
ADMIN = {
    "/v1/models/{model}/split",
    "/v1/models/{model}/split/history",
    "/v1/models/{model}/improvement",
    "/v1/models/{model}/clients/{client_id:path}",
}
DECIDED: dict[str, str | None] = {
    **dict.fromkeys(EVERYBODY),
    **dict.fromkeys(APP, "app"),
    **dict.fromkeys(REVIEWER, "reviewer"),
    **dict.fromkeys(ADMIN, "admin"),
}


def behind(_: Any, __: Any, ___: Any) -> Any:
    raise AssertionError("no request is sent to it")


ROUTES = [route for route in all_routes(behind) if not route.path.startswith("/console")]
CONSOLE = [route for route in all_routes(behind) if route.path.startswith("/console")]


def filled(route: GatedRoute) -> str:
    path = route.path.replace("{model}", "digits").replace("{version}", "v1").replace("{id}", "none")
    return path.replace("{client_id:path}", "c-1").replace("{name}", "console.css").replace("{path:path}", "none")


@pytest.fixture(scope="module", params=["rollout serve", "bentoml serve"])
def either(
    request: pytest.FixtureRequest, bundles: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The service with a token for each role, under one of its two servers."""
    home = tmp_path_factory.mktemp("access")
    set_split(home, *TRIAL)
    tokens = ",".join(f"{role}:{token}" for role, token in TOKENS.items())
    command = SERVE if request.param == "bentoml serve" else None
    with run_service(home, command, ROLLOUT_WORKERS="1", ROLLOUT_TOKENS=tokens) as running:
        yield running


def test_every_route_is_decided_about() -> None:
    assert {route.path: route.role for route in ROUTES} == {
        path: role for path, role in DECIDED.items() if not path.startswith("/console")
    }
    assert {route.role for route in CONSOLE} == {None}
    assert {tuple(route.takes) for route in CONSOLE if "static" not in route.path} == {(FORM,)}
    with pytest.raises(TypeError, match="role"):
        GatedRoute("/new", behind)  # type: ignore[call-arg]


def test_bentoml_has_no_route_that_we_have_not_seen() -> None:
    app: Any = Predictor.to_asgi()  # type: ignore[attr-defined]
    theirs = {getattr(route, "path", "") for route in app.routes}
    known = {"/livez", "/healthz", "/readyz", "/predict", "/schema.json", "/docs.json", "/"}
    assert theirs - {"/static_content"} <= known


@pytest.mark.parametrize("role", [None, "wrong", "app", "reviewer", "admin"])
def test_routes_by_roles_by_methods(either: Service, role: str | None) -> None:
    headers = {} if role is None else {"Authorization": f"Bearer {TOKENS.get(role, 'x' * 20)}"}
    found = {}
    right = {}
    with either.client(headers=headers) as client:
        for route in ROUTES:
            for method in METHODS:
                answer = client.request(method, filled(route))
                found[method, route.path] = _verdict(answer)
                right[method, route.path] = _expected(route, method, role)
    assert found == right


def test_no_page_of_the_console_shows_itself_without_a_session(either: Service) -> None:
    shown = {}
    with either.client() as client:
        for route in CONSOLE:
            for method in METHODS:
                answer = client.request(method, filled(route), headers={"Sec-Fetch-Site": "same-origin"})
                is_login = answer.headers.get("location", "").startswith("/console/login")
                shown[method, route.path] = answer.status_code < 300 and not is_login and method != "OPTIONS"
    assert {key for key, is_shown in shown.items() if is_shown} == {
        (method, path) for method in ("GET", "HEAD") for path in ("/console/login", "/console/static/{name}")
    }


def _verdict(answer: httpx.Response) -> str:
    if answer.status_code in (401, 403, 405):
        return str(answer.status_code)
    assert answer.status_code < 500 or answer.json()["type"].endswith("store-unavailable"), answer.text
    return "passed"


def _expected(route: GatedRoute, method: str, role: str | None) -> str:
    if method == "OPTIONS":
        return "passed"
    scope = {"type": "http", "path": filled(route), "method": method}
    answering = next((one for one in ROUTES if one.matches(scope)[0] is Match.FULL), None)
    if answering is None:
        return "405"
    needed = DECIDED[answering.path]
    if needed is None or role in (needed, "admin"):
        return "passed"
    return "401" if role in (None, "wrong") else "403"
