"""Realistic users: most are steady, some come in bursts, some send rubbish.

``make load`` opens locust's web page; ``make load HEADLESS=30s`` prints a summary after half a minute.
"""

from __future__ import annotations

import json
import logging
import random
import urllib.parse
import uuid
from typing import Any

import gevent.pool
from locust import FastHttpUser, between, events, task
from locust.contrib.fasthttp import ResponseContextManager
from locust.env import Environment

from loadtests.bodies import images

MODEL = "digits"
PREDICT = f"/v1/models/{MODEL}/predict"
BURST = 20
MANY = 64
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def _inputs() -> dict[str, Any]:
    return {"image": random.choice(images()).tolist()}


def _refusal(response: ResponseContextManager) -> str | None:
    return None if response.status_code == 200 else f"{response.status_code}: {response.text}"


def _settle(response: ResponseContextManager, wrong: str | None) -> None:
    if wrong is None:
        response.success()
    else:
        response.failure(wrong)


class Client(FastHttpUser):
    """A client with an ID of its own, who must keep the arm that the first answer names."""

    abstract = True
    host = "http://127.0.0.1:3000"
    concurrency = BURST
    kind: str

    def on_start(self) -> None:
        """Chooses an ID."""
        self.client_id = f"{self.kind}-{uuid.uuid4()}"
        self.arm: str | None = None

    def predict(self, rows: int = 1) -> None:
        """Asks for predictions, each under a key of its own."""
        instances = [
            {"client_id": self.client_id, "key": str(uuid.uuid4()), "inputs": _inputs()} for _ in range(rows)
        ]
        body = instances[0] if rows == 1 else {"instances": instances}
        name = f"{self.kind}: predict {rows}"
        with self.client.post(PREDICT, json=body, name=name, catch_response=True) as response:
            wrong = _refusal(response)
            if wrong is None:
                predictions = [response.json()] if rows == 1 else response.json()["predictions"]
                if [one["key"] for one in predictions] != [one["key"] for one in instances]:
                    wrong = "not what was asked for, or in another order"
                wrong = wrong or self.check_arms({one["arm"] for one in predictions})
            _settle(response, wrong)

    def check_arms(self, arms: set[str]) -> str | None:
        """Says what is wrong if this client is not in the one arm in which it was before."""
        if self.arm is None:
            (self.arm,) = arms
        return None if arms == {self.arm} else f"was in {self.arm}, is in {arms}"


class Steady(Client):
    """Asks about twice a second, and now and then where it stands."""

    kind = "steady"
    weight = 8
    wait_time = between(0.2, 0.8)

    @task(20)
    def one(self) -> None:
        """One prediction."""
        self.predict()

    @task(1)
    def assignment(self) -> None:
        """The arm by itself, which is that of the predictions."""
        path = f"/v1/models/{MODEL}/assignments/{self.client_id}"
        with self.client.get(path, name="steady: assignment", catch_response=True) as response:
            _settle(response, _refusal(response) or self.check_arms({response.json()["arm"]}))


class Bursty(Client):
    """Is silent for seconds, then asks for much at once."""

    kind = "bursty"
    weight = 2
    wait_time = between(2, 6)

    @task(2)
    def burst(self) -> None:
        """Many single predictions side by side."""
        pool = gevent.pool.Pool(BURST)
        for _ in range(BURST):
            pool.spawn(self.predict)
        pool.join()

    @task(1)
    def many(self) -> None:
        """Many rows in one request."""
        self.predict(MANY)


class Rubbish(FastHttpUser):
    """Sends what nobody can answer, and must be told so: a 4xx with a problem document is a success."""

    weight = 1
    host = Client.host
    wait_time = between(0.2, 0.8)

    @task
    def rubbish(self) -> None:
        """One bad request."""
        what, path, body = random.choice(RUBBISH)
        headers = {"Content-Type": "application/json"}
        with self.client.post(
            path, data=body, headers=headers, name=f"rubbish: {what}", catch_response=True
        ) as response:
            if not 400 <= response.status_code < 500:
                wrong = f"was answered with {response.status_code}"
            elif response.json()["status"] != response.status_code:
                wrong = "the problem document tells another status"
            else:
                wrong = None
            _settle(response, wrong)


def _body(**changed: object) -> str:
    body = {"client_id": "rubbish", "inputs": _inputs(), **changed}
    return json.dumps({name: value for name, value in body.items() if value is not None})


RUBBISH = [
    ("not JSON", PREDICT, '{"client_id": '),
    ("no client", PREDICT, _body(client_id=None)),
    ("another shape", PREDICT, _body(inputs={"image": [[1, 2], [3, 4]]})),
    ("not numbers", PREDICT, _body(inputs={"image": [["dark"] * 32] * 32})),
    ("out of range", PREDICT, _body(inputs={"image": [[256] * 32] * 32})),
    ("no such field", PREDICT, _body(picture=[])),
    ("no such model", "/v1/models/no-such-model/predict", _body()),
    ("no instances", PREDICT, '{"instances": []}'),
]


@events.test_start.add_listener
def stay_at_home(environment: Environment, **_: object) -> None:
    """Refuses to send anything to another machine."""
    host = environment.host or Client.host
    if urllib.parse.urlsplit(host).hostname not in LOOPBACK and environment.runner is not None:
        logging.getLogger(__name__).error("%s is not this machine: load goes to loopback only", host)
        environment.process_exit_code = 1
        environment.runner.quit()
