"""Closed loop: wrk keeps a number of connections busy, each sending its next request once it has an answer."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import msgspec

from loadtests.servers import ROOT, Server
from loadtests.usage import Peak, cpu_seconds


class Sample(msgspec.Struct):
    """One run of the load generator against one server.

    Attributes:
        requests: Requests answered, rightly or not.
        seconds: How long it ran.
        p50_ms: Median latency.
        p99_ms: Latency of the slowest hundredth.
        failures: Requests without an answer, or with another status than 2xx or 3xx.
        rows: Rows in each request.
        cpu_s: CPU seconds that all the server's processes took.
        peak_mib: Most memory that they held.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failures: int
    rows: int = 1
    cpu_s: float = 0.0
    peak_mib: float = 0.0

    @property
    def predictions(self) -> int:
        """Rows that were answered."""
        return (self.requests - self.failures) * self.rows

    @property
    def rate(self) -> float:
        """Rows answered a second."""
        return self.predictions / self.seconds

    @property
    def cpu_per_1000(self) -> float:
        """CPU seconds for 1,000 predictions."""
        return self.cpu_s / max(1, self.predictions) * 1000


def run(server: Server, requests: Path, connections: int, seconds: float, rows: int = 1) -> Sample:
    """Sends the requests of a file in turn over a number of connections."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "10s"]
    first_key = int(time.time()) % 100_000 * 100_000  # no two runs send the same
    command += ["-s", str(ROOT / "loadtests" / "wrk.lua"), server.url, "--", str(requests), str(first_key)]
    before = cpu_seconds(server.process)
    with Peak(server.process) as peak:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    sample = msgspec.json.decode(output.strip().splitlines()[-1], type=Sample)
    sample.rows, sample.peak_mib = rows, peak.mib
    sample.cpu_s = cpu_seconds(server.process) - before
    return sample
