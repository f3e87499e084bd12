"""Changes that a newcomer might want, and where they are made: the first guess by name is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

# What is to be changed, the file, and what is found there.
CHANGES = [
    ("add a field type", "src/rollout/bundle/texts.py", "class Category("),
    ("add a variant, such as TensorRT", "src/rollout/bundle/variants.py", "VARIANTS"),
    ("change how a variant is compared with its source", "src/rollout/bundle/parity.py", "def compare("),
    ("add a setting", "src/rollout/config.py", "class Settings("),
    ("add an error", "src/rollout/errors.py", "HTTP_ERRORS"),
    ("add a metric", "src/rollout/metrics.py", "Counter("),
    ("another hash of the clients", "src/rollout/routing/assignment.py", "def position("),
    ("change what a split may say", "src/rollout/routing/split.py", "class Split("),
    ("add a route", "src/rollout/http/app.py", "GatedRoute("),
    ("say who may use a route", "src/rollout/http/routes.py", "role: Role"),
    ("bound the headers of a request", "src/rollout/http/protocol.py", "MOST_HEADERS"),
    ("take another Content-Encoding", "src/rollout/http/encodings.py", "ENCODINGS"),
    ("read another request header", "src/rollout/http/request_options.py", "HEADERS"),
    ("add a field to a line of the log", "src/rollout/http/request_log.py", '"duration_ms"'),
    ("change what enters the review queue", "src/rollout/review/sampling.py", "def sample("),
    ("change what reviewers may do", "src/rollout/review/actions.py", "async def skip("),
    ("add a column to the export of labels", "src/rollout/review/export.py", "class ExportRow("),
    ("change how an item is drawn", "service/console/item_view.py", '"item.html"'),
    ("change how a number is written in the console", "service/console/phrases.py", "def rate("),
    ("add a key in Redis", "src/rollout/keys.py", "class Keys("),
    ("tell a training to another tracker", "src/rollout/training/tracker.py", "class Tracker:"),
    ("add a command", "src/rollout/cli/__init__.py", "COMMANDS"),
    ("when the breaker opens", "src/rollout/inference/breaker.py", "class Breaker:"),
    ("how batches are formed", "src/rollout/inference/batcher.py", "class Batcher:"),
    ("how many rows a second are looked at", "src/rollout/inference/row_sample.py", "MOST_ROWS"),
    ("when drift is told", "src/rollout/judge/drift.py", "LEAST_DISTANCE"),
    ("explain another kind of input", "src/rollout/bundle/apart.py", "def words("),
    ("send another kind of value from Python", "src/rollout/client/values.py", "KINDS"),
    ("when the client asks again", "src/rollout/client/retries.py", "def may_pass("),
    ("when a verdict says rollback", "src/rollout/judge/verdict.py", "rollback"),
]
TREE = (ROOT / "ARCHITECTURE.md").read_text().split("```")[1]


@pytest.mark.parametrize(("change", "file", "found"), CHANGES)
def test_a_change_is_made_where_its_name_says(change: str, file: str, found: str) -> None:
    assert found in (ROOT / file).read_text(), change
    assert Path(file).name in TREE or "/cli/" in file, f"{file} is on the map"


def test_the_map_names_no_file_that_is_gone() -> None:
    named = set(re.findall(r"[a-z_]+\.py", TREE))
    folders = [ROOT / name for name in ("src/rollout", "service", "loadtests", "scripts")]
    there = {path.name for folder in folders for path in folder.rglob("*.py")}
    assert named <= there


def test_the_glossary_has_the_words_that_are_ours() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text().partition("## Words that are ours")[2]
    words = {word for row in re.findall(r"^\| ([^|]+) \|", text, re.M)[2:] for word in row.split(", ")}
    assert {
        "bundle",
        "variant",
        "parity",
        "split",
        "arm",
        "snapshot",
        "lease",
        "spool",
        "audit",
        "pi",
    } - words == {"lease"}
