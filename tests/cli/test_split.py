"""``rollout split``: every command and every exit code, on a real Valkey and, where it asks, in a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from rollout.cli import cli
from rollout.judge.policy import Policy
from rollout.routing.assignment import assign
from rollout.routing.split import Rule, Split
from rollout.routing.splits import read_history, read_split, write_split
from rollout.routing.traffic import Worker, add_traffic
from rollout.store import Redis
from tests.cli.test_gate_and_sign import write_keys
from tests.commands import rollout
from tests.conftest import BIN, ROOT

ALONE = ("set", "digits", "--champion", "v1", "--yes")
TRIAL = ("set", "digits", "--champion", "v1", "--challenger", "v2", "--share", "5%", "--yes")
RULES = [
    {"arm": "challenger", "clients": ["tester-*", "acme"]},
    {"arm": "champion", "segments": ["enterprise"]},
]


class Command:
    """``rollout split``, or another group of commands, on the session's Valkey."""

    def __init__(self, home: Path, redis_url: str, group: str = "split") -> None:
        self.folder = home
        self.group = group
        self.environment = os.environ | {
            "ROLLOUT_HOME": str(home),
            "ROLLOUT_REDIS_URL": redis_url,
            "COLUMNS": "120",
            "LOGNAME": "ada",
        }

    def __call__(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Runs it where nobody can be asked; returns what it printed on stdout, then on stderr."""
        done = rollout(self.group, *arguments, environment=self.environment | environment)
        assert done.returncode == code, done.stderr
        self.errors = done.stderr
        return done.stdout

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Runs it with ``--json``; returns what it printed."""
        return json.loads(self(*arguments, "--json", code=code))

    def ask(
        self, *arguments: str, answer: bytes, code: int, meanwhile: Callable[[], object] = lambda: None
    ) -> str:
        """Runs it in a terminal and answers its question; returns what it printed."""
        terminal, end = pty.openpty()
        process = subprocess.Popen(
            [BIN / "rollout", self.group, *arguments],
            cwd=ROOT,
            env=self.environment | {"TERM": "xterm"},
            stdin=end,
            stdout=end,
            stderr=end,
            # Whoever runs the tests in the background has it ignored, which would be inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        os.close(end)
        printed = b""
        while b"[y/N] " not in printed:
            printed += os.read(terminal, 1024)
        meanwhile()
        self._answer(process, terminal, answer)
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            if answer in (b"^C", b"\x04") and not select.select([terminal], [], [], 5)[0]:
                self._answer(process, terminal, answer)  # it came before anybody listened
                continue
            try:
                printed += os.read(terminal, 1024)
            except OSError:  # it is closed
                break
        os.close(terminal)
        assert process.wait(30) == code, printed
        return printed.decode().replace("\r\n", "\n")

    def _answer(self, process: subprocess.Popen[bytes], terminal: int, answer: bytes) -> None:
        if answer == b"^C":
            process.send_signal(signal.SIGINT)
        else:
            os.write(terminal, answer)

    def file(self, value: Any) -> str:
        """Writes JSON into a file; returns its name."""
        path = self.folder / "file.json"
        path.write_text(json.dumps(value))
        return str(path)


@pytest.fixture
def split(bundles: str, redis: Redis, valkey_url: str, tmp_path: Path) -> Command:
    return Command(tmp_path, valkey_url)


async def test_the_first_split_is_set_without_a_question(split: Command) -> None:
    split("show", "digits", code=1)
    assert split.errors == (
        "rollout: digits has no split; `rollout split set digits --champion VERSION` makes one\n"
    )
    for command in (("history", "digits"), ("assign", "digits", "c-1"), ("ramp", "digits", "5%")):
        split(*command, code=1)
        assert "digits has no split" in split.errors
    assert split(*ALONE[:-1], "--why", "start") == "digits is at revision 1\n"
    assert split.errors == "digits, the first split\n champion  v1\nEverybody gets v1.\n"
    stored = split.json("show", "digits")
    assert (stored["revision"], stored["champion"], stored["by"], stored["why"]) == (1, "v1", "ada", "start")
    assert re.fullmatch(r"[0-9a-f]{64}", stored["digests"]["v1"])


async def test_a_change_is_shown_before_it_is_made(split: Command, redis: Redis) -> None:
    split(*ALONE)
    assert split(*TRIAL, "--shadow", "0.1", "--why", "first look") == "digits is at revision 2\n"
    lines = [line.rstrip() for line in split.errors.splitlines()]
    assert lines == [
        "digits, revision 1 → 2",
        " challenger  v2",
        " share       5 %",
        " experiment  digits-v1-v2",
        " shadow      10 %",
        "Moves about 5 % of the clients from v1 to v2, and none back.",
        "v2 goes on trial with 5 % of the clients, and as many are its control; everybody else gets v1.",
        "v2 scores 10 % of the others' requests unseen.",
        "Warning: digits:v2 goes on trial without a gate: `rollout gate digits:v2 --against v1` compares it over "
        "several seeds",
    ]
    stored = await read_split(redis, "digits")
    assert stored is not None
    assert (stored.share, stored.shadow, stored.experiment, stored.why) == (
        0.05,
        0.1,
        "digits-v1-v2",
        "first look",
    )
    split(*TRIAL, "--experiment", "another")
    assert " experiment  digits-v1-v2 → another" in split.errors
    assert " shadow      10 % → 0 %" in split.errors


async def test_what_cannot_be_served_is_refused(split: Command, redis: Redis) -> None:
    split(*ALONE)
    for arguments, sentence in (
        (("set", "digits", "--champion", "v8", "--yes"), "there is no bundle digits:v8"),
        ((*TRIAL, "--share", "0.7"), "between 0 and 0.5, not 0.7"),
        ((*ALONE, "--share", "0.1"), "needs a challenger"),
        (("ramp", "digits", "5%", "--yes"), "there is no challenger on trial whose share could change"),
        (("promote", "digits", "--yes"), "there is no challenger on trial that could be promoted"),
        (("rollback", "digits", "--why", "x"), "neither a challenger on trial nor a promotion to go back from"),
    ):
        split(*arguments, code=1)
        assert split.errors.startswith("rollout: ")
        assert split.errors.count("\n") == 1
        assert sentence in split.errors
    write_keys(split.folder / "key.pem", split.folder / "key.pub.pem")
    split(*TRIAL, code=1, ROLLOUT_PUBLIC_KEY=str(split.folder / "key.pub.pem"))
    assert "digits:v1 is refused: it has no signature" in split.errors
    assert len(await read_history(redis, "digits")) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("ramp", "digits", "much"), "'much' is not a share, such as 0.05 or 5%"),
        (("ramp", "digits", "%"), "'%' is not a share"),
        (("rollback", "digits"), "Missing option '--why'"),
        (("history", "digits", "--limit", "0"), "x>=1"),
        ((*ALONE, "--rules", "nowhere.json"), "cannot read nowhere.json: No such file or directory"),
    ],
)
def test_what_was_typed_wrong_is_pointed_at(arguments: tuple[str, ...], sentence: str) -> None:
    result = CliRunner().invoke(cli, ["split", *arguments])
    assert result.exit_code == 2
    assert sentence in result.output


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{}", "Expected `array`, got `object`"),
        ('[{"arm": "control", "clients": ["a"]}]', "Invalid enum value 'control'"),
        ('[{"arm": "champion"}]', "a rule names either clients or segments"),
        ("[", "truncated"),
    ],
)
def test_a_file_of_rules_that_is_none_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "rules.json").write_text(text)
    result = CliRunner().invoke(cli, ["split", *ALONE, "--rules", str(tmp_path / "rules.json")])
    assert result.exit_code == 2
    assert sentence in result.output


