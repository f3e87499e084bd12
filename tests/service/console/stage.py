"""A console with a real Valkey and no models behind it, traffic as workers would write it, and clients."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import httpx
import msgspec
from starlette.applications import Starlette

from rollout.buckets import SECONDS_BUCKETS
from rollout.bundle.fields import Field, Tensor
from rollout.bundle.image import Image
from rollout.bundle.numbers import Time
from rollout.bundle.schema import InputSchema
from rollout.bundle.texts import Category, Text
from rollout.config import Settings
from rollout.errors import UnknownModelError
from rollout.heads import Classification, Head, Heads, Regression, TokenLabels
from rollout.http.dispatcher import Dispatcher
from rollout.http.gateway import Gateway
from rollout.inference.engine import Engine
from rollout.routing.assignment import Arm
from rollout.routing.split import Split
from rollout.routing.splits import read_split, write_split
from rollout.routing.traffic import Worker, add_traffic
from rollout.store import Redis
from service.console import console_routes
from tests.review.kinds import TOPICS, Silent, Topics

APP, REVIEWER, ADMIN = "app-token-0123456789", "reviewer-token-01234", "admin-token-01234567"
TOKENS = f"app:{APP},reviewer:{REVIEWER},admin:{ADMIN}"
DIGESTS = {"v1": "1" * 64, "v2": "2" * 64}
ALONE = Split(champion="v1", digests=DIGESTS, by="ada", why="the first version")
TRIAL = Split(
    champion="v1",
    challenger="v2",
    share=0.05,
    experiment="digits-v1-v2",
    digests=DIGESTS,
    by="grace",
    why="the convolutional network",
)
MODEL = "/console/models/digits"
NAME = "Rita Reviewer"
DIGITS = [str(digit) for digit in range(10)]
LANGUAGES = ["de", "en", "es", "fr", "it", "nl", "pl", "pt", "sv"]
BIRDS = ["blackbird", "blackcap", "blue tit", "chaffinch", "coal tit", "dunnock", "goldfinch", "great tit",
         "greenfinch", "house sparrow", "magpie", "nuthatch", "robin", "siskin", "starling", "wren"]  # fmt: skip
FLIGHTS = Heads(
    heads={
        "late": Classification(labels=["no", "yes"], review_threshold=0.6),
        "minutes": Regression(widest=12),
        "cause": Classification(labels=["weather", "carrier", "airport"], review_threshold=0.6),
        "topics": Topics(names=TOPICS),
        "place": Silent(),
    }
)
SERVED: dict[str, tuple[dict[str, Field], Head]] = {
    "digits": ({"image": Image(height=8, width=8)}, Classification(labels=DIGITS)),
    "languages": ({"text": Text()}, Classification(labels=LANGUAGES)),
    "departures": ({"at": Time(), "origin": Category(values=("EWR", "JFK", "LGA"))}, Regression(widest=12)),
    "names": ({"title": Text(), "text": Text()}, TokenLabels(labels=["name", "place"], positions=512)),
    "topics": ({"text": Text()}, Topics(names=TOPICS)),
    "flights": ({"at": Time(), "origin": Category(values=("EWR", "JFK", "LGA"))}, FLIGHTS),
    "birds": ({"song": Tensor(shape=(8000,), sample_rate=8000)}, Classification(labels=BIRDS)),
}
Counts = dict[tuple[Arm, str, str], int]


class StandIn:
    """What the console asks of an engine."""

    def __init__(self, redis: Redis, **splits: Split) -> None:
        self.redis = redis
        self.models: dict[str, Any] = {
            name: SimpleNamespace(
                name=name,
                split=split,
                schema=InputSchema(SERVED[name][0]),
                task=SERVED[name][1],
                snapshot=SimpleNamespace(challenger=_ungated(split.challenger)),
            )
            for name, split in splits.items()
        }

    def model(self, name: str) -> Any:
        """Returns a model, as the engine does."""
        if name not in self.models:
            raise UnknownModelError(f"there is no model {name!r}")
        return self.models[name]


def _ungated(version: str | None) -> Any:
    """Returns a challenger that no gate was run on."""
    return version and SimpleNamespace(version=version, manifest=SimpleNamespace(gate=None))


def make_app(redis: Redis, settings: Settings, **splits: Split) -> Dispatcher:
    """Returns an application with the console alone."""
    gateway = Gateway()
    gateway.open(cast("Engine", StandIn(redis, **splits)), settings)
    return Dispatcher(Starlette(), gateway, lambda _: console_routes(gateway))


async def write_history(redis: Redis, model: str, *splits: Split) -> Split:
    """Writes splits one after the other and returns the last."""
    stored = Split(champion="none")
    for split in splits:
        stored = await write_split(redis, model, msgspec.structs.replace(split, revision=stored.revision))
    return stored


def some_traffic(arm: Arm, version: str, rows: int, *, seconds: float = 0.001, sure: float = 0.9) -> Counts:
    """Returns the counts of an arm whose latencies lie about ``seconds``, with a share of ``sure`` confidences."""
    unsure = [0, 0, 0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.5, 2]
    weights = {
        "seconds": [0.55 ** abs(upper / seconds - 1) for upper in SECONDS_BUCKETS],
        "confidence": [*((1 - sure) * one / sum(unsure) for one in unsure), sure * 0.35, sure * 0.65],
    }
    counts: Counts = {(arm, version, "predictions"): rows}
    for name, shares in weights.items():
        for index, share in enumerate(shares):
            counts[arm, version, f"{name}.{index}"] = round(rows * share / sum(shares))
    return {key: count for key, count in counts.items() if count}


async def add(redis: Redis, counts: Counts, worker: str = "replica-1:17", **state: Any) -> None:
    """Adds counts of ``digits`` as a worker does."""
    variants = {"v1": "onnx", "v2": "onnx-int8"}
    await add_traffic(redis, "digits", counts, Worker(id=worker, variants=variants, **{"revision": 1, **state}))


class Browser(httpx.AsyncClient):
    """A client that keeps cookies and fills in the token of forms."""

    csrf = ""

    async def log_in(self, token: str, name: str = "") -> httpx.Response:
        """Logs in and remembers what forms carry; who must have a name gets one."""
        name = name or (NAME if token.strip() == REVIEWER else "")
        answer = await self.post("/console/login", data={"token": token, "name": name})
        if answer.status_code == 303:
            found = re.search(
                r'name="csrf" value="(\w+)"', (await self.get("/console", follow_redirects=True)).text
            )
            self.csrf = "" if found is None else found[1]
        return answer

    async def fill(self, path: str, **form: str) -> httpx.Response:
        """Sends a form of the model's page."""
        return await self.post(f"{MODEL}/{path}", data={"csrf": self.csrf} | form)


class Stage:
    """A console with two splits in Redis; ``browser`` opens a browser on it."""

    def __init__(self, redis: Redis, settings: Settings, served: Split) -> None:
        self.redis = redis
        self.app = make_app(redis, settings, digits=served)

    @asynccontextmanager
    async def browser(self, token: str = "", **options: Any) -> AsyncIterator[Browser]:
        """Opens a browser, and logs in where there is a token."""
        transport = httpx.ASGITransport(self.app)
        async with Browser(transport=transport, base_url="http://console", **options) as browser:
            if token:
                await browser.log_in(token)
            yield browser

    async def split(self) -> Split:
        """Returns the split."""
        split = await read_split(self.redis, "digits")
        assert split is not None
        return split


def text_of(answer: httpx.Response) -> str:
    """Returns what a page says, without its tags."""
    body = re.sub(r"<(script|style|head).*?</\1>", " ", answer.text, flags=re.S)
    body = re.sub(r"</(?:td|th|li|h\d)>", " ", body)  # cells stand apart
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", "", body)))
