"""What the description says of the answers of each model."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import msgspec

from rollout import Classification, Heads, InputSchema, Number, Regression, Table
from rollout.heads import Head
from rollout.http.openapi import Description, build_openapi
from rollout.inference.rows import prediction_type

SCHEMA = InputSchema({"x": Number()})


class ValueAnswer(NamedTuple):
    """A number without more."""

    value: float


class Bare(msgspec.Struct, Head, frozen=True):
    """A kind that nothing but this test knows, with an answer named as that of another."""

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        """A number."""
        return ValueAnswer


def test_each_model_answers_as_its_head_does() -> None:
    heads: dict[str, Head] = {
        "loans": Classification(labels=["no", "yes"]),
        "delays": Regression(),
        "waits": Regression(widest=3),
        "bare-one": Bare(),
    }
    described = build_openapi(dict.fromkeys(heads, SCHEMA), heads)
    schemas = described["components"]["schemas"]

    def answers(model: str) -> list[str]:
        content = described["paths"][f"/v1/models/{model}/predict"]["post"]["responses"]["200"]["content"]
        one, several = (
            each["$ref"].rpartition("/")[2] for each in content["application/json"]["schema"]["oneOf"]
        )
        assert schemas[several]["properties"]["predictions"]["items"]["$ref"].endswith(f"/{one}")
        assert content["application/x-ndjson"]["schema"]["oneOf"][0]["$ref"].endswith(f"/{one}")
        return [one, *schemas[one]["required"][8:]]

    assert answers("loans") == ["ClassPrediction", "label", "confidence", "scores", "review"]
    assert answers("delays") == answers("waits") == ["ValuePrediction", "value", "interval", "review"]
    assert answers("bare-one") == ["BareOneValuePrediction", "value", "review"]


def test_several_heads_are_described_one_by_one_and_nothing_that_is_named_is_missing() -> None:
    heads = Heads(heads={"late": Classification(labels=["no", "yes"]), "minutes": Regression()}, judged_by="late")
    schema = InputSchema({"row": Table(columns={"x": Number()})})
    described = build_openapi({"trips": schema}, {"trips": heads})
    schemas = described["components"]["schemas"]
    assert schemas["SeveralPrediction"]["properties"]["heads"] == {"$ref": "#/components/schemas/TripsHeads"}
    assert list(schemas["TripsHeads_late"]["properties"]) == ["label", "confidence", "scores"]
    assert list(schemas["TripsHeads_minutes"]["properties"]) == ["value", "interval"]
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described)))
    assert named <= schemas.keys()
    assert "urn:rollout:problem:overloaded" in schemas["Problem"]["properties"]["type"]["enum"]


def test_what_is_served_is_described_once_and_leaves_nothing_behind() -> None:
    description = Description()

    def heads(number: str) -> dict[str, Head]:
        answers: dict[str, Head] = {"late": Classification(labels=["no", "yes"]), number: Regression()}
        return {"trips": Heads(heads=answers)}

    first = description.document({"trips": SCHEMA}, heads("hours"))
    assert json.loads(first) == json.loads(msgspec.json.encode(build_openapi({"trips": SCHEMA}, heads("hours"))))
    known = prediction_type.cache_info().currsize
    assert all(description.document({"trips": SCHEMA}, heads("hours")) is first for _ in range(20))
    assert prediction_type.cache_info().currsize == known
    changed = description.document({"trips": SCHEMA}, heads("days"))
    assert b'"days"' in changed
    assert b'"days"' not in first