async def test_nothing_changes_unless_somebody_says_yes(split: Command, redis: Redis) -> None:
    split(*ALONE)
    split(*TRIAL)
    command: tuple[str, ...]
    for command in (TRIAL[:-1], ("ramp", "digits", "5%"), ("ramp", "digits", "0.05")):
        assert split(*command) == "nothing to change: digits is at revision 2\n"
        assert not split.errors
    assert split.json("ramp", "digits", "5%")["revision"] == 2
    for command in (
        ALONE[:-1],
        ("ramp", "digits", "10%"),
        ("promote", "digits"),
        ("promote", "digits", "--json"),
    ):
        assert not split(*command, code=2)
        assert split.errors.splitlines()[0] == "digits, revision 2 → 3"
        assert split.errors.splitlines()[-1] == (
            "rollout: say --yes to change this without being asked; nothing changed"
        )
    assert len(await read_history(redis, "digits")) == 2


@pytest.mark.parametrize("answer", [b"n\n", b"\n", b"\x04", b"^C"])
async def test_in_a_terminal_no_is_the_default(split: Command, redis: Redis, answer: bytes) -> None:
    split(*TRIAL)
    printed = split.ask("ramp", "digits", "10%", answer=answer, code=4)
    assert "\x1b[31m5 %\x1b[0m → \x1b[32m10 %\x1b[0m" in printed
    assert "Moves about 5 % of the clients from v1 to v2, and none back.\nGo ahead? [y/N] " in printed
    assert printed.endswith("\nnothing changed\n")
    assert len(await read_history(redis, "digits")) == 1


