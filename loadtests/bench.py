"""``make bench``: this service and bare BentoML, side by side in one run.

Each contender serves the same ONNX file with one worker. They are alternated, and the table holds medians over
the rounds: this machine's speed drifts, their ratio does not.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
import psutil

from models.digits import data

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
CONNECTIONS = (1, 32, 128)
BODIES = 1000


class Contender(NamedTuple):
    """A server under test."""

    name: str
    url: str
    bodies: Path
    process: psutil.Process


class Sample(msgspec.Struct):
    """One run of the load generator against one contender."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failures: int
    cpu_s: float = 0.0

    @property
    def rate(self) -> float:
        """Requests answered a second."""
        return (self.requests - self.failures) / self.seconds

    @property
    def cpu_per_1000(self) -> float:
        """CPU seconds of all the contender's processes for 1,000 predictions."""
        return self.cpu_s / max(1, self.requests - self.failures) * 1000


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Rounds; the table holds their medians.")
@click.option("--seconds", default=4, show_default=True, help="Length of one run.")
@click.option("--results", default=ROOT / "loadtests" / "results", type=click.Path(path_type=Path))
def main(rounds: int, seconds: int, results: Path) -> None:
    """Starts the contenders, measures them in turn, prints the table."""
    results.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "ROLLOUT_HOME": str(results / "home"),
        "BENTOML_HOME": str(results / "home" / "bentoml"),
        "ROLLOUT_WORKERS": "1",
        "ROLLOUT_VARIANT": "onnx",  # the file that bare BentoML serves
    }
    rollout = str(BIN / "rollout")
    subprocess.run([rollout, "build", "models/digits"], cwd=ROOT, env=environment, check=True)
    split = ["--champion", "v2", "--challenger", "v1", "--share", "0.1"]
    subprocess.run([rollout, "split", "set", "digits", *split], cwd=ROOT, env=environment, check=True)
    (onnx,) = Path(environment["BENTOML_HOME"]).glob("models/digits/v2/onnx/model.onnx")
    ours, bare = _free_port(), _free_port()
    with (
        _server([rollout, "serve", "--port", str(ours)], environment, ours, results) as our_process,
        _server(
            [
                str(BIN / "bentoml"),
                "serve",
                "loadtests.bare_bentoml:Bare",
                "--host",
                "127.0.0.1",
                "--port",
                str(bare),
            ],
            environment | {"BENCH_ONNX": str(onnx)},
            bare,
            results,
        ) as bare_process,
    ):
        contenders = [
            Contender(
                "Rollout",
                f"http://127.0.0.1:{ours}/v1/models/digits/predict",
                _bodies(results, "rollout"),
                our_process,
            ),
            Contender("bare BentoML", f"http://127.0.0.1:{bare}/predict", _bodies(results, "bare"), bare_process),
        ]
        samples = _measure(contenders, rounds, seconds)
    report = _report([contender.name for contender in contenders], samples)
    (results / "bench.md").write_text(report)
    print(report)


def _measure(contenders: list[Contender], rounds: int, seconds: int) -> dict[tuple[str, int], list[Sample]]:
    for contender in contenders:
        _run(contender, 32, seconds)  # warm-up, which BentoML's batcher learns from
    samples: dict[tuple[str, int], list[Sample]] = {}
    for number in range(rounds):
        for connections in CONNECTIONS:
            # Who goes first changes from round to round.
            for contender in contenders if number % 2 == 0 else contenders[::-1]:
                sample = _run(contender, connections, seconds)
                samples.setdefault((contender.name, connections), []).append(sample)
                print(
                    f"round {number + 1}/{rounds}, {connections:3} connections, {contender.name}: "
                    f"{sample.rate:,.0f} req/s",
                    file=sys.stderr,
                )
    return samples


def _run(contender: Contender, connections: int, seconds: int) -> Sample:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    command += ["-s", str(ROOT / "loadtests" / "wrk.lua"), contender.url, "--", str(contender.bodies)]
    before = _cpu_seconds(contender.process)
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    sample = msgspec.json.decode(output.strip().splitlines()[-1], type=Sample)
    sample.cpu_s = _cpu_seconds(contender.process) - before
    return sample


def _cpu_seconds(process: psutil.Process) -> float:
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        times = one.cpu_times()
        total += times.user + times.system
    return total


def _bodies(results: Path, contender: str) -> Path:
    """Writes real test images as request bodies, each from another client under its own key."""
    images = data.load().evaluation.inputs["image"].tolist()
    path = results / f"bodies-{contender}.jsonl"
    with path.open("w") as file:
        for number in range(BODIES):
            image = images[number % len(images)]
            body: dict[str, object] = {"image": [image]}
            if contender == "rollout":
                body = {"client_id": f"client-{number}", "key": f"key-{number}", "inputs": {"image": image}}
            file.write(json.dumps(body, separators=(",", ":")) + "\n")
    return path


@contextlib.contextmanager
def _server(
    command: list[str], environment: dict[str, str], port: int, results: Path
) -> Iterator[psutil.Process]:
    with (results / f"server-{port}.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            _wait_ready(port, process, results)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


def _wait_ready(port: int, process: subprocess.Popen[bytes], results: Path) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz"):
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"the server on port {port} did not start; {results}/server-{port}.log says why")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _report(names: list[str], samples: dict[tuple[str, int], list[Sample]]) -> str:
    def median(name: str, connections: int, figure: str) -> float:
        return float(statistics.median(getattr(sample, figure) for sample in samples[name, connections]))

    rounds = len(samples[names[0], CONNECTIONS[0]])
    lines = [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {os.cpu_count()} cores ({_cpu_name()}), Python "
        f"{platform.python_version()}, one worker each, load on the same machine, medians of {rounds} rounds.",
        "",
        "| connections | server | req/s | p50 ms | p99 ms | CPU s per 1,000 | failures |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for connections in CONNECTIONS:
        for name in names:
            failures = sum(sample.failures for sample in samples[name, connections])
            lines.append(
                f"| {connections} | {name} | {median(name, connections, 'rate'):,.0f} "
                f"| {median(name, connections, 'p50_ms'):.2f} | {median(name, connections, 'p99_ms'):.2f} "
                f"| {median(name, connections, 'cpu_per_1000'):.3f} | {failures} |"
            )
        ours, other = names
        rate = median(ours, connections, "rate") / median(other, connections, "rate")
        p50 = median(other, connections, "p50_ms") / median(ours, connections, "p50_ms")
        cpu = median(other, connections, "cpu_per_1000") / median(ours, connections, "cpu_per_1000")
        lines.append(f"| {connections} | **ratio** | **{rate:.1f}×** | **{p50:.1f}×** | | **{cpu:.1f}×** | |")
    return "\n".join(lines) + "\n"


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
