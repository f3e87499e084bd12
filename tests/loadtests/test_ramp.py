"""A ramp under load, small: three replicas, Redis gone and back, every answer checked; and what would be noticed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from loadtests.callers import CLIENT, Failure, Part, Seen, Tally, send, share_progress
from loadtests.ramp_report import Change, Outcome, faults, show
from rollout.routing.assignment import assign
from rollout.routing.split import Split
from tests.conftest import ROOT

CLIENTS = 50


@pytest.mark.usefixtures("haproxy")
def test_no_request_fails_and_nobody_changes_sides(bundles: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtests.ramp", "--requests", "8000", "--rate", "200"]
    command += ["--store", bundles, "--results", str(tmp_path / "ramp")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing is wrong." in done.stdout
    for name, figure in (("requests", "8,000"), ("failed", "0"), ("clients under two arms in one revision", "0")):
        assert re.search(rf"│ {name} +│ +{figure} │", done.stdout)
    assert len(re.findall(r"│ +(\d+\.\d\d ){3}s │", done.stdout)) == 3, "three changes, three replicas"
    assert "review items go to the spool" in (tmp_path / "ramp" / "replica-1.log").read_text(), "Redis was gone"


@pytest.fixture
def outcome() -> Outcome:
    """A run in which nothing is wrong: a thousand answers of each of two revisions."""
    splits = {
        revision: Split(revision=revision, champion="v1", challenger="v2", share=share, experiment="digits-v1-v2")
        for revision, share in ((1, 0.1), (2, 0.5))
    }
    seen: Counter[Seen] = Counter()
    for revision, split in splits.items():
        for client in range(CLIENTS):
            arm, version, *_ = assign(split, CLIENT.format(client))
            seen[Seen(client, revision, arm, version)] = 20
    tally = Tally(seen=seen, seconds=array("d", [0.01] * 2000), start=10.0, end=12.0)
    return Outcome(
        requests=2000,
        tallies=[tally],
        changes=[Change(2, [0.1, 0.9, 1.9])],
        splits=splits,
        ended_at=[2, 2, 2],
    )


def a_challenger(outcome: Outcome) -> Seen:
    return next(one for one in outcome.tallies[0].seen if one.revision == 2 and one.arm == "challenger")


def test_a_run_in_which_nothing_is_wrong(outcome: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    assert not show(outcome, CLIENTS)
    printed = capsys.readouterr().out
    assert re.search(r"│ requests/s +│ +1,000 │", printed)
    assert re.search(r"│ p50, p99 +│ 10\.0 ms, 10\.0 ms │", printed)
    assert "0.10 0.90 1.90 s" in printed


def test_a_client_under_two_arms_is_noticed(outcome: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    outcome.tallies.append(Tally(seen=Counter([a_challenger(outcome)._replace(arm="control")])))
    assert show(outcome, CLIENTS)
    assert "✗ 1 times a client saw two arms under one revision" in capsys.readouterr().out


def test_another_version_than_the_arms_is_noticed_but_not_a_fallback(outcome: Outcome) -> None:
    one = a_challenger(outcome)
    outcome.tallies.append(Tally(seen=Counter({one._replace(version="v1"): 3, one._replace(version=None): 4})))
    assert faults(outcome, CLIENTS) == ["3 answers came from another arm or version than the split says"]
    assert (outcome.torn, outcome.fallbacks) == (0, 4)


def test_an_answer_of_a_revision_that_never_was_is_noticed(outcome: Outcome) -> None:
    outcome.tallies[0].seen[a_challenger(outcome)._replace(revision=3)] = 1
    assert (outcome.wrong, len(faults(outcome, CLIENTS))) == (1, 1)


def test_failures_and_lost_requests_are_noticed(outcome: Outcome) -> None:
    outcome.tallies[0].failures += [Failure(10.0, "503 overloaded")] * 2
    outcome.requests += 1
    assert faults(outcome, CLIENTS) == [
        "2 requests failed: 503 overloaded",
        "2,000 of 2,001 requests are accounted for",
    ]


def test_replicas_that_are_late_or_left_behind_are_noticed(outcome: Outcome) -> None:
    outcome.changes.append(Change(2, [0.1, 2.1, 0.3]))
    outcome.ended_at = [2, 1, 2]
    assert faults(outcome, CLIENTS) == [
        "a replica took 2.1 s to follow revision 2",
        "in the end the replicas are at revisions [2, 1, 2]",
    ]


def test_shares_that_are_off_and_revisions_without_answers_are_noticed(outcome: Outcome) -> None:
    outcome.tallies[0].seen[a_challenger(outcome)] += 2000
    outcome.splits[3] = outcome.splits[2]
    outcome.ended_at = [3, 3, 3]
    found = faults(outcome, CLIENTS)
    assert any(re.fullmatch(r"revision 2: [\d,]+ of 3,000 answers are challenger's", fault) for fault in found)
    assert "revision 3 was never seen: send for longer, or at a lower --rate" in found


class Behaving(BaseHTTPRequestHandler):
    """Treats each client in its own way."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = int(asked["client_id"].removeprefix("client-"))
        answer: dict[str, Any] = {"client_id": asked["client_id"], "arm": "challenger", "version": "v2"}
        answer |= {"revision": 7, "scores": {"0": 0.1}, "fallback": "error" if number == 5 else None}
        if number == 2:
            answer["client_id"] = CLIENT.format(1)
        if number == 4:
            self.close_connection = True
            return
        body = b"no JSON" if number == 3 else json.dumps(answer).encode()
        self.send_response(503 if number == 1 else 200)
        self.send_header("Content-Length", str(len(body)))
        if number == 6:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body[:10])
        self.wfile.flush()
        self.wfile.write(body[10:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Behaving) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def send_from(port: int, clients: range, rate: float = 0.0, requests: int = 200) -> Tally:
    share_progress(get_context("spawn").Array("q", 1))
    return send(Part(0, clients, requests, rate, port))


def test_every_request_is_accounted_for_by_what_became_of_it(port: int) -> None:
    tally = send_from(port, range(7))
    assert len(tally.seconds) == tally.failed.total() + tally.seen.total() == 200
    reasons = {why[:22] for why in tally.failed}
    assert reasons == {
        '503 {"client_id": "cli',
        "the answer to another ",
        "no prediction: JSON is",
        "the connection was clo",
    }
    assert {(one.client, one.version) for one in tally.seen} == {(0, "v2"), (5, None), (6, "v2")}
    assert {(one.revision, one.arm) for one in tally.seen} == {(7, "challenger")}


def test_without_a_server_every_request_fails() -> None:
    tally = send_from(1, range(7), requests=20)
    assert tally.failed == {"no connection: Connection refused": 20}


def test_the_rate_is_kept(port: int) -> None:
    tally = send_from(port, range(1), rate=200, requests=100)
    assert tally.seen.total() == 100
    assert 0.45 < tally.end - tally.start < 1.5
