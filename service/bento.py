"""BentoML's own routes: which of them exist, who may use them, and its native call without its surprises."""

from __future__ import annotations

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rollout.http.bodies import decode_json
from rollout.http.gateway import Gateway
from rollout.http.routes import JSON, Asgi, GatedRoute


class NativeCall(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /predict``."""

    model: str
    instances: msgspec.Raw


_decode = msgspec.json.Decoder(NativeCall).decode


def bento_routes(gateway: Gateway, app: ASGIApp) -> list[GatedRoute]:
    """Returns the routes of BentoML that exist here; its pages, which load scripts from elsewhere, do not.

    Args:
        gateway: Reads bodies.
        app: BentoML's application.
    """

    async def predict(scope: Scope, receive: Receive, send: Send) -> None:
        """Keeps the instances for ``Predictor.predict`` as they came, and shows BentoML none of them.

        It would make objects of every value while all other requests wait, and log a traceback for what is wrong.
        """
        call = decode_json(_decode, await gateway.read(receive))
        scope["instances"] = b'{"instances":%b}' % bytes(call.instances)
        body = msgspec.json.encode({"model": call.model, "instances": []})
        message: Message = {"type": "http.request", "body": body, "more_body": False}

        async def replay() -> Message:
            nonlocal message
            given, message = message, {"type": "http.disconnect"}
            return given

        scope["headers"] = [header for header in scope["headers"] if header[0] not in REPLACED]
        scope["headers"].append((b"content-length", b"%d" % len(body)))
        await app(scope, replay, send)

    return [
        # The latter two say what the native call takes, which is the same in every service, and name no model.
        *(
            GatedRoute(path, Asgi(app), role=None)
            for path in ("/livez", "/healthz", "/readyz", "/docs.json", "/schema.json")
        ),
        GatedRoute("/predict", Asgi(predict), role="app", methods=["POST"], takes=[JSON]),
    ]


# The body that BentoML sees is another one, of another length.
REPLACED = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
