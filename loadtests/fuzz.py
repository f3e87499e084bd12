"""``make fuzz``: valid requests, mutated, in every protocol; nothing may fail, hang or stay in memory.

Usage: python -m loadtests.fuzz --seconds 600 [--seed N] [--store FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import math
import random
import re
import sys
import time
import wave
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import grpc
import numpy as np
import PIL.Image
import psutil
from tritonclient.grpc import service_pb2 as messages

from loadtests.fuzz_service import Target, fuzzed_service

ANSWER_WITHIN_S = 60.0
CONNECTIONS = 8
# What one process may grow by in the second half of the time, in bytes: what is made once, such as its threads,
# is there by then.
MAY_GROW = 32 * 1024 * 1024
# When memory is looked at, as shares of the time.
LOOKS = (0.0, 0.2, 0.5, 1.0)
STORE = "valkey-server"
STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
# Not ours to avoid: the caller gave too little time, or there is more to do than can be done.
LEGITIMATE = (b"deadline-exceeded", b"overloaded", b"explain-timeout")
# Whoever closes their side while an explanation is computed gets none: this side stays open for so long.
EXPLAINED_WITHIN_S = 5.0
GATES = ("go-on", "promote", "rollback")

TOKENS: Sequence[bytes] = (
    b"",
    b"null",
    b"NaN",
    b"-0",
    b"1e999",
    b"9" * 5000,
    b"[" * 2000,
    b"[" * 900 + b"]" * 900,
    b'{"a":' * 1200,
    b'"\\ud800"',
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x00",
    b"\r\n\r\n",
    b"\n",
    b"\\u0000",
    b'"' + b"x" * 70_000 + b'"',
    b"-9223372036854775809",
    b"0.1",
    b"true",
    "\N{SNOWMAN}".encode(),
)
HEADERS: Sequence[bytes] = (
    b"Content-Length: 5",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999999",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip",
    b"Content-Encoding: gzip",
    b"Content-Encoding: zstd",
    b"Content-Encoding: br",
    b"Content-Type: text/plain",
    b"Content-Type: application/x-ndjson",
    b"Content-Type: multipart/form-data; boundary=x",
    b"Content-Type: multipart/form-data; boundary=--",
    b"Content-Type: multipart/mixed; boundary=x",
    b"Content-Type: image/png",
    b"X-Key: \xff",
    b"X-Request-Timeout: " + b"9" * 5000,
    b"X-Request-Timeout: 0",
    b"X-Client-Segment: \xff",
    b"X-Rollout-Arm: challenger",
    b"X-Client-Id: ",
    b"Inference-Header-Content-Length: 99",
    b"Inference-Header-Content-Length: " + b"1" * 5000,
    b"If-Match: " + b"7" * 5000,
    b"Expect: 100-continue",
    b"Connection: upgrade\r\nUpgrade: websocket",
    b"Host: evil.example",
    b"Origin: null",
    b"traceparent: 00-x",
    b"Authorization: Bearer \xff",
    b"Cookie: rollout_console=x",
    b"X: " + b"y" * 70_000,
)
QUERIES: Sequence[bytes] = (
    b"?limit=" + b"9" * 5000,
    b"?since=",
    b"?since=yesterday",
    b"?offset=-1",
    b"?state=none",
    b"?%00=%ff",
    b"?segment=%00",
    b"?client_id=%ff",
    b"?client_id=a&client_id=b&key=%",
)


class Request(NamedTuple):
    """A request to begin with."""

    method: bytes
    path: bytes
    content_type: bytes
    body: bytes


@dataclass
class Findings:
    """What came of it.

    Attributes:
        statuses: How often each status was answered, by protocol.
        failures: What failed or hung, ready to be shown.
        memory: What each process of the service has in memory at each of ``LOOKS``, in bytes.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    memory: dict[str, list[int]] = field(default_factory=dict)

    @property
    def grown(self) -> dict[str, int]:
        """By how much each process grew in the second half of the time.

        But for the store: it keeps what it is asked to, up to ``ROLLOUT_STORE_BYTES``.
        """
        return {
            process: sizes[-1] - sizes[-2]
            for process, sizes in self.memory.items()
            if len(sizes) > 1 and not process.startswith(STORE)
        }


