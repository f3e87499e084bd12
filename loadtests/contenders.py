"""The contenders: how each is started and asked."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from loadtests import bodies
from loadtests.bodies import Request
from loadtests.ours import SERVE, Models
from loadtests.servers import ROOT, Server, StartError, running

PEERS = ROOT / "loadtests" / "peers"


class Contender(NamedTuple):
    """A server under test.

    Attributes:
        name: As the report calls it.
        peer: As the command line calls it, and its file in ``loadtests/peers``.
        command: What starts it, from its own environment.
        path: Where it takes one image.
        body: What it takes there.
        environment: Variables of its own.
        binary: Where it takes binary tensors, if it does.
        share: For Rollout, the challenger's share of a trial.
        shadow: For Rollout, the share of the requests that the challenger scores unseen.
        has_environment: Whether it runs from an environment of its own.
    """

    name: str
    peer: str
    command: tuple[str, ...]
    path: str
    body: Callable[[bodies.Image, int], dict[str, Any]] = bodies.image_body
    environment: Mapping[str, str] = {}
    binary: str | None = None
    share: float = 0.0
    shadow: float = 0.0
    has_environment: bool = True

    @property
    def is_ours(self) -> bool:
        """Whether it is Rollout."""
        return self.peer == "rollout"

    def requests(self, model: str) -> list[Request]:
        """Returns the requests of one image each."""
        path = self.path.format(model=model)
        return [
            bodies.json_request(path, self.body(image, number))
            for number, image in enumerate(bodies.images().tolist())
        ]

    def binary_requests(self, model: str) -> list[Request]:
        """Returns the requests of 64 rows each; none where it does not take them."""
        return [] if self.binary is None else bodies.binary_requests(self.binary.format(model=model))

    def install(self) -> None:
        """Makes its environment.

        Raises:
            StartError: If it cannot be installed here.
        """
        if not self.has_environment:
            return
        done = subprocess.run(
            [PEERS / "install", self.peer],
            env=os.environ | {"PYTHON": sys.executable},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "ERROR" in line] or [done.stderr.strip()]
            raise StartError(f"does not install: {errors[-1]}")

    @contextlib.contextmanager
    def running(self, models: Models, model: str, folder: Path) -> Iterator[Server]:
        """Serves a model until the block ends.

        Raises:
            StartError: If it does not start.
        """
        command = self.command
        if self.is_ours:
            environment = {**models.home(model, self.share, self.shadow), **self.environment}
        else:
            environment = {"BENCH_ONNX": str(models.onnx(model)), **self.environment}
            if self.has_environment:
                program, *arguments = command
                command = (str(PEERS / ".venv" / self.peer / "bin" / program), *arguments)
        log = folder / f"{re.sub(r'[^a-z0-9]+', '-', self.name.lower())}-{model}.log"
        with running(command, environment, self.requests(model)[0], log) as server:
            yield server


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return ("python", "-m", f"loadtests.peers.{name}", *arguments)


def _rollout(name: str, share: float, **environment: str) -> Contender:
    path, binary = "/v1/models/{model}/predict", "/v2/models/{model}/infer"
    return Contender(
        name, "rollout", SERVE, path, bodies.rollout_body, environment, binary, share, has_environment=False
    )


def _mosec(name: str, workers: int) -> Contender:
    command = _module("mosec", "--address", "127.0.0.1", "--port", "{port}", "--log-level", "warning")
    return Contender(name, "mosec", command, "/inference", environment={"BENCH_WORKERS": str(workers)})


FP32 = {"ROLLOUT_VARIANT": "onnx"}

# One worker each unless said. Rollout serves a trial of equals at a share of 10 %, with review and metrics.
ONE = _rollout("Rollout, one worker", 0.1, ROLLOUT_WORKERS="1", **FP32)
TWO = _rollout("Rollout, two workers", 0.1, ROLLOUT_WORKERS="2", **FP32)
AS_IT_COMES = _rollout("Rollout, out of the box", 0.1)
MOSEC_ONE = _mosec("mosec, one worker", 1)
MOSEC_TWO = _mosec("mosec, two workers", 2)
FASTAPI = Contender(
    "FastAPI",
    "fastapi",
    ("uvicorn", "loadtests.peers.fastapi:app", "--host", "127.0.0.1", "--port", "{port}", "--no-access-log"),
    "/predict",
)
LITSERVE = Contender("LitServe", "litserve", _module("litserve"), "/predict")
BENTOML = Contender(
    "bare BentoML",
    "bentoml",
    ("bentoml", "serve", "loadtests.peers.bentoml:Bare", "--host", "127.0.0.1", "--port", "{port}"),
    "/predict",
    bodies.batch_body,
    {"BENTOML_DO_NOT_TRACK": "True"},
)
PYTRITON = Contender(
    "PyTriton",
    "pytriton",
    _module("pytriton"),
    "/v2/models/digits/infer",
    bodies.inference_protocol_body,
    # Its documentation asks for the libpython of the interpreter that runs it.
    {"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))},
    "/v2/models/digits/infer",
)
RAY = Contender("Ray Serve", "ray", _module("ray"), "/")
# What it costs to read a request and to write an answer, and nothing else.
FLOOR = Contender(
    "constant answer",
    "floor",
    (sys.executable, "-m", "loadtests.peers.floor", "--port", "{port}"),
    "/",
    has_environment=False,
)
CONTENDERS = (ONE, TWO, AS_IT_COMES, MOSEC_ONE, MOSEC_TWO, FASTAPI, LITSERVE, BENTOML, PYTRITON, RAY, FLOOR)

# What A/B, review and metrics cost: half of the clients on either of two versions with the same weights, against
# the champion alone with the two others replaced by nothing.
EVERYTHING_ON = _rollout("Rollout, trial at 50 %", 0.5, ROLLOUT_WORKERS="2", **FP32)._replace(binary=None)
EVERYTHING_OFF = _rollout(
    "Rollout without A/B, review, metrics",
    0.0,
    ROLLOUT_WORKERS="2",
    PYTHONPATH=str(ROOT / "loadtests" / "plain"),
    **FP32,
)._replace(binary=None)

# What it costs the others that the challenger scores all their requests unseen, while there is little to do.
SHADOW_OFF = _rollout("Rollout, no shadow", 0.0, ROLLOUT_WORKERS="2", **FP32)
SHADOW_ON = SHADOW_OFF._replace(name="Rollout, shadow at 100 %", shadow=1.0)
