"""The split over HTTP: read, change with If-Match, history; segments and the other arm."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import Service, run_service, set_split, settled
from tests.images import row

PREDICT, SPLIT = "/v1/models/digits/predict", "/v1/models/digits/split"


@pytest.fixture(scope="module")
def changing(bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of its own: these tests change its split."""
    home = tmp_path_factory.mktemp("changing")
    set_split(home, "--champion", "v1")
    with run_service(home, ROLLOUT_WORKERS="1") as running:
        yield running


@pytest.fixture
def admin(changing: Service) -> Iterator[httpx.Client]:
    with changing.admin() as client:
        yield client


def put(admin: httpx.Client, split: dict[str, Any], **options: Any) -> httpx.Response:
    """Changes the split from whatever it is."""
    etag = admin.get(SPLIT).headers["ETag"]
    return admin.put(SPLIT, json=split, headers={"If-Match": etag}, **options)


def wait_until_served(admin: httpx.Client, revision: int) -> float:
    """Returns the seconds until the worker follows."""
    since = time.monotonic()
    while admin.get("/v1/models/digits").json()["split"]["revision"] != revision:
        assert time.monotonic() < since + 60
        time.sleep(0.02)
    return time.monotonic() - since


def test_a_change_is_stored_followed_and_recorded(admin: httpx.Client) -> None:
    before = admin.get(SPLIT)
    response = put(admin, {"champion": "v1", "challenger": "v2", "share": 0.25, "why": "first look"})
    assert response.status_code == 200, response.text
    split = response.json()
    assert response.headers["ETag"] == f'"{split["revision"]}"'
    assert split["revision"] == before.json()["revision"] + 1
    assert (split["by"], split["why"], split["experiment"]) == ("admin", "first look", "digits-v1-v2")
    assert set(split["digests"]) == {"v1", "v2"}
    assert admin.get(SPLIT).json() == split
    assert admin.get(f"{SPLIT}/history").json()["history"][-1] == split
    wait_until_served(admin, split["revision"])
    again = put(admin, {**split, "share": 0.5, "by": "mallory", "previous": "v9"})
    assert (again.json()["by"], again.json()["previous"]) == ("admin", None)
    assert wait_until_served(admin, again.json()["revision"]) < 2, "nothing was to be loaded"


def test_the_second_of_two_changes_is_refused(admin: httpx.Client) -> None:
    etag = admin.get(SPLIT).headers["ETag"]
    first, second = (
        admin.put(SPLIT, json={"champion": "v1", "why": why}, headers={"If-Match": etag}) for why in "ab"
    )
    assert (first.status_code, second.status_code) == (200, 412)
    assert second.json()["type"] == "urn:rollout:problem:split-conflict"
    assert "read it again" in second.json()["detail"]
    assert admin.get(SPLIT).json()["why"] == "a"


@pytest.mark.parametrize(
    ("headers", "body", "status", "words"),
    [
        ({}, '{"champion": "v1"}', 428, "If-Match"),
        ({"If-Match": "latest"}, '{"champion": "v1"}', 422, "must be a revision"),
        (None, '{"champion": "v9"}', 422, "there is no bundle digits:v9"),
        (None, '{"champion": "v1", "share": 0.2}', 422, "needs a challenger"),
        (None, '{"champion": "v1", "challenger": "v2", "share": 0.7}', 422, "promote the challenger"),
        (None, '{"champion": "v1", "shadow": "all"}', 422, "/shadow expected float"),
        (None, '{"champion": "v1", "weight": 1}', 422, "unknown field"),
        (None, '{"champion": "v1", "challenger": "v2", "rules": [{"arm": "control"}]}', 422, "/rules/0/arm"),
        (
            None,
            '{"champion": "v1", "challenger": "v2", "rules": [{"arm": "champion"}]}',
            422,
            "a rule names either",
        ),
        (None, "champion: v1", 400, "JSON"),
        (None, "[]", 422, "object"),
    ],
)
def test_bad_changes_are_explained_and_change_nothing(
    admin: httpx.Client, headers: dict[str, str] | None, body: str, status: int, words: str
) -> None:
    before = admin.get(SPLIT)
    headers = {"If-Match": before.headers["ETag"]} if headers is None else headers
    response = admin.put(SPLIT, content=body, headers=headers | {"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    assert words in response.text
    assert admin.get(SPLIT).json() == before.json()


def test_changing_takes_the_admin(changing: Service) -> None:
    with changing.client() as client:
        assert client.put(SPLIT, json={"champion": "v1"}, headers={"If-Match": "1"}).status_code == 401


def test_segments_and_the_other_arm(admin: httpx.Client, changing: Service) -> None:
    rules = [
        {"arm": "champion", "clients": ["big-*"]},
        {"arm": "challenger", "segments": ["beta"]},
    ]
    split = put(admin, {"champion": "v1", "challenger": "v2", "rules": rules}).json()
    wait_until_served(admin, split["revision"])
    with changing.client() as app:

        def arm(client_id: str, **headers: str) -> str:
            answer = app.post(PREDICT, json=row(client_id=client_id), headers=headers).json()
            assert answer["revision"] == split["revision"]
            return str(answer["arm"])

        assert arm("c-1") == "champion"
        assert arm("c-1", **{"X-Client-Segment": "beta"}) == "challenger"
        assert arm("big-1", **{"X-Client-Segment": "beta"}) == "champion"
        assert "1 to 128 printable" in app.post(PREDICT, json=row(), headers={"X-Client-Segment": ""}).text
        assigned = app.get("/v1/models/digits/assignments/c-1?segment=beta").json()
        assert (assigned["arm"], assigned["bucket"]) == ("challenger", None)
        look = {"X-Rollout-Arm": "challenger"}
        assert app.post(PREDICT, json=row(), headers=look).status_code == 401
    other = admin.post(PREDICT, json=row(), headers=look).json()
    assert (other["arm"], other["version"], other["review"]) == ("challenger", "v2", None)
    nonsense = admin.post(PREDICT, json=row(), headers={"X-Rollout-Arm": "control"})
    assert "must be champion or challenger" in nonsense.text
    streamed = admin.post(
        PREDICT, json=row(), headers={"X-Rollout-Arm": "challenger", "Content-Type": "application/x-ndjson"}
    ).json()
    assert streamed["version"] == "v2"


def test_looking_at_the_other_arm_counts_for_nothing(admin: httpx.Client) -> None:
    before = settled(admin, "rollout_predictions_total")
    for _ in range(5):
        admin.post(PREDICT, json=row(), headers={"X-Rollout-Arm": "champion"})
    assert settled(admin, "rollout_predictions_total") == before
