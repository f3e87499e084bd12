"""What is sent for each thing that a caller wants, and how its answer is read: no I/O, but for files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from rollout.client.answers import (
    Explanation,
    Model,
    Outcome,
    Prediction,
    Verdict,
    read_answer,
    read_answers,
    unexpected,
)
from rollout.client.instances import (
    JSON,
    Instance,
    body_of,
    encode_alone,
    encode_instance,
    identifier,
    pack_instances,
    read_instances,
)

JSON_BODY: Mapping[str, str] = {"Content-Type": JSON}
# Rows and bytes of a request, within what a service takes unless it is told otherwise (1,024 rows and 8 MiB).
BATCH = 256
BATCH_BYTES = 4 * 1024 * 1024

Read = TypeVar("Read")


@dataclass(frozen=True)
class Call(Generic[Read]):
    """A request, and what reads its answer. Each may be repeated: it leaves what it left the first time.

    Attributes:
        method: Of HTTP.
        path: From the service's root.
        read: Reads the body of an answer with status 200.
        body: What is sent.
        headers: What is sent with it.
        params: The query.
        rows: Which rows they are, of all that a caller has; ``None`` where there are no more.
    """

    method: str
    path: str
    read: Callable[[bytes], Read]
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    rows: range | None = None


def predict(
    model: str, client_id: str, inputs: Mapping[str, Any], key: str | None, options: Mapping[str, str]
) -> Call[Prediction]:
    """One row."""
    body, media_type = encode_alone(Instance(client_id, inputs, key))
    headers = {"Content-Type": media_type, **options}
    return Call("POST", _path(model, "predict"), lambda said: read_answer(said, Prediction), body, headers)


def predict_many(
    model: str, rows: Any, ids: Mapping[str, Any], most_rows: int, most_bytes: int, options: Mapping[str, str]
) -> Iterator[Call[list[Prediction]]]:
    """Many rows, in requests of bounded size, each of which is made when it is asked for."""
    if most_rows < 1 or most_bytes < 1:
        raise ValueError("batch and batch_bytes must be 1 or more")
    encoded = (
        encode_instance(one, f"/instances/{number}") for number, one in enumerate(read_instances(rows, **ids))
    )
    for first, some in pack_instances(encoded, most_rows, most_bytes):
        yield Call(
            "POST",
            _path(model, "predict"),
            _reader(len(some)),
            body_of(some),
            {**JSON_BODY, **options},
            rows=range(first, first + len(some)),
        )


def explain(
    model: str,
    client_id: str,
    inputs: Mapping[str, Any],
    asked: Mapping[str, str | int | None],
) -> Call[Explanation]:
    """Why a row is answered as it is."""
    params = {name: str(value) for name, value in asked.items() if value is not None}
    body, media_type = encode_alone(Instance(client_id, inputs))
    headers = {"Content-Type": media_type}
    return Call(
        "POST", _path(model, "explain"), lambda said: read_answer(said, Explanation), body, headers, params
    )


def feedback(model: str, client_id: str, key: str, truth: Mapping[str, Any]) -> Call[Outcome]:
    """What turned out to be true of a prediction."""
    body = msgspec.json.encode(_report({"client_id": client_id, "key": key, **truth}, ""))
    return Call("POST", _path(model, "feedback"), lambda said: read_answer(said, Outcome), body, JSON_BODY)


def feedback_many(
    model: str, outcomes: Iterable[Mapping[str, Any]], most_rows: int
) -> Iterator[Call[list[Outcome]]]:
    """What turned out to be true of many predictions."""
    encoded = (msgspec.json.encode(_report(one, f"/outcomes/{number}")) for number, one in enumerate(outcomes))
    for first, some in pack_instances(encoded, most_rows, BATCH_BYTES):
        yield Call(
            "POST",
            _path(model, "feedback"),
            lambda said: read_answers(said, "outcomes", Outcome),
            b'{"outcomes":[' + b",".join(some) + b"]}",
            JSON_BODY,
            rows=range(first, first + len(some)),
        )


def verdict(model: str) -> Call[Verdict]:
    """What the evidence says about the challenger."""
    return Call("GET", _path(model, "verdict"), lambda said: read_answer(said, Verdict))


def model(name: str) -> Call[Model]:
    """What a model takes and gives."""
    return Call("GET", _path(name), lambda said: read_answer(said, Model))


def models() -> Call[list[Model]]:
    """All models that are served."""
    return Call("GET", "/v1/models", lambda said: read_answers(said, "models", Model))


def options_of(segment: str | None, arm: str | None) -> dict[str, str]:
    """Returns headers: what the clients of a request belong to, and the arm that an admin looks at.

    Raises:
        ValueError: If one has characters that no header has.
    """
    said = {"X-Client-Segment": segment, "X-Rollout-Arm": arm}
    for name, value in said.items():
        if value is not None and not (value.isprintable() and value == value.strip()):
            raise ValueError(f"{name} must be printable, without spaces around it")
    return {name: value for name, value in said.items() if value is not None}


def _path(model: str, what: str = "") -> str:
    return f"/v1/models/{quote(model, safe='')}" + (f"/{what}" if what else "")


def _reader(count: int) -> Callable[[bytes], list[Prediction]]:
    def read(said: bytes) -> list[Prediction]:
        answers = read_answers(said, "predictions", Prediction)
        if len(answers) != count:
            raise unexpected(said)
        return answers

    return read


def _report(outcome: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    """Returns an outcome without what is not said of it."""
    said = {name: value for name, value in outcome.items() if value is not None}
    for name in ("client_id", "key"):
        if name not in said:
            raise ValueError(f"{pointer}/{name} is required")
        said[name] = identifier(said[name], f"{pointer}/{name}")
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in said.items()}
