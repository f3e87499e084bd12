"""Files as bodies, and forms: the same answer as base64 in JSON gives, and every refusal."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import socket
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import httpx
import msgspec
import numpy as np
import PIL.Image
import pytest
from backports import zstd
from numpy.typing import NDArray

from rollout import Image, InputSchema, Number, Regression, Text
from rollout.bundle.schema import InvalidInputsError
from rollout.bundle.wire import WireField
from rollout.http.files import media_types_of, reader_of
from rollout.http.openapi import build_openapi
from rollout.http.routes import MIXED, MULTIPART
from tests.conftest import ROOT, Service
from tests.http.conftest import Endpoints
from tests.http.test_requests import BODY, FILES, JSON, head, length, send
from tests.images import image, png, three_or_eight

PREDICT = "/v1/models/digits/predict"
PNG, JPEG, WEBP = "image/png", "image/jpeg", "image/webp"
SCAN = base64.b64decode(png(np.array(image(3), np.uint8)))
UNSURE = base64.b64decode(png(np.array(three_or_eight(), np.uint8)))


def photo() -> bytes:
    file = io.BytesIO()
    large = np.array(image(5), np.uint8).repeat(20, 0).repeat(20, 1)
    PIL.Image.fromarray(large).save(file, "JPEG")
    return file.getvalue()


def as_json(client: httpx.Client, data: bytes, **ids: str) -> httpx.Response:
    return client.post(PREDICT, json={**ids, "inputs": {"image": base64.b64encode(data).decode()}})


def curl(service: Service, *arguments: str) -> tuple[int, bytes]:
    """Returns status and body of what curl gets."""
    command = ["curl", "-sS", "-w", "\n%{http_code}", *arguments]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), body


@pytest.mark.parametrize(("name", "data"), [("scan.png", SCAN), ("photo.jpg", photo()), ("unsure.png", UNSURE)])
def test_the_same_answer_to_the_byte_however_a_file_comes(
    service: Service, tmp_path: Path, name: str, data: bytes
) -> None:
    file, kind = tmp_path / name, JPEG if name.endswith("jpg") else PNG
    file.write_bytes(data)
    ids = {"client_id": "c-42 é", "key": f"order/{name}+1"}
    said = {"X-Client-Id": ids["client_id"], "X-Key": ids["key"], "Content-Type": kind}
    in_headers = {name.encode(): value.encode() for name, value in said.items()}
    url = service.base + PREDICT
    with service.client() as client:
        expected = as_json(client, data, **ids)
        assert expected.status_code == 200
        files = {"image": (name, data, kind)}
        answers = [
            client.post(PREDICT, content=data, params=ids, headers={"Content-Type": kind}),
            client.post(PREDICT, content=data, headers=in_headers),
            client.post(PREDICT, content=data, params=ids, headers=in_headers),
            client.post(PREDICT, content=iter([data[:99], data[99:]]), headers=in_headers),
            client.post(
                PREDICT, content=zstd.compress(data), headers=in_headers | {b"Content-Encoding": b"zstd"}
            ),
            client.post(PREDICT, files=files, data=ids),
            client.post(PREDICT, files=files, params=ids),
        ]
        whole = client.build_request("POST", PREDICT, files=files, data=ids)
        packed = {"Content-Type": whole.headers["content-type"], "Content-Encoding": "gzip"}
        answers.append(client.post(PREDICT, content=gzip.compress(whole.read()), headers=packed))
    for answer in answers:
        assert (answer.status_code, answer.content) == (200, expected.content)
        assert answer.headers["server-timing"]
    form_of_curl = ("-F", f"client_id={ids['client_id']}", "-F", f"key={ids['key']}", "-F", f"image=@{file}")
    query = "?client_id=c-42+%C3%A9&key=order%2f" + name + "%2B1"
    for arguments in (
        (*form_of_curl, url),
        ("-H", "Expect: 100-continue", *form_of_curl, url),
        ("-H", "Transfer-Encoding: chunked", *form_of_curl, url),
        ("--data-binary", f"@{file}", "-H", f"Content-Type: {kind}", url + query),
        ("--data-binary", f"@{file}", "-H", f"Content-Type: {kind}", "-H", "Expect: 100-continue", url + query),
    ):
        assert curl(service, *arguments) == (200, expected.content)


def test_what_is_kept_for_review_is_as_base64_would_be(service: Service) -> None:
    ids = {"client_id": "kept-files"}
    with service.admin() as client:
        body = client.post(PREDICT, content=UNSURE, params=ids | {"key": "body"}, headers={"Content-Type": PNG})
        form = client.post(PREDICT, files={"image": UNSURE}, data=ids | {"key": "form"})
        base = as_json(client, UNSURE, **ids, key="base64")
        assert [one.json()["review"] for one in (body, form, base)] == ["queued"] * 3
        (item,) = client.get("/v1/models/digits/reviews", params=ids).json()["reviews"]
    assert item["key"] == "body", "the others are linked to it: their inputs are the same"
    assert item["inputs"] == {"image": base64.b64encode(UNSURE).decode()}


WHO = {"client_id": "c-1"}
TYPE = {"Content-Type": PNG}


@pytest.mark.parametrize(
    ("query", "headers", "status", "words"),
    [
        ("", TYPE, 422, "/client_id is required: in the query, the header X-Client-Id"),
        ("client_id=", TYPE, 422, "/client_id must be 1 to 128 printable characters"),
        ("client_id=c&key=", TYPE, 422, "/key must be 1 to 128"),
        ("client_id=" + "x" * 129, TYPE, 422, "/client_id must be 1 to 128"),
        ("client_id=%00", TYPE, 422, "/client_id must be 1 to 128"),
        ("client_id=%FF", TYPE, 422, "/client_id must be 1 to 128"),
        ("client_id=%C3%A", TYPE, 422, "not percent-encoded"),
        ("client_id=100%", TYPE, 422, "not percent-encoded"),
        ("client_id=c&client_id=d", TYPE, 422, "/client_id is said twice"),
        ("client_id=c&clientid=c", TYPE, 422, "takes client_id and key, not 'clientid'"),
        ("client_id=c", {**TYPE, "X-Client-Id": "d"}, 422, "/client_id is said twice"),
        ("client_id=c&key=k", {**TYPE, "X-Key": "l"}, 422, "/key is said twice"),
        ("", {**TYPE, "X-Client-Id": b"\xff"}, 422, "/client_id must be 1 to 128"),
        ("client_id=c", {"Content-Type": "image/gif"}, 415, "image/jpeg' or 'Content-Type: image/png' or"),
        ("client_id=c", {"Content-Type": "audio/wav"}, 415, "Content-Type: multipart/form-data"),
        ("client_id=c", {"Content-Type": MULTIPART}, 400, "says its boundary"),
        ("client_id=c", {**TYPE, "Content-Encoding": "br"}, 415, "gzip, deflate, zstd"),
        ("client_id=c", {**TYPE, "X-Rollout-Arm": "champion"}, 401, "Authorization"),
        ("client_id=c", {**TYPE, "Authorization": "Bearer wrong"}, 401, "not one that this service knows"),
    ],
)
def test_what_the_head_says_is_refused_before_the_body_is_read(
    service: Service, query: str, headers: dict[str, str | bytes], status: int, words: str
) -> None:
    host, _, port = service.base.removeprefix("http://").partition(":")
    with httpx.Client(base_url=service.base, timeout=10) as client:
        raw = [(name.encode(), one if isinstance(one, bytes) else one.encode()) for name, one in headers.items()]
        request = client.build_request("POST", f"{PREDICT}?{query}", headers=raw, content=b"")

    lines = [f"POST {PREDICT}?{query} HTTP/1.1".encode(), b"Content-Length: 1000", b"Expect: 100-continue"]
    lines += [
        b"%b: %b" % (name, value) for name, value in request.headers.raw if name.lower() != b"content-length"
    ]
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"\r\n".join((*lines, b"", b"")))
        received = b""
        while not received.endswith(b"}"):
            more = connection.recv(65536)
            assert more, received
            received += more
    top, _, body = received.partition(b"\r\n\r\n")
    document = json.loads(body)
    assert (int(top.split()[1]), document["status"]) == (status, status)
    assert words in document["detail"]
    if status == 415 and "Content-Encoding" not in headers:
        accepted = f"accept: application/json, application/x-ndjson, {JPEG}, {PNG}, {WEBP}, {MULTIPART}, {MIXED}"
        assert accepted.encode() in top.lower()


@pytest.mark.parametrize(
    "line", ["Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "Via: 1.1 p"]
)
@pytest.mark.parametrize(("lines", "body"), FILES)
def test_a_form_of_another_s_page_needs_a_token(
    either: Service, lines: list[str], body: bytes, line: str
) -> None:
    expected = json.loads(send(either, head(PREDICT, JSON, length(BODY)) + BODY).body)
    refused = send(either, head(PREDICT, *lines, length(body), line) + body)
    assert (refused.status, refused.kind) == (401, "unauthorized")
    token = f"Authorization: Bearer {either.token}"
    for more in ([line, token], [f"Origin: {either.base}", f"Host: {either.base[7:]}"], []):
        host = "" if len(more) > 1 and more[1].startswith("Host") else "Host: localhost"
        answer = send(either, head(PREDICT, *lines, length(body), *more, host=host) + body)
        assert (answer.status, json.loads(answer.body)["scores"]) == (200, expected["scores"])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "/inputs/image the bytes are neither"),
        (b"GIF89a", "/inputs/image the bytes are neither"),
        (SCAN[:60], "/inputs/image the image is damaged"),
    ],
)
def test_a_body_that_is_no_image(service: Service, data: bytes, words: str) -> None:
    with service.client() as client:
        for answer in (
            client.post(PREDICT, content=data, params=WHO, headers=TYPE),
            client.post(PREDICT, files={"image": data}, data=WHO),
        ):
            assert answer.status_code == 422
            assert words in answer.json()["detail"]
            assert answer.json()["errors"][0]["pointer"] == "#/inputs/image"


@pytest.mark.parametrize(
    ("parts", "status", "words"),
    [
        ([("image", SCAN)], 422, "/client_id is required"),
        ([("client_id", b"c")], 422, "/inputs/image is required"),
        ([("client_id", b"c"), ("image", SCAN), ("client_id", b"c")], 422, "/client_id is there twice"),
        ([("client_id", b"c"), ("image", SCAN), ("image", SCAN)], 422, "/inputs/image is there twice"),
        ([("client_id", b"c"), ("picture", SCAN), ("image", SCAN)], 422, "/inputs/picture is not an input"),
        ([("client_id", b"\xff"), ("image", SCAN)], 422, "/client_id must be 1 to 128 printable characters"),
        ([("client_id", b"c\n"), ("image", SCAN)], 422, "/client_id must be 1 to 128 printable characters"),
        ([("client_id", b"c"), ("key", b"k" * 129), ("image", SCAN)], 422, "/key must be 1 to 128"),
        ([(f"x{number}", b"") for number in range(50)], 400, "more than 11 parts"),
    ],
)
def test_forms_that_do_not_fit(service: Service, parts: list[tuple[str, bytes]], status: int, words: str) -> None:
    with service.client() as client:
        answer = client.post(PREDICT, files=[(name, (None, data)) for name, data in parts])
        assert answer.status_code == status
        assert words in answer.json()["detail"]
        differs = client.post(PREDICT, params={"client_id": "d"}, files={"image": SCAN}, data={"client_id": "c"})
        assert "/client_id is said twice" in differs.json()["detail"]


def mixed(*parts: tuple[list[str], bytes]) -> bytes:
    whole = b"".join(
        b"--b\r\n%b\r\n%b\r\n" % (b"".join(f"{line}\r\n".encode() for line in lines), data)
        for lines, data in parts
    )
    return whole + b"--b--\r\n"


def ask_mixed(client: httpx.Client, body: bytes, query: str = "", **headers: str) -> httpx.Response:
    headers["Content-Type"] = f"{MIXED}; boundary=b"
    return client.post(f"{PREDICT}?{query}", content=body, headers=headers)


def test_many_files_are_answered_as_rows_of_json_in_their_order(either: Service) -> None:
    files = [SCAN, photo(), UNSURE, SCAN]
    ids = [{"client_id": f"c-{number} é", "key": f"mixed-{number}"} for number in range(3)] + [
        {"client_id": "all"}
    ]
    rows = [
        {**who, "inputs": {"image": base64.b64encode(data).decode()}}
        for who, data in zip(ids, files, strict=True)
    ]
    lines = [[f"X-Client-Id: {who['client_id']}", f"x-key:{who['key']}", "Content-Type: a"] for who in ids[:3]]
    body = mixed(*zip([*lines, ["X-Client-Id: all"]], files, strict=True))
    shared = mixed(*((line[1:], data) for line, data in zip(lines, files, strict=False)))
    with either.client() as client:
        expected = client.post(PREDICT, json={"instances": rows})
        assert [one["key"] for one in expected.json()["predictions"]] == [*(who["key"] for who in ids[:3]), None]
        packed = client.post(
            PREDICT,
            content=gzip.compress(body),
            headers={"Content-Type": f"{MIXED}; boundary=b", "Content-Encoding": "gzip"},
        )
        for answer in (ask_mixed(client, body), ask_mixed(client, body, **{"X-Client-Segment": "s"}), packed):
            assert (answer.status_code, answer.content) == (200, expected.content)
        expected = client.post(PREDICT, json={"instances": [row | {"client_id": "all"} for row in rows[:3]]})
        assert ask_mixed(client, shared, "client_id=all").content == expected.content
        assert ask_mixed(client, shared, **{"X-Client-Id": "all"}).content == expected.content
        one = ask_mixed(client, mixed((["X-Client-Id: all"], SCAN))).json()
        assert list(one) == ["predictions"], "one part is a list of one"


@pytest.mark.parametrize(
    ("parts", "query", "status", "words"),
    [
        ([([], SCAN), (["X-Client-Id: c"], SCAN)], "", 422, "/instances/0/client_id is required"),
        ([([], SCAN), (["X-Client-Id: d"], SCAN)], "client_id=c", 422, "/instances/1/client_id is said twice"),
        (
            [([], SCAN), (["X-Key: a", "X-Key: b"], SCAN)],
            "client_id=c",
            400,
            "part 2 of the body has a header that is none",
        ),
        ([([], SCAN), (["X-Key: " + "k" * 129], SCAN)], "client_id=c", 422, "/instances/1/key must be 1 to 128"),
        (
            [([], SCAN), ([], b"GIF89a"), ([], SCAN[:60])],
            "client_id=c",
            422,
            "/instances/1/inputs/image the bytes",
        ),
        (
            [([], SCAN), ([], b"GIF89a"), ([], SCAN[:60])],
            "client_id=c",
            422,
            "/instances/2/inputs/image the image",
        ),
        ([([], SCAN)], "client_id=c&key=k", 422, "/key is of one row"),
        ([([], b"")] * 1025, "client_id=c", 400, "more than 1024 parts: send fewer"),
        ([], "client_id=c", 422, "/instances must hold 1 to 1024 instances, not 0"),
    ],
)
def test_many_files_that_do_not_fit(
    service: Service, parts: list[tuple[list[str], bytes]], query: str, status: int, words: str
) -> None:
    with service.client() as client:
        answer = ask_mixed(client, mixed(*parts), query)
    assert answer.status_code == status
    assert words in answer.json()["detail"]


def test_many_files_have_one_budget_of_pixels(service: Service) -> None:
    file = io.BytesIO()
    PIL.Image.new("1", (4000, 4000)).save(file, "PNG")
    with service.client() as client:
        answer = ask_mixed(client, mixed(*[([], file.getvalue())] * 7), "client_id=c")
    assert answer.status_code == 422
    assert "/instances/6/inputs/image" in answer.json()["detail"]


def test_json_in_a_part_and_what_is_wrong_with_it(service: Service) -> None:
    def ask(value: str) -> httpx.Response:
        return client.post(PREDICT, data=WHO, files={"image": (None, value, "application/json")})

    with service.client() as client:
        pixels = image(3)
        expected = client.post(PREDICT, json={**WHO, "inputs": {"image": pixels}})
        assert ask(f" {json.dumps(pixels)}\n").content == expected.content
        assert ask(f' "{base64.b64encode(SCAN).decode()}"').content == expected.content
        pixels[3][4] = 999
        assert ask(json.dumps(pixels)).json()["errors"][0]["pointer"] == "#/inputs/image/3/4"
        for wrong in ("", "{", "[" * 100_000, '"\udcff"'.encode("utf-8", "surrogateescape").decode("latin-1")):
            assert ask(wrong).status_code == 422


def test_numbers_texts_and_times_in_a_form(endpoints: Endpoints) -> None:
    rows = {"languages": {"text": "Die Lieferung vom Donnerstag kam 5 Tage zu spät"}}
    with endpoints.service.client() as client:
        fields = client.get("/v1/models/departures").json()["inputs"]
        samples: dict[str, Any] = {"number": 300, "time": "2013-06-01T10:00:00-05:00", "tensor": 1}
        rows["departures"] = {
            name: field["values"][0] if field["kind"] == "category" else samples[field["kind"]]
            for name, field in fields.items()
        }
        for model, inputs in rows.items():
            row = {"client_id": "c-7", "key": "7", "inputs": inputs}
            expected = client.post(f"/v1/models/{model}/predict", json=row)
            assert expected.status_code == 200, expected.text
            parts = {
                name: (None, str(value)) for name, value in {"client_id": "c-7", "key": "7", **inputs}.items()
            }
            answer = client.post(f"/v1/models/{model}/predict", files=parts)
            assert (answer.status_code, answer.content) == (200, expected.content)
        refused = client.post("/v1/models/languages/predict", content=SCAN, headers=TYPE)
        assert refused.status_code == 415
        assert refused.headers["accept"] == f"application/json, application/x-ndjson, {MULTIPART}"
        wrong = {"client_id": "c", **dict.fromkeys(fields, "soon")}
        answer = client.post(
            "/v1/models/departures/predict", files={name: (None, one) for name, one in wrong.items()}
        )
        assert {error["pointer"] for error in answer.json()["errors"]} == {f"#/inputs/{name}" for name in fields}
        answer = client.post("/v1/models/languages/predict", data=WHO, files={"text": b"\xff"})
        assert "/inputs/text is not UTF-8" in answer.json()["detail"]


def test_openapi_says_what_each_model_takes(service: Service) -> None:
    with service.client() as client:
        operation = client.get("/openapi.json").json()["paths"][PREDICT]["post"]
    content = operation["requestBody"]["content"]
    assert set(content) == {"application/json", "application/x-ndjson", MULTIPART, MIXED, PNG, JPEG, WEBP}
    assert content[MULTIPART]["encoding"]["image"]["contentType"] == f"{JPEG}, {PNG}, {WEBP}"
    places = {(one["in"], one["name"]) for one in operation["parameters"]}
    assert {("query", "client_id"), ("query", "key"), ("header", "X-Client-Id"), ("header", "X-Key")} <= places


def test_openapi_asks_a_form_for_what_may_not_be_missing() -> None:
    fields = {"age": Number(minimum=0, optional=True), "weight": Number(minimum=0)}
    described = build_openapi({"people": InputSchema(fields)}, {"people": Regression()})
    described = described["paths"]["/v1/models/people/predict"]["post"]
    assert described["requestBody"]["content"][MULTIPART]["schema"]["required"] == ["weight"]


class Sound(WireField, frozen=True, kw_only=True, tag="sound"):
    """A field of another kind that takes files: nothing but its class knows."""

    media_types: ClassVar[tuple[str, ...]] = ("audio/wav",)
    shape: tuple[int, ...] = (4,)

    @property
    def wire_type(self) -> Any:
        return str

    @property
    def expected(self) -> str:
        return "a sound"

    def decode_file(self, data: bytes, budget: Any = None) -> NDArray[np.uint8]:
        if len(data) != 4:
            raise ValueError("it has another length")
        return np.frombuffer(data, np.uint8)


def test_a_field_that_takes_files_needs_no_more_than_its_class() -> None:
    schema = InputSchema({"sound": Sound()})  # type: ignore[dict-item]
    assert set(media_types_of(schema)) == {MULTIPART, MIXED, "audio/wav"}
    scope = {"query_string": b"client_id=c", "headers": [(b"content-type", b"audio/wav")]}
    read = reader_of(scope, schema, "audio/wav", 9)
    assert read is not None
    (row,), single = read(b"abcd")
    assert (single, row.client_id, row.key) == (True, "c", None)
    assert schema.is_slow(row.inputs)
    assert schema.decode(row.inputs)["sound"].tolist() == [97, 98, 99, 100]
    with pytest.raises(InvalidInputsError, match="/sound: it has another length"):
        schema.decode({"sound": b"abc"})


def test_a_form_is_for_inputs_that_are_called_as_the_ids_are_too() -> None:
    schema = InputSchema({"key": Text(), "image": Image(height=2, width=2)})
    assert set(media_types_of(schema)) == {MULTIPART}, "a file alone is not all that it takes"
    content_type = b"multipart/form-data; boundary=b"
    scope = {
        "query_string": b"key=order-17",
        "headers": [(b"content-type", content_type), (b"x-client-id", b"c")],
    }
    part = b'--b\r\nContent-Disposition: form-data; name="key"\r\n\r\n'
    read = reader_of(scope, schema, MULTIPART, 9)
    assert read is not None
    (row,), _ = read(part + b"of the house\r\n--b--")
    assert (row.client_id, row.key) == ("c", "order-17")
    assert row.inputs == {"key": msgspec.Raw(b'"of the house"')}


def test_the_examples_of_the_reference(service: Service, tmp_path: Path) -> None:
    (script,) = re.findall("```sh\n(curl.*?)```", (ROOT / "REFERENCE.md").read_text(), re.DOTALL)
    (tmp_path / "scan.png").write_bytes(SCAN)
    (tmp_path / "photo.jpg").write_bytes(photo())
    script = script.replace("http://localhost:3000", service.base).replace("curl ", "curl -sS -w '\\n' ")
    done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    with service.client() as client:
        expected = as_json(client, SCAN, client_id="c-42", key="order-17").content
        second = as_json(client, photo(), client_id="c-42", key="order-18").content
    assert done.stdout.splitlines() == [expected] * 3 + [b'{"predictions":[%b,%b]}' % (expected, second)]
