"""The review queue on the real service: what enters, and what reviewers do over HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import BIN, Service, run_service, set_split, wait_for_metric
from tests.images import image, three_or_eight

ROLES = ("app", "reviewer", "admin")
TOKENS = ",".join(f"{role}:{role}-token-0123456789" for role in ROLES)
REVIEWS = "/v1/models/digits/reviews"


@pytest.fixture(scope="module")
def service_with_roles(bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("review")
    set_split(home, "--champion", "v1")
    with run_service(home, ROLLOUT_TOKENS=TOKENS) as service:
        yield service


@pytest.fixture
def call(service_with_roles: Service) -> Iterator[Callable[..., httpx.Response]]:
    with service_with_roles.client() as client:

        def send(role: str, method: str, path: str, **options: Any) -> httpx.Response:
            token = {"Authorization": f"Bearer {role}-token-0123456789"}
            return client.request(method, path, headers=token, **options)

        yield send


def predict(call: Callable[..., httpx.Response], client_id: str, pixels: Any) -> dict[str, Any]:
    body = {"client_id": client_id, "key": f"order-{client_id}", "inputs": {"image": pixels}}
    answer = call("app", "POST", "/v1/models/digits/predict", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_from_a_prediction_to_a_label(call: Callable[..., httpx.Response]) -> None:
    assert predict(call, "c-1", three_or_eight())["review"] == "queued"
    wanted = {"reviewer": "ada", "count": 1, "filters": {"client_id": "c-1"}}
    claim = call("reviewer", "POST", f"{REVIEWS}/claim", json=wanted).json()
    (leased,) = claim["items"]
    item = leased["item"]
    assert "task" not in item, "which is as long as there are labels"
    assert (item["client_id"], item["key"], item["reason"], item["pi"]) == (
        "c-1",
        "order-c-1",
        "low_confidence",
        1,
    )
    assert item["inputs"] == {"image": three_or_eight()}
    assert call("reviewer", "POST", f"{REVIEWS}/claim", json=wanted | {"reviewer": "bob"}).json()["items"] == []
    path = f"{REVIEWS}/{item['id']}"
    wrong = call("reviewer", "POST", f"{path}/resolve", json={"token": leased["token"], "label": "cat"})
    assert (wrong.status_code, wrong.json()["type"]) == (422, "urn:rollout:problem:invalid-request")
    lost = call("reviewer", "POST", f"{path}/resolve", json={"token": "guessed", "label": "7"})
    assert (lost.status_code, lost.json()["type"]) == (409, "urn:rollout:problem:lease-lost")
    done = call("reviewer", "POST", f"{path}/resolve", json={"token": leased["token"], "label": "7"})
    assert done.json() == {"state": "resolved", "label": "7", "why": ""}
    (shown,) = call("reviewer", "GET", f"{REVIEWS}?state=resolved&client_id=c-1").json()["reviews"]
    assert (shown["state"], shown["decision"]["label"]) == ("resolved", "7")
    assert "task" not in shown
    assert [review["reviewer"] for review in shown["decision"]["reviews"]] == ["ada"]
    assert call("reviewer", "GET", path).json() == shown | {"links": []}
    lines = call("reviewer", "GET", f"{REVIEWS}/export?client_id=c-1").text.splitlines()
    assert len(lines) == 1
    back = call("reviewer", "POST", f"{path}/undo", json={"token": leased["token"]}).json()
    assert back["item"] == item
    set_aside = call("reviewer", "POST", f"{path}/skip", json={"token": leased["token"], "why": "cannot tell"})
    assert set_aside.json()["state"] == "skipped"
    unknown = call("reviewer", "GET", f"{REVIEWS}/nothing")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "urn:rollout:problem:unknown-item")


def test_what_is_given_back_goes_to_where_it_was(call: Callable[..., httpx.Response]) -> None:
    predict(call, "c-back", three_or_eight())
    wanted = {"reviewer": "ada", "filters": {"client_id": "c-back"}}
    (leased,) = call("reviewer", "POST", f"{REVIEWS}/claim", json=wanted).json()["items"]
    path, lease = f"{REVIEWS}/{leased['item']['id']}", {"token": leased["token"]}
    assert call("reviewer", "POST", f"{path}/release", json=lease).json() == {"state": "open"}
    (leased,) = call("reviewer", "POST", f"{REVIEWS}/claim", json=wanted).json()["items"]
    call("reviewer", "POST", f"{path}/escalate", json={"token": leased["token"], "why": "odd"})
    adjudicator = wanted | {"reviewer": "eve", "escalated": True}
    (leased,) = call("reviewer", "POST", f"{REVIEWS}/claim", json=adjudicator).json()["items"]
    lease = {"token": leased["token"]}
    assert call("reviewer", "POST", f"{path}/release", json=lease).json() == {"state": "escalated"}
    assert call("reviewer", "GET", path).json()["state"] == "escalated"


def test_the_access_log_says_who_saw_it_and_how(
    call: Callable[..., httpx.Response], service_with_roles: Service
) -> None:
    predict(call, "c-seen", three_or_eight())
    wanted = {"reviewer": "ada", "filters": {"client_id": "c-seen"}}
    (leased,) = call("reviewer", "POST", f"{REVIEWS}/claim", json=wanted).json()["items"]
    path, lease = f"{REVIEWS}/{leased['item']['id']}", {"token": leased["token"]}
    call("reviewer", "POST", f"{path}/resolve", json=lease | {"label": "7"})
    for role in ("reviewer", "admin"):
        call(role, "GET", path)
        call(role, "GET", f"{REVIEWS}?state=resolved&client_id=c-seen")
        call(role, "GET", f"{REVIEWS}/export?client_id=c-seen")
    call("reviewer", "POST", f"{path}/undo", json=lease)
    command = [str(BIN / "rollout"), "review", "access", "digits", "--json"]
    environment = os.environ | {"ROLLOUT_HOME": str(service_with_roles.home)}
    log = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
    digits = {role: hashlib.sha256(f"{role}-token-0123456789".encode()).hexdigest()[:8] for role in ROLES}
    assert [(one["who"], one["role"], one["did"]) for one in log if one["ids"] == [leased["item"]["id"]]] == [
        ("ada", "reviewer", "claim"),
        *((f"token {digits[role]}", role, did) for role in ROLES[1:] for did in ("show", "list", "export")),
        (f"token {digits['reviewer']}", "reviewer", "undo"),
    ]
    assert "token-0123456789" not in json.dumps(log)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "reviewer"),
        ({"reviewer": ""}, "reviewer"),
        ({"reviewer": "a\nb"}, "printable"),
        ({"reviewer": "ada", "count": 0}, "count"),
        ({"reviewer": "ada", "lease_s": 0}, "lease_s"),
        ({"reviewer": "ada", "filters": {"colour": "red"}}, "colour"),
        ({"reviewer": "ada", "colour": 1}, "colour"),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused(
    call: Callable[..., httpx.Response], body: dict[str, Any], words: str
) -> None:
    answer = call("reviewer", "POST", f"{REVIEWS}/claim", json=body)
    assert answer.status_code == 422
    assert words in answer.text


def test_an_app_sees_no_items_and_a_reviewer_no_split(call: Callable[..., httpx.Response]) -> None:
    assert call("app", "GET", REVIEWS).status_code == 403
    assert call("app", "POST", f"{REVIEWS}/claim", json={"reviewer": "ada"}).status_code == 403
    assert call("app", "GET", f"{REVIEWS}/export").status_code == 403
    assert call("reviewer", "GET", "/v1/models/digits/split").status_code == 403


def test_an_audit_and_redaction_follow_the_policy(
    call: Callable[..., httpx.Response], service_with_roles: Service
) -> None:
    """Every confident prediction is audited, and the image is never written down."""
    set_policy(service_with_roles, "audit=1", "redact=image")
    for number in range(40):
        if predict(call, f"audited-{number}", image())["review"] == "queued":
            break
        time.sleep(0.1)
    (item,) = call("reviewer", "GET", f"{REVIEWS}?reason=audit&client_id=audited-{number}").json()["reviews"]
    assert (item["pi"], item["inputs"]) == (1, {"image": None})
    set_policy(service_with_roles, "audit=0", "redact=")


def test_what_is_over_a_budget_is_dropped_and_counted(
    bundles: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("budgets")
    set_split(home, "--champion", "v1")
    item = {"client_id": "c-1", "key": "k-1", "inputs": {"image": three_or_eight()}}
    outcomes = [{"client_id": "c-1", "key": f"never-{number}", "label": "3"} for number in range(5)]
    budgets = {"ROLLOUT_MAX_CLIENT_REVIEW_BYTES": "100", "ROLLOUT_MAX_WAITING_OUTCOMES": "3"}
    with run_service(home, None, ROLLOUT_WORKERS="1", **budgets) as service, service.client() as client:
        answer = client.post("/v1/models/digits/predict", json=item)
        assert (answer.status_code, answer.json()["review"]) == (200, "dropped")
        assert client.post("/v1/models/digits/feedback", json={"outcomes": outcomes}).status_code == 200
        wait_for_metric(client, 1, "rollout_review_items_total", 'fate="dropped"')
        wait_for_metric(client, 2, "rollout_outcomes_total", 'fate="dropped"')


def set_policy(service: Service, *changes: str) -> None:
    """Runs ``rollout review policy``."""
    options = [part for change in changes for part in ("--set", change)]
    subprocess.run(
        [BIN / "rollout", "review", "policy", "digits", *options, "--yes"],
        env=os.environ | {"ROLLOUT_HOME": str(service.home)},
        check=True,
    )