async def test_in_a_terminal_yes_goes_ahead(split: Command, redis: Redis) -> None:
    split(*TRIAL)
    printed = split.ask("promote", "digits", "--why", "it is better", answer=b"y\n", code=0)
    assert printed.endswith("Go ahead? [y/N] y\ndigits is at revision 2\n")
    stored = await read_split(redis, "digits")
    assert stored is not None
    assert (stored.champion, stored.challenger, stored.previous, stored.why) == ("v2", None, "v1", "it is better")


async def test_who_comes_second_changes_nothing(split: Command, redis: Redis) -> None:
    split(*TRIAL)
    printed = split.ask(
        *("ramp", "digits", "50%"),
        answer=b"y\n",
        code=3,
        meanwhile=lambda: split("ramp", "digits", "10%", "--yes"),
    )
    assert printed.endswith(
        "rollout: the split of digits is at revision 2, not 1: read it again, then change it\n"
    )
    assert split.json("show", "digits")["share"] == 0.1


async def test_json_is_the_split_as_it_is_stored(split: Command) -> None:
    for command in (
        TRIAL,
        ("ramp", "digits", "0.2", "--why", "[bold]more[/]", "--yes"),
        ("promote", "digits", "--yes"),
        ("rollback", "digits", "--why", "worse"),
    ):
        stored = split.json(*command)
        assert list(stored) == list(Split.__struct_fields__)
        assert split.json("show", "digits") == stored
    history = split.json("history", "digits")
    assert [(one["revision"], one["why"]) for one in history] == [
        (1, ""),
        (2, "[bold]more[/]"),
        (3, ""),
        (4, "worse"),
    ]
    assert split.json("history", "digits", "--limit", "1") == [stored]


async def test_rules_stay_until_others_are_given(split: Command) -> None:
    split(*TRIAL, "--rules", split.file(RULES))
    assert "1 pins clients tester-*, acme to the challenger" in split.errors
    split(*TRIAL, "--share", "0.1")
    assert split.json("show", "digits")["rules"] == RULES
    shown = split("show", "digits")
    assert "1 pins clients tester-*, acme to the challenger" in shown
    assert "2 keeps segments enterprise out of the trial" in shown
    split(*TRIAL, "--rules", split.file([]))
    assert "2 keeps segments enterprise out of the trial → –" in " ".join(split.errors.split())
    assert split.json("show", "digits")["rules"] == []


async def test_assign_says_why(split: Command) -> None:
    rules = [*RULES, {"arm": "champion", "clients": ["a", "b", "c", "d", "e"]}]
    split(*TRIAL, "--rules", split.file(rules))
    for client, segment, arm, why in (
        ("tester-7", "", "challenger", "rule 1 pins clients tester-*, acme to the challenger"),
        ("c-1", "enterprise", "champion", "rule 2 keeps segments enterprise out of the trial"),
        ("d", "", "champion", "rule 3 keeps clients a, b, c and 2 more out of the trial"),
        ("", "", "champion", "a client without an ID is outside the trial"),
    ):
        found = split.json("assign", "digits", client, "--segment", segment)
        assert (found["arm"], found["bucket"], found["why"]) == (arm, None, why)
        assert list(found) == ["client_id", "arm", "version", "bucket", "revision", "why"]
    plain = Split(champion="v1", challenger="v2", share=0.05, experiment="digits-v1-v2")
    arms = {assign(plain, f"c-{number}").arm: f"c-{number}" for number in range(200)}
    assert "lies in neither [0, 0.05) nor [0.5, 0.55)" in split("assign", "digits", arms["champion"])
    assert "[0, 0.05), the control of experiment digits-v1-v2" in split("assign", "digits", arms["control"])
    printed = split("assign", "digits", arms["challenger"])
    assert printed.startswith(f"{arms['challenger']} is in the arm challenger and gets v2: bucket 0.5")
    assert printed.endswith(" lies in [0.5, 0.55), the challenger of experiment digits-v1-v2\n")


