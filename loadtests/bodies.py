"""What is asked: real images, the same for every contender, in the form that each of them takes."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.digits import data

CLIENTS = 1000
BATCH = 64
# Every fifth image lies halfway between two digits: of those, the models are unsure of about one in eight.
BLENDED = 5
KEY = "key-0000000000"  # wrk.lua puts a new one in its place

Image = list[list[int]]


class Request(NamedTuple):
    """A POST request.

    Attributes:
        path: The path to send it to.
        headers: Headers besides the length.
        body: The body.
        status: The status that is no failure.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int = 200

    def as_bytes(self) -> bytes:
        """Returns the request as it goes over the wire."""
        head = {"Host": "127.0.0.1", **self.headers, "Content-Length": str(len(self.body))}
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@functools.cache
def images() -> NDArray[np.uint8]:
    """Returns ``CLIENTS`` images of the evaluation part, some of them blended."""
    real = data.load().evaluation.inputs["image"]
    picked = real[np.arange(CLIENTS) % len(real)]
    blended = ((picked.astype(np.uint16) + np.roll(picked, 1, axis=0)) // 2).astype(np.uint8)
    picked[::BLENDED] = blended[::BLENDED]
    return picked


def json_request(path: str, body: object) -> Request:
    """Makes a request of a JSON body."""
    return Request(path, {"Content-Type": "application/json"}, json.dumps(body, separators=(",", ":")).encode())


def image_body(image: Image, _: int) -> dict[str, Any]:
    """One image: what most of the contenders take."""
    return {"image": image}


def batch_body(image: Image, _: int) -> dict[str, Any]:
    """A batch of one image, which a batchable BentoML API takes."""
    return {"image": [image]}


def rollout_body(image: Image, number: int) -> dict[str, Any]:
    """One image of one client, under a key of its own."""
    return {"client_id": f"client-{number}", "key": KEY, "inputs": {"image": image}}


def inference_protocol_body(image: Image, _: int) -> dict[str, Any]:
    """A batch of one image in the Open Inference Protocol."""
    return {"inputs": [{"name": "image", "shape": [1, 32, 32], "datatype": "UINT8", "data": [image]}]}


def binary_requests(path: str) -> list[Request]:
    """Makes requests of 64 rows each in the Open Inference Protocol, with binary tensors both ways."""
    made = []
    for number, start in enumerate(range(0, CLIENTS - BATCH + 1, BATCH)):
        tensor = images()[start : start + BATCH].tobytes()
        head = json.dumps(
            {
                "inputs": [
                    {
                        "name": "image",
                        "shape": [BATCH, 32, 32],
                        "datatype": "UINT8",
                        "parameters": {"binary_data_size": len(tensor)},
                    }
                ],
                "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
            }
        ).encode()
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
            "X-Client-Id": f"client-{number}",
        }
        made.append(Request(path, headers, head + tensor))
    return made


def write_requests(requests: Iterable[Request], file: Path) -> None:
    """Writes requests for wrk.lua."""
    with file.open("wb") as out:
        for raw in (request.as_bytes() for request in requests):
            out.write(f"{len(raw)}\n".encode() + raw)


def cycle(requests: Sequence[Request]) -> Iterable[Request]:
    """Yields requests in turn, without end, each with a key that did not come before."""
    for number, request in enumerate(itertools.cycle(requests), start=1):
        yield request._replace(body=request.body.replace(KEY.encode(), f"key-{number:010}".encode()))
