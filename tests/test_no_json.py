"""Bytes from elsewhere that are no JSON, or too deep: whoever decodes them catches all that this raises."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from rollout.cli.split import RULES
from rollout.errors import ConfigError
from rollout.job.labels import open_labels
from rollout.job.plan import Plan, goes_on
from rollout.review.labels import Fault, read_lines
from rollout.training.labels import _parse
from tests.conftest import ROOT

DEEP = b"[" * 100_000
# A request has a sentence of its own for each.
APART = {"http/bodies.py", "http/oip_http.py", "bundle/codec.py"}


def test_nobody_catches_less() -> None:
    for place in ("src/rollout", "service"):
        for file in (ROOT / place).rglob("*.py"):
            name = file.relative_to(ROOT / place).as_posix()
            if name not in APART and not name.startswith("client/"):
                assert not re.search(r"except .*msgspec\.DecodeError", file.read_text()), name


@pytest.mark.parametrize("text", [DEEP, b'{"id":' + DEEP, b"\xff", b'{"id":"\xff"}', b"{"])
def test_it_is_said_where_it_stood(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(text)
    found = list(read_lines([text]))
    assert len(found) == 1
    assert isinstance(found[0], Fault)
    reading: list[tuple[type[Exception], Callable[[], Any]]] = [
        (ConfigError, lambda: goes_on(Plan(tag="m:v1", digest="", variant="onnx"), text)),
        (ConfigError, lambda: list(_parse(text, "labels", "m"))),
        (ConfigError, lambda: list(_taken(file))),
        (click.BadParameter, lambda: RULES(str(file))),
    ]
    for error, read in reading:
        with pytest.raises(error):
            read()


def _taken(file: Path) -> Any:
    with open_labels(file, "label-studio") as labels:
        yield from labels