async def test_history_says_what_changed_newest_first(split: Command, redis: Redis) -> None:
    rules = (Rule(arm="champion", clients=("acme",)),)
    first = Split(champion="v1", by="ada", why="start")
    trial = replace(first, challenger="v2", share=0.05, experiment="digits-v1-v2", by="bob", why="first look")
    ramped = replace(trial, share=0.1, rules=rules, labels={"v2": {"a": "b"}}, by="[b]", why="")
    promoted = Split(champion="v2", previous="v1", rules=rules, by="ada", why="better")
    for revision, changed in enumerate((first, trial, ramped, promoted)):
        await write_split(redis, "digits", replace(changed, revision=revision))
    rows = [re.split(" {2,}", line.strip()) for line in split("history", "digits").splitlines()[4:-1]]
    assert [[row[0], *row[2:]] for row in rows] == [
        ["4", "ada", "champion v1 → v2, challenger v2 → –, no labels", "better"],
        ["3", "[b]", "share 5 % → 10 %, other rules, other labels"],
        ["2", "bob", "challenger v2, share 5 %", "first look"],
        ["1", "ada", "champion v1", "start"],
    ]
    limited = split("history", "digits", "--limit", "2")
    assert "share 5 % → 10 %" in limited
    assert "first look" not in limited


async def test_show_says_how_the_arms_fare(split: Command, redis: Redis) -> None:
    split(*TRIAL, "--shadow", "10%", "--why", "first look")
    shown = split("show", "digits")
    assert "digits, revision 1\n" in shown
    assert "by ada: first look" in shown
    assert "workers  none serves it" in shown
    counts = {
        ("champion", "v1", "predictions"): 12_345,
        ("champion", "v1", "seconds.2"): 98,
        ("champion", "v1", "seconds.6"): 2,
        ("champion", "v1", "agreed"): 197,
        ("control", "v1", "disagreed"): 3,
        ("champion", "v1", "shadow_dropped"): 4,
        ("control", "v1", "failures"): 5,
        ("challenger", "v2", "predictions"): 600,
        ("challenger", "v2", "failures"): 60,
        ("challenger", "v2", "fallbacks.error"): 51,
        ("challenger", "v2", "fallbacks.timeout"): 9,
        ("challenger", "v2", "evidence.1.requests"): 591,
        ("challenger", "v2", "evidence.1.failures"): 51,
        ("challenger", "v2", "evidence.1.late"): 9,
    }
    for worker, seen in (
        (Worker(id="one:1", revision=1, variants={}, breaker="open"), counts),
        (Worker(id="two:2", revision=1, variants={}), {}),
        (Worker(id="three:3", revision=0, variants={}, refused="digits:v2 is refused: its hash"), {}),
    ):
        await add_traffic(redis, "digits", seen, worker)  # type: ignore[arg-type]
    lines = [" ".join(line.split()) for line in split("show", "digits").splitlines()]
    assert "champion v1 90 % 12,345 0 % 0 1.51 35" in lines
    assert "control v1 5 % 0 100 % 0 – –" in lines
    assert "challenger v2 5 % 600 10 % 60 – –" in lines
    assert "fallbacks error 51, timeout 9" in lines
    assert "agreement of 200 rows it decided 98.5 % as the champion did, failed on 0 and was spared 4" in lines
    assert "workers 2 follow revision 1" in lines
    assert "1 follows revision 0" in lines
    assert "one:1: its breaker is open, the champion answers for the challenger" in lines
    assert "three:3: refused to follow: digits:v2 is refused: its hash" in lines
    assert any(line.startswith("verdict hold: the challenger failed in 51 of 591 requests") for line in lines)
    more = {("control", "v1", "evidence.1.requests"): 5000}
    await add_traffic(redis, "digits", more, Worker(id="two:2", revision=1, variants={}))  # type: ignore[arg-type]
    lines = [" ".join(line.split()) for line in split("show", "digits").splitlines()]
    assert any(
        line.startswith("verdict rollback: the challenger failed in 51 of 591 requests (8.6%)") for line in lines
    )