def corpus(image: list[list[int]]) -> list[Request]:
    """Returns valid requests of every kind."""
    row = {"client_id": "fuzz", "key": "k", "inputs": {"image": image}}
    pixels = bytes(value for line in image for value in line)
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 32, 32]}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(pixels)}}]}).encode()
    as_json = b"application/json"

    def post(path: str, body: object, method: bytes = b"POST") -> Request:
        return Request(method, path.encode(), as_json, json.dumps(body).encode())

    model, flights, words = (f"/v1/models/{name}" for name in ("digits", "arrivals", "speech"))
    flight = {"at": "2013-01-01T10:00:00Z", "origin": "JFK", "destination": "LAX", "carrier": "AA", "delay": 5}
    columns = [
        {"name": name, "datatype": "BYTES", "shape": [2], "data": [value] * 2}
        for name, value in flight.items()
        if name != "delay"
    ]
    outputs = [{"name": name} for name in ("late.label", "late.scores", "minutes.interval")]
    heads = {"late": {"label": "late"}, "minutes": {"value": 90}}
    sound = io.BytesIO()
    with wave.open(sound, "wb") as said:
        said.setnchannels(1)
        said.setsampwidth(2)
        said.setframerate(8000)
        said.writeframes((np.sin(np.arange(8000) / 5) * 20_000).astype("<i2").tobytes())
    encoded = base64.b64encode(sound.getvalue()).decode()
    lines = b"".join(json.dumps(row).encode() + b"\n" for _ in range(3))
    file = io.BytesIO()
    PIL.Image.fromarray(np.array(image, np.uint8)).save(file, "PNG")
    part = b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    parts = ((b"client_id", b"fuzz"), (b"key", b"k"), (b"image", file.getvalue()))
    form = b"".join(part % one for one in parts) + b"--x--\r\n"
    mixed = b"--x\r\nX-Client-Id: fuzz\r\nX-Key: k\r\n\r\n%b\r\n" % file.getvalue() * 3 + b"--x--\r\n"
    return [
        post(f"{model}/predict", row),
        post(f"{model}/predict", {"instances": [row, row]}),
        Request(b"POST", f"{model}/predict".encode(), b"application/x-ndjson", lines),
        Request(b"POST", f"{model}/predict?client_id=fuzz&key=k".encode(), b"image/png", file.getvalue()),
        Request(b"POST", f"{model}/predict".encode(), b"multipart/form-data; boundary=x", form),
        Request(b"POST", f"{model}/predict".encode(), b"multipart/mixed; boundary=x", mixed),
        post(f"{flights}/predict", {"client_id": "fuzz", "inputs": flight}),
        post(f"{flights}/feedback", {"client_id": "fuzz", "key": "k", "heads": heads, "numbers": {"paid": 3.5}}),
        post("/v2/models/arrivals/infer", {"inputs": columns, "outputs": outputs}),
        post(f"{words}/predict", {"client_id": "fuzz", "inputs": {"sound": encoded}}),
        Request(b"POST", f"{words}/predict?client_id=fuzz".encode(), b"audio/wav", sound.getvalue()),
        post(f"{model}/explain?seed=1", row),
        Request(b"POST", f"{model}/explain?client_id=fuzz&label=3".encode(), b"image/png", file.getvalue()),
        *(post(f"/gates/digits/{gate}", {"name": "canary", "phase": "Progressing"}) for gate in GATES),
        post(f"{model}/clients/fuzz", {}, b"DELETE"),
        post("/v2/models/digits/infer", {"inputs": [tensor | {"data": [image]}], "id": "1"}),
        Request(b"POST", b"/v2/models/digits/infer", b"application/octet-stream", head + pixels),
        post("/predict", {"model": "digits", "instances": [row]}),
        post(f"{model}/feedback", {"client_id": "fuzz", "key": "k", "label": "3"}),
        post(f"{model}/reviews/claim", {"reviewer": "fuzz", "count": 2, "filters": {"arm": "champion"}}),
        post(f"{model}/reviews/none/resolve", {"token": "t", "label": "3"}),
        post(f"{model}/split", {"champion": "v1", "rules": []}, b"PUT"),
        Request(
            b"POST", b"/console/login", b"application/x-www-form-urlencoded", b"token=t&name=fuzz&next=/console"
        ),
        *(
            Request(b"GET", path.encode(), b"", b"")
            for path in (
                "/v1/models",
                f"{model}/assignments/fuzz",
                f"{model}/reviews",
                f"{model}/reviews/export",
                f"{model}/verdict",
                f"{model}/split/history",
                f"{model}/drift",
                f"{model}/improvement",
                flights,
                "/v2/models/digits",
                "/openapi.json",
                "/console/models/digits",
            )
        ),
    ]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Returns bytes that differ a little: flipped, cut, doubled, or with something else in between."""
    for _ in range(rng.randint(1, 4)):
        at, size = rng.randrange(len(data) + 1), rng.choice((1, 2, 8, 64, 512))
        change = rng.randrange(5)
        if change == 0 and data:
            at = rng.randrange(len(data))
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        elif change == 1:
            data = data[:at] + data[at + size :]
        elif change == 2:
            data = data[:at] + data[at : at + size] * rng.randint(2, 5) + data[at + size :]
        else:
            data = data[:at] + rng.choice(TOKENS) + data[at + size * (change == 3) :]
    return data


def encode(request: Request, token: str, rng: random.Random) -> bytes:
    """Returns a request as bytes, with faults in its body, its headers, its target, or anywhere."""
    where = rng.randrange(5)
    body = mutate(request.body, rng) if where in (0, 1) else request.body
    path = request.path + rng.choice(QUERIES) if where == 2 else request.path
    path = mutate(path, rng) if where == 2 and rng.random() < 0.3 else path
    lines = [request.method + b" " + path + b" HTTP/1.1", b"Host: localhost"]
    if request.content_type:
        lines += [b"Content-Type: " + request.content_type, b"Content-Length: %d" % len(body)]
    if request.content_type == b"application/octet-stream":
        lines.append(b"Inference-Header-Content-Length: %d" % (request.body.index(b"}]}") + 3))
    if rng.random() < 0.7:
        lines.append(f"Authorization: Bearer {token}".encode())
    if where == 3:
        lines += rng.sample(HEADERS, rng.randint(1, 3))
    whole = b"\r\n".join((*lines, b"", b"")) + body
    return mutate(whole, rng) if where == 4 else whole


async def exchange(target: Target, data: bytes, rng: random.Random) -> bytes:
    """Sends bytes in pieces, closes our side, and returns all that comes.

    Raises:
        TimeoutError: If the service does not close its side in time.
    """
    async with asyncio.timeout(ANSWER_WITHIN_S):
        reader, writer = await asyncio.open_connection(target.host, target.port)
        try:
            pieces = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randint(0, 3)))
            for start, end in zip([0, *pieces], [*pieces, len(data)], strict=True):
                writer.write(data[start:end])
                await writer.drain()
            begun = b""
            if b"/explain" in data[:100]:
                with contextlib.suppress(TimeoutError):
                    begun = await asyncio.wait_for(reader.read(65536), EXPLAINED_WITHIN_S)
            writer.write_eof()
            return begun + await reader.read()
        except OSError:  # it closed before we were done
            return b""
        finally:
            writer.close()


async def fuzz_http(target: Target, requests: Sequence[Request], rng: random.Random, findings: Findings) -> None:
    """Sends one mutated request over a socket."""
    data = encode(rng.choice(requests), target.token, rng)
    try:
        answer = await exchange(target, data, rng)
    except TimeoutError:
        findings.failures.append(f"no answer within {ANSWER_WITHIN_S:g} s to {data[:2000]!r}")
        return
    for status in STATUS.findall(answer) or [b"closed"]:
        findings.statuses[f"HTTP {status.decode()}"] += 1
        if status.startswith(b"5") and not any(kind in answer for kind in LEGITIMATE):
            findings.failures.append(f"{status.decode()} to {data[:2000]!r}: {answer[:500]!r}")


async def fuzz_grpc(
    call: Callable[..., grpc.aio.UnaryUnaryCall], valid: bytes, rng: random.Random, findings: Findings
) -> None:
    """Makes one call with a mutated message."""
    data = mutate(valid, rng)
    try:
        await call(data, timeout=ANSWER_WITHIN_S)
        findings.statuses["gRPC OK"] += 1
    except grpc.aio.AioRpcError as error:
        code = error.code()
        findings.statuses[f"gRPC {code.name}"] += 1
        if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED):
            findings.failures.append(f"{code.name} ({error.details()}) to {data[:2000]!r}")


def note_memory(target: Target, findings: Findings) -> None:
    """Notes what each process of a service has in memory."""
    first = psutil.Process(target.pid)
    for process in (first, *first.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            name = f"{process.name()} {process.pid}"
            findings.memory.setdefault(name, []).append(process.memory_info().rss)


async def fuzz(target: Target, image: list[list[int]], seconds: float, seed: int) -> Findings:
    """Sends mutated requests for a time.

    Args:
        target: A service.
        image: What its model takes.
        seconds: For how long.
        seed: Of what is sent.
    """
    findings, requests = Findings(), corpus(image)
    pixels = bytes(value for line in image for value in line)
    message = messages.ModelInferRequest(model_name="digits", id="1", raw_input_contents=[pixels])
    message.inputs.add(name="image", datatype="UINT8", shape=[1, 32, 32])
    message.parameters["client_id"].string_param = "fuzz"
    began = time.monotonic()
    end, looks = began + seconds, iter(LOOKS[:-1])
    look_at = began + seconds * next(looks)

    async with grpc.aio.insecure_channel(f"{target.host}:{target.grpc_port}") as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        async def work(number: int) -> None:
            nonlocal look_at
            rng = random.Random(seed * 1000 + number)
            while time.monotonic() < end and len(findings.failures) < 20:
                if number == 0:
                    await fuzz_grpc(call, message.SerializeToString(), rng, findings)
                    if time.monotonic() > look_at:
                        note_memory(target, findings)
                        look_at = began + seconds * next(looks, math.inf)
                else:
                    await fuzz_http(target, requests, rng, findings)

        await asyncio.gather(*(work(number) for number in range(CONNECTIONS)))
    note_memory(target, findings)
    findings.failures += [
        f"{process} grew by {grown / 2**20:.0f} MiB in the second half"
        for process, grown in findings.grown.items()
        if grown > MAY_GROW
    ]
    return findings


def main() -> int:
    """Runs it against a service of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--store", help="a BentoML home that has the bundles; without it, they are built")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with fuzzed_service(options.store) as target:
        findings = asyncio.run(fuzz(target, target.image, options.seconds, options.seed))
    for status, count in sorted(findings.statuses.items()):
        print(f"{count:>9,}  {status}")
    print(f"MiB in memory after {', '.join(f'{look:.0%}' for look in LOOKS)} of the time:")
    for process, sizes in findings.memory.items():
        print(f"{process:>24}: {', '.join(f'{size / 2**20:.0f}' for size in sizes)}")
    for failure in findings.failures:
        print(f"✗ {failure}")
    return bool(findings.failures)


if __name__ == "__main__":
    sys.exit(main())
