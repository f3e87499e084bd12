"""Models that are not images, served beside the digits: texts, times, categories, and answers that are values."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import validate

from rollout.routing.assignment import assign
from rollout.routing.split import Split
from tests.conftest import Service, run_service, set_split
from tests.images import row

DELIVERY = {"text": "Thursday's delivery was late"}
DEPARTURE = {"at": "2026-11-05T10:00:00Z", "origin": "JFK"}
TRIAL = Split(champion="v1", challenger="v2", share=0.5, experiment="departures-v1-v2")


@pytest.fixture(scope="module")
def trio(more_bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """All three models; v2 is the champion of languages, v1 of the others."""
    home = tmp_path_factory.mktemp("trio")
    for model, champion in (("digits", "v1"), ("languages", "v2"), ("departures", "v1")):
        set_split(home, "--champion", champion, model=model)
    with run_service(home, ROLLOUT_WORKERS="1") as running:
        yield running


def ask(service: Service, model: str, inputs: dict[str, Any], client_id: str = "c-1") -> dict[str, Any]:
    with service.client() as client:
        response = client.post(f"/v1/models/{model}/predict", json={"client_id": client_id, "inputs": inputs})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_text_is_answered_with_its_language(trio: Service) -> None:
    answer = ask(trio, "languages", DELIVERY)
    assert (answer["version"], answer["label"]) == ("v2", "en")
    assert answer["label"] == max(answer["scores"], key=answer["scores"].get)


def test_a_time_and_a_place_are_answered_with_a_value_and_an_interval(trio: Service) -> None:
    answer = ask(trio, "departures", DEPARTURE)
    assert list(answer) == [
        "model", "version", "variant", "arm", "fallback", "revision", "client_id", "key", "value", "interval", "review",
    ]  # fmt: skip
    low, high = answer["interval"]
    assert low < answer["value"] < high
    assert answer["value"] == pytest.approx((low + high) / 2, abs=1e-5)
    same_moment = DEPARTURE | {"at": "2026-11-05T12:00:00+02:00"}
    assert ask(trio, "departures", same_moment)["value"] == answer["value"]


def test_many_rows_are_answered_in_their_order(trio: Service) -> None:
    inputs = [DEPARTURE | {"at": f"2026-11-05T{hour:02}:00:00Z"} for hour in range(5, 24)]
    instances = [{"client_id": "c-1", "inputs": one} for one in inputs]
    with trio.client() as client:
        many = client.post("/v1/models/departures/predict", json={"instances": instances}).json()["predictions"]
    alone = [ask(trio, "departures", one)["value"] for one in inputs]
    assert [one["value"] for one in many] == pytest.approx(alone, rel=1e-5)
    assert len(set(alone)) > 5


def test_an_interval_that_is_too_wide_goes_to_review_with_value_and_width(trio: Service) -> None:
    widest = 12
    inputs = [
        {"at": f"2026-{month:02}-{day:02}T{hour:02}:00:00Z", "origin": origin}
        for month in (1, 7, 11)
        for day in (1, 24, 26)
        for hour in range(5, 24)
        for origin in ("EWR", "JFK", "LGA")
    ]
    instances = [{"client_id": "hours", "key": f"{number}", "inputs": one} for number, one in enumerate(inputs)]
    with trio.client() as client, trio.admin() as admin:
        body = {"instances": instances}
        predictions = client.post("/v1/models/departures/predict", json=body).json()["predictions"]
        for one in predictions:
            low, high = one["interval"]
            assert one["review"] == ("queued" if high - low > widest else None)
        queued = [one for one in predictions if one["review"]]
        assert queued
        found = admin.get("/v1/models/departures/reviews?client_id=hours&limit=1000").json()["reviews"]
        assert {item["key"] for item in found} == {one["key"] for one in queued}
        item = next(item for item in found if item["key"] == queued[0]["key"])
    assert item["answer"] == {name: queued[0][name] for name in ("value", "interval")}
    assert (item["threshold"], item["reason"]) == (widest, "low_confidence")
    assert item["inputs"] == inputs[int(item["key"])]


@pytest.mark.parametrize(
    ("model", "inputs", "pointer", "words"),
    [
        ("languages", {"text": 7}, "#/inputs/text", "a text of at most 256 bytes"),
        ("languages", {"text": "é" * 200}, "#/inputs/text", "has 400 bytes in UTF-8"),
        ("languages", {"text": "x" * 600}, "#/inputs/text", "a text of at most 256 bytes"),
        ("languages", {"text": "nul\0"}, "#/inputs/text", "NUL"),
        ("languages", {}, "#/inputs/text", "is required"),
        ("departures", DEPARTURE | {"at": "2026-11-05T10:00:00"}, "#/inputs/at", "ISO 8601 with its zone"),
        ("departures", DEPARTURE | {"at": "2026-02-30T10:00:00Z"}, "#/inputs/at", "ISO 8601 with its zone"),
        ("departures", DEPARTURE | {"at": 1793872800}, "#/inputs/at", "ISO 8601 with its zone"),
        ("departures", DEPARTURE | {"origin": "LHR"}, "#/inputs/origin", "one of EWR, JFK, LGA"),
        ("departures", DEPARTURE | {"origin": None}, "#/inputs/origin", "one of EWR, JFK, LGA"),
        ("departures", {"origin": "JFK"}, "#/inputs/at", "is required"),
    ],
)
def test_bad_inputs_are_pointed_at(
    trio: Service, model: str, inputs: dict[str, Any], pointer: str, words: str
) -> None:
    with trio.client() as client:
        single = client.post(f"/v1/models/{model}/predict", json={"client_id": "c-1", "inputs": inputs})
        instances = [{"client_id": "c-1", "inputs": inputs}]
        many = client.post(f"/v1/models/{model}/predict", json={"instances": instances})
    for response, expected in ((single, pointer), (many, pointer.replace("#", "#/instances/0"))):
        assert response.status_code == 422, response.text
        (error,) = response.json()["errors"]
        assert error["pointer"] == expected
        assert words in error["detail"]


def test_each_model_says_its_task_its_variant_and_what_each_took(trio: Service) -> None:
    with trio.client() as client:
        models = {one["model"]: one for one in client.get("/v1/models").json()["models"]}
        assert set(models) == {"digits", "languages", "departures"}
        shown = client.get("/v1/models/departures").json()
    assert shown == models["departures"]
    assert (shown["task"]["kind"], shown["task"]["coverage"], shown["task"]["widest"]) == ("regression", 0.9, 12)
    assert shown["task"]["half_width"] > 0
    assert shown["inputs"]["origin"] == {"kind": "category", "values": ["EWR", "JFK", "LGA"]}
    for model in models.values():
        (version,) = model["versions"]
        assert version["variant"] in version["measured_ms"]
        assert set(version["measured_ms"]) | set(version["not_served"]) >= {"onnx", "onnx-int8"}
        assert all(milliseconds > 0 for milliseconds in version["measured_ms"].values())
        assert version["task"] == model["task"]
    assert models["languages"]["task"]["kind"] == "classification"


def test_openapi_describes_every_model(trio: Service) -> None:
    with trio.client() as client:
        document = client.get("/openapi.json").json()
    validate(document)
    schemas = document["components"]["schemas"]
    assert schemas["DeparturesInputs"]["properties"]["at"] == {"type": "string", "format": "date-time"}
    assert schemas["DeparturesInputs"]["properties"]["origin"] == {"enum": ["EWR", "JFK", "LGA"]}
    assert schemas["LanguagesInputs"]["properties"]["text"] == {"type": "string", "maxLength": 256}
    assert {"value", "interval"} <= set(schemas["ValuePrediction"]["required"])


def test_the_metrics_name_the_variant_that_serves(trio: Service) -> None:
    variant = ask(trio, "languages", DELIVERY)["variant"]
    with trio.client() as client:
        assert client.post("/v1/models/digits/predict", json=row()).status_code == 200
        text = client.get("/metrics").text
    assert f'rollout_variant_served{{model="languages",variant="{variant}",version="v2"}} 1.0' in text


def test_a_regression_goes_on_trial_with_the_same_request(trio: Service) -> None:
    """Last, since it changes the split."""
    clients = {assign(TRIAL, f"c-{number}").arm: f"c-{number}" for number in range(40)}
    before = {arm: ask(trio, "departures", DEPARTURE, client_id) for arm, client_id in clients.items()}
    assert {one["version"] for one in before.values()} == {"v1"}
    set_split(trio.home, "--champion", "v1", "--challenger", "v2", "--share", "0.5", model="departures")
    give_up = time.monotonic() + 15
    while ask(trio, "departures", DEPARTURE, clients["challenger"])["version"] == "v1":
        assert time.monotonic() < give_up, trio.log.read_text()
        time.sleep(0.1)
    after = {arm: ask(trio, "departures", DEPARTURE, client_id) for arm, client_id in clients.items()}
    assert {arm: one["version"] for arm, one in after.items()} == {"control": "v1", "challenger": "v2"}
    assert after["control"]["value"] == pytest.approx(before["control"]["value"])
    low, high = after["challenger"]["interval"]
    assert low <= after["challenger"]["value"] <= high
    assert after["challenger"]["value"] != after["control"]["value"]
