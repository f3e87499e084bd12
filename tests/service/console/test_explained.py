"""Why the model says what it says, on the review page: on a key, and noted with the answer."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from playwright.async_api import expect

from rollout import Image, Number, Text
from rollout.bundle.fields import Field
from rollout.explain.explanation import Attribution, Explanation
from rollout.review.export import ExportRow
from service.console.explained import view
from tests.conftest import Service, run_service, set_split
from tests.images import three_or_eight
from tests.service.console.browser import browsing, log_in

DESK = "/console/models/digits/review"
NAME = "Ada"


@pytest.fixture
def service_alone(bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("explained")
    set_split(home, "--champion", "v1")
    with run_service(home, ROLLOUT_WORKERS="1", ROLLOUT_EXPLAIN_TIMEOUT_S="120") as running:
        yield running


async def test_nothing_is_shown_before_the_key_and_that_it_was_is_kept_with_the_answer(
    chromium: str, service_alone: Service
) -> None:
    with service_alone.client(headers={"Authorization": f"Bearer {service_alone.token}"}) as client:
        for number in range(2):
            body = {"client_id": f"c{number}", "key": f"k{number}", "inputs": {"image": three_or_eight()}}
            assert client.post("/v1/models/digits/predict", json=body).json()["review"] == "queued"
        async with browsing(chromium, service_alone.base) as page:
            asked = []
            page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
            await log_in(page, service_alone.token, DESK, NAME)
            await expect(page.locator("#item figure img")).to_be_visible()
            assert not await page.locator(".why").count()
            assert "explain" not in asked
            await page.keyboard.press("w")
            why = page.get_by_role("region", name="Why the model says this")
            await expect(why.locator("h2")).to_contain_text("Why: the score of", timeout=120_000)
            assert await why.locator("rect").count() > 10
            await page.keyboard.press("w")
            await expect(why).to_be_hidden()
            await page.keyboard.press("w")
            await expect(why).to_be_visible()
            assert asked.count("explain") == 1
            await page.keyboard.press("3")
            await expect(page.locator("#decided")).to_have_text("1")
            await expect(page.locator(".why")).to_have_count(0)  # of another item nothing was asked
            await page.keyboard.press("3")
            await expect(page.locator("#decided")).to_have_text("2")
            await expect(page.locator("#item")).to_have_text("Nothing to review.")
        text = client.get("/v1/models/digits/reviews/export").text
        rows = [msgspec.json.decode(line, type=ExportRow) for line in text.splitlines()]
    assert sorted((row.reviewers, row.explained) for row in rows) == [([NAME], []), ([NAME], [NAME])]


def test_image_words_and_features_are_shown_each_in_its_way() -> None:
    fields: dict[str, Field] = {"image": Image(height=4, width=4), "text": Text(max_bytes=20), "speed": Number()}
    row = {
        "image": np.zeros((1, 4, 4), np.uint8),
        "text": fields["text"].encode(["<b>so</b> late"]),
        "speed": np.array([7], np.float32),
    }
    explanation = Explanation(
        model="m",
        version="v1",
        variant="onnx",
        explained="the score of <late>",
        label="<late>",
        head="",
        value=0.75,
        attributions=[
            Attribution(field="image", attribution=-0.2, box=(0, 0, 2, 4)),
            Attribution(field="image", attribution=0.0, box=(2, 0, 4, 4)),
            Attribution(field="text", attribution=0.0, span=(0, 9), value="<b>so</b>"),
            Attribution(field="text", attribution=0.4, span=(10, 14), value="late"),
            Attribution(field="speed", attribution=0.1, value="7"),
        ],
        passes=[],
        seed=0,
    )
    html = view(explanation, fields, row)
    assert "the score of &lt;late&gt; is 0.75" in html
    assert html.count('<rect class="down" x="0" y="0" width="2" height="4" fill-opacity="0.375"/>') == 1
    assert '&lt;b&gt;so&lt;/b&gt; <mark class="up level-5" title="+0.4">late</mark>' in html
    assert '<th scope="row">speed</th><td>7</td>' in html
    assert "style=" not in html  # the content security policy forbids it
