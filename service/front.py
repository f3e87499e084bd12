"""The same app for granian: predict stands first, everything else falls through to BentoML."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from service.service import Predictor, api

_bentoml_app = Predictor.to_asgi()  # type: ignore[attr-defined]  # the decorator made it a Service


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers predictions without BentoML's middleware; its lifespan and every other route are BentoML's."""
    if scope["type"] == "http" and scope["method"] == "POST" and api.is_predict(scope["path"]):
        await api.predict(scope, receive, send)
    else:
        await _bentoml_app(scope, receive, send)
