"""The same app for uvicorn: predictions stand first, everything else falls through to BentoML."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from service.service import Predictor, api

_bentoml_app = Predictor.to_asgi()  # type: ignore[attr-defined]  # the decorator made it a Service


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers predictions without BentoML's middleware; its lifespan and every other route are BentoML's."""
    if scope["type"] == "lifespan":
        scope["state"]["api"] = api  # for the protocol, which asks whether the worker is about to stop
    hot = api.hot(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
    await (hot or _bentoml_app)(scope, receive, send)