async def test_labels_say_what_another_versions_labels_mean(split: Command, bundles: str) -> None:
    store = split.folder / "store"
    shutil.copytree(bundles, store)
    names = {str(digit): f"digit {digit}" for digit in range(10)}
    _rename_labels(store / "models" / "digits" / "v2" / "manifest.json", names)
    split.environment["BENTOML_HOME"] = str(store)
    split(*TRIAL, code=1)
    assert "digits:v2 has other labels than digits:v1" in split.errors
    meanings = {"v2": {meaning: label for label, meaning in names.items()}}
    split(*TRIAL, "--labels", split.file(meanings))
    assert "labels" in split.errors
    split(*TRIAL, "--share", "0.1")
    assert split.json("show", "digits")["labels"] == meanings
    assert "of v2: digit 0 is 0, digit 1 is 1" in split("show", "digits")
    split(*TRIAL, "--labels", split.file({}), code=1)
    assert "digits:v2 has other labels" in split.errors
    split(*TRIAL, "--labels", split.file([]), code=2)


def _rename_labels(manifest: Path, names: dict[str, str]) -> None:
    read = json.loads(manifest.read_text())
    read["task"]["labels"] = [names[label] for label in read["task"]["labels"]]
    manifest.write_text(json.dumps(read))


async def test_without_a_champion_the_one_that_serves_stays(split: Command, redis: Redis) -> None:
    split("set", "digits", "--challenger", "v2", "--share", "5%", "--yes", code=1)
    assert "`rollout split set digits --champion VERSION` makes one" in split.errors
    split("set", "digits", "--champion", "v1")
    split("set", "digits", "--challenger", "v2", "--share", "5%", "--yes")
    found = split.json("show", "digits")
    assert (found["champion"], found["challenger"], found["experiment"]) == ("v1", "v2", "digits-v1-v2")


def test_what_others_wrote_into_a_split_tells_a_terminal_nothing(split: Command) -> None:
    bad = "\x1b[2J[bold]\x9b"
    split(*ALONE)
    split(*TRIAL, "--why", bad, "--experiment", bad, LOGNAME=bad)
    rolled_back = split("rollback", "digits", "--why", bad, LOGNAME=bad) + split.errors
    printed = rolled_back + split("show", "digits") + split("history", "digits")
    assert printed.count(r"\x1b[2J[bold]\x9b") > 5
    assert all(one.isprintable() or one == "\n" for one in printed)


async def test_a_policy_decides_the_trial_until_it_ends(split: Command, redis: Redis, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"margin": 0.02, "stages": [0.02, 0.1], "by_itself": ["step", "rollback"]}')
    given = ("set", "digits", "--champion", "v1", "--challenger", "v2", "--yes", "--policy", str(file))
    split(*given)
    assert "By itself, the service gives v2 the next share of the ramp, rolls v2 back" in split.errors
    stored = await read_split(redis, "digits")
    assert stored is not None
    assert stored.share == 0.02, "the first stage, unless somebody says"
    assert stored.policy == Policy(margin=0.02, stages=(0.02, 0.1), by_itself=("step", "rollback"))
    assert "accuracy not worse by more than 2 points; stages 2 % → 10 %" in " ".join(
        split("show", "digits").split()
    )
    split("set", "digits", "--challenger", "v2", "--share", "5%", "--yes")
    assert split.json("show", "digits")["policy"]["margin"] == 0.02, "it stays with the trial"
    split("set", "digits", "--challenger", "v2", "--share", "5%", "--yes", "--no-policy")
    assert split.json("show", "digits")["policy"] is None
    assert "no policy" in " ".join(split("history", "digits").split())
    file.write_text('{"stages": [0.9]}')
    split(*given, code=2)
    assert "stages are 1 to 20 rising shares above 0 and at most 0.5" in " ".join(split.errors.split())
