"""The read-only calls of the contract, over HTTP."""

from __future__ import annotations

from openapi_spec_validator import validate

from rollout.errors import HTTP_ERRORS
from rollout.routing.assignment import assign
from rollout.routing.split import Split
from tests.conftest import Service


def test_models(service: Service) -> None:
    with service.client() as client:
        (listed,) = client.get("/v1/models").json()["models"]
        model = client.get("/v1/models/digits").json()
    assert model == listed
    assert model["task"]["kind"] == "classification"
    assert model["task"]["labels"] == [str(digit) for digit in range(10)]
    assert model["inputs"] == {"image": {"kind": "image", "height": 32, "width": 32, "channels": 1}}
    assert [version["version"] for version in model["versions"]] == ["v1", "v2"]
    for version in model["versions"]:
        assert version["variant"] in version["measured_ms"]
        assert (
            set(version["measured_ms"]) <= {"onnx", "onnx-int8"} <= {*version["variants"], *version["not_served"]}
        )
        assert all(measured > 0 for measured in version["measured_ms"].values())
        assert 0 < version["task"]["review_threshold"] < 1
        assert version["gate"] is None
    # Not the rules, which name clients, nor who changed it and why.
    assert model["split"] == {"revision": 1, "champion": "v1", "challenger": "v2", "share": 0.1}


def test_the_split_is_for_admins(service: Service) -> None:
    with service.client() as client:
        for path in ("split", "split/history", "reviews"):
            response = client.get(f"/v1/models/digits/{path}")
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
        wrong = client.get("/v1/models/digits/split", headers={"Authorization": "Bearer nonsense"})
        assert wrong.status_code == 401
    with service.admin() as admin:
        response = admin.get("/v1/models/digits/split")
        history = admin.get("/v1/models/digits/split/history").json()["history"]
    split = response.json()
    assert response.headers["etag"] == '"1"'
    assert list(split) == [
        "revision", "champion", "challenger", "share", "experiment", "shadow", "policy", "rules", "labels",
        "previous", "digests", "removed", "by", "at", "why", "verdict",
    ]  # fmt: skip
    assert split["share"] == 0.1
    assert split["experiment"] == "digits-v1-v2"
    assert split["at"].endswith("Z")
    assert history == [split]


def test_assignments_say_why(service: Service) -> None:
    split = Split(champion="v1", challenger="v2", share=0.1, experiment="digits-v1-v2")
    with service.client() as client:
        for client_id in [f"c-{number}" for number in range(60)] + ["a/b", "Zoë 😀", "50%"]:
            quoted = client_id.replace("%", "%25")
            shown = client.get(f"/v1/models/digits/assignments/{quoted}").json()
            expected = assign(split, client_id)
            assert (shown["client_id"], shown["arm"], shown["version"]) == (
                client_id,
                expected.arm,
                expected.version,
            )
            assert shown["bucket"] == expected.bucket
            assert shown["revision"] == 1
            assert f"bucket {expected.bucket:.4f} lies in" in shown["why"]


def test_what_is_no_client_id_is_neither_hashed_nor_kept(service: Service) -> None:
    with service.client() as client:
        for client_id in ("x" * 129, "x" * 60_000, "%00"):
            answer = client.get(f"/v1/models/digits/assignments/{client_id}")
            assert answer.status_code == 422, client_id[:9]
            assert answer.json()["errors"][0]["pointer"] == "#/client_id"
        assert client.get(f"/v1/models/digits/assignments/{'x' * 128}").status_code == 200
        for path in ("assignments/c-1%0a", "assignments/%0a", "split%0a"):
            assert client.get(f"/v1/models/digits/{path}").status_code == 404


def test_openapi_is_valid_and_describes_every_problem(service: Service) -> None:
    with service.client() as client:
        document = client.get("/openapi.json").json()
    validate(document)
    assert "/v1/models/digits/predict" in document["paths"]
    described = str(document["paths"]["/v1/models/digits/predict"]["post"]["responses"])
    for error in HTTP_ERRORS:
        assert error.type in described


def test_review_filters_are_checked(service: Service) -> None:
    with service.admin() as admin:
        for query, words in (
            ("colour=red", "no filter 'colour'"),
            ("limit=0", "limit must be"),
            ("limit=x", "limit must be"),
            ("since=yesterday", "ISO 8601"),
            ("since=", "ISO 8601"),
            (f"limit={'9' * 5000}", "limit must be"),
            (f"since={'9' * 5000}", "ISO 8601"),
            (f"offset={'9' * 5000}", "offset must be"),
            ("offset=-1", "offset must be"),
        ):
            response = admin.get(f"/v1/models/digits/reviews?{query}")
            assert response.status_code == 422
            assert words in response.json()["detail"]


def test_probes(service: Service) -> None:
    with service.client() as client:
        for probe in ("/livez", "/readyz"):
            assert client.get(probe).status_code == 200
