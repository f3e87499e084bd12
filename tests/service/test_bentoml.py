"""The same service under BentoML's own commands: serve, the native client, build."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import bentoml
import httpx
import msgspec
import pytest
from bentoml.exceptions import BentoMLException
from starlette.types import Message, Receive, Scope, Send

from rollout.http.gateway import Gateway
from service.bento import bento_routes
from tests.conftest import BIN, ROOT, STORE, TRIAL, run_service, set_split, settled, wait_for_metric
from tests.images import row, three_or_eight
from tests.service.test_challenger import CHALLENGED, HALF

SERVE = [str(BIN / "bentoml"), "serve", "service.service:Predictor", "--host", "127.0.0.1", "--port", "{port}"]
APP, ADMIN = "app-token-0123456789", "admin-token-0123456789"


def test_bentoml_serve_and_its_native_client(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, *TRIAL)
    with run_service(tmp_path, SERVE) as running, running.client() as http, running.admin() as admin:
        with bentoml.SyncHTTPClient(running.base) as client:
            instances = [row(number, f"c-{number}", key=f"k-{number}") for number in range(20)]
            native = client.predict(model="digits", instances=instances)
            mounted = http.post("/v1/models/digits/predict", json={"instances": instances}).json()["predictions"]
            assert native == mounted
            for instance, words in (
                ({"client_id": "a"}, "/instances/0/inputs is required"),
                (row(client_id=""), "printable"),
            ):
                with pytest.raises(BentoMLException, match=words):
                    client.predict(model="digits", instances=[instance])
            with pytest.raises(BentoMLException, match="no model 'cats'"):
                client.predict(model="cats", instances=[row()])
            uncertain = {"client_id": "native", "key": "page", "inputs": {"image": three_or_eight()}}
            assert client.predict(model="digits", instances=[uncertain])[0]["review"] == "queued"
        (item,) = admin.get("/v1/models/digits/reviews?client_id=native").json()["reviews"]
        assert item["key"] == "page"
        assert http.get("/v1/models/digits/predict").status_code == 405
        assert http.get("/v1/models/digits/split").status_code == 401
        assert http.get("/v2/models/digits").json()["versions"] == ["v1", "v2"]
        assert "lacks image" in http.post("/v2/models/digits/infer", json={"inputs": []}).json()["error"]
        assert http.get("/openapi.json").status_code == 200
        assert http.get("/readyz").status_code == 200
        wait_for_metric(http, 41, "rollout_predictions_total")
        assert settled(http, "rollout_predictions_total") == 41


async def test_bentoml_makes_no_objects_of_what_callers_send() -> None:
    sent = [{"x": [1]}, {"y": [2]}]
    body = msgspec.json.encode({"model": "digits", "instances": sent})
    seen = []

    async def bento(scope: Scope, receive: Receive, send: Send) -> None:
        given = (await receive())["body"]
        assert dict(scope["headers"]) == {b"content-length": b"%d" % len(given)}
        seen.append((given, scope["instances"]))

    async def receive() -> Message:
        return {"type": "http.request", "body": b"\xef\xbb\xbf" + body, "more_body": False}

    async def send(_: Message) -> None:
        raise AssertionError("it answers")

    (route,) = (one for one in bento_routes(Gateway(), bento) if one.path == "/predict")
    await route.endpoint({"type": "http", "headers": [(b"content-length", b"1")]}, receive, send)
    ((given, kept),) = seen
    assert msgspec.json.decode(given) == {"model": "digits", "instances": []}
    assert msgspec.json.decode(kept) == {"instances": sent}


def test_the_native_api_asks_for_the_token_too(bundles: str, tmp_path: Path) -> None:
    set_split(tmp_path, *TRIAL)
    with run_service(tmp_path, SERVE, ROLLOUT_TOKENS=f"app:{APP}", ROLLOUT_WORKERS="1") as running:
        with (
            bentoml.SyncHTTPClient(running.base) as client,
            pytest.raises(BentoMLException, match="Authorization"),
        ):
            client.predict(model="digits", instances=[row()])
        with bentoml.SyncHTTPClient(running.base, token=APP) as client:
            assert client.predict(model="digits", instances=[row()])[0]["model"] == "digits"


def test_the_native_api_does_what_headers_ask_for(bundles: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('[{"arm": "champion", "segments": ["enterprise"]}]')
    set_split(tmp_path, *HALF, "--rules", str(rules))
    instances = {"instances": [row(client_id=CHALLENGED[0])]}
    environment = {"ROLLOUT_WORKERS": "1", "ROLLOUT_TOKENS": f"app:{APP},admin:{ADMIN}"}
    with run_service(tmp_path, SERVE, **environment) as running, running.client() as client:

        def both(headers: dict[str, str], token: str = APP) -> list[httpx.Response]:
            """Asks the native API and then ``/v1``."""
            headers = headers | {"Authorization": f"Bearer {token}"}
            return [
                client.post("/predict", json={"model": "digits"} | instances, headers=headers),
                client.post("/v1/models/digits/predict", json=instances, headers=headers),
            ]

        for headers, version, arm, token in (
            ({}, "v2", "challenger", APP),
            ({"X-Client-Segment": "enterprise"}, "v1", "champion", APP),
            ({"X-Rollout-Arm": "champion"}, "v1", "champion", ADMIN),
        ):
            native, mounted = both(headers, token)
            (answer,) = native.json()
            assert (answer["version"], answer["arm"]) == (version, arm)
            assert mounted.json()["predictions"] == [answer]
        for headers, status in (
            ({"X-Client-Segment": ""}, 422),
            ({"X-Request-Timeout": "soon"}, 422),
            ({"X-Rollout-Arm": "control"}, 422),
            ({"X-Rollout-Arm": "champion"}, 403),
        ):
            native, mounted = both(headers)
            assert (native.status_code, mounted.status_code) == (status, status)
            assert mounted.json()["detail"] in native.text
        wait_for_metric(client, 4, "rollout_predictions_total")
        assert settled(client, "rollout_predictions_total") == 4, "an admin's look at an arm is not"


def test_bentoml_build_makes_a_bento_that_serves(bundles: str, tmp_path: Path) -> None:
    built = subprocess.run(
        [BIN / "bentoml", "build", "--output", "tag"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    tag = built.stdout.strip().rpartition("__tag__:")[2]
    listed = subprocess.run(
        [BIN / "bentoml", "get", tag, "--output", "json"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    models = {model["tag"] for model in json.loads(listed.stdout)["models"]}
    assert models >= {"digits:v1", "digits:v2"}
    source = Path(STORE) / "bentos" / tag.replace(":", os.sep) / "src"
    assert (source / "service" / "front.py").exists()
    assert not (source / "models").exists()
    set_split(tmp_path, *TRIAL)
    command = [str(BIN / "bentoml"), "serve", tag, "--host", "127.0.0.1", "--port", "{port}"]
    with run_service(tmp_path, command, ROLLOUT_WORKERS="1") as running, running.client() as client:
        assert client.post("/v1/models/digits/predict", json=row()).json()["model"] == "digits"
