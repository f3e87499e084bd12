"""What a bundle, Redis or a service says is printed as text: it tells the terminal nothing, and is no markup."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from rollout.cli import main, output
from rollout.cli.output import (
    JsonOut,
    Text,
    make_console,
    make_grid,
    make_progress,
    make_table,
    print_json,
    say,
    working,
)

HOSTILE = "\x1b]8;;http://x\x07[link=http://x][bold]:smile:\x9b2J\u202e\r\nforged"
SHOWN = r"\x1b]8;;http://x\x07[link=http://x][bold]:smile:\x9b2J\u202e\r\nforged"


def require_harmless(printed: str, times: int) -> None:
    """Refuses what is no printable text, or not all of it."""
    assert all(one.isprintable() or one == "\n" for one in printed)
    assert printed.count(SHOWN) == times
    assert not any(line.startswith("forged") for line in printed.splitlines())


def test_a_table_and_a_line_are_text_wherever_a_string_stands(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console()
    console.width = 250
    table = make_table(HOSTILE)
    table.add_column(HOSTILE)
    table.add_column(Text(HOSTILE))
    table.add_row(HOSTILE, Text.assemble((HOSTILE, "bold"), HOSTILE))
    table.title_style = "dim"
    plain = output.Table(title=HOSTILE, caption=HOSTILE)
    plain.add_column(HOSTILE, footer=HOSTILE)
    plain.show_footer = True
    for printed in (table, plain, make_grid([(HOSTILE, Text(HOSTILE))]), HOSTILE, Text(HOSTILE)):
        console.print(printed, soft_wrap=isinstance(printed, str | Text))
    with working(console, HOSTILE) as now, make_progress(console) as progress:
        now(HOSTILE)
        progress.add_task(HOSTILE)
    require_harmless(capsys.readouterr().out, 14)


def test_progress_is_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    console = make_console()
    console.width = 250
    progress = make_progress(console)
    progress.add_task(HOSTILE)
    console.print(progress.make_tasks_table(progress.tasks))
    require_harmless(capsys.readouterr().out, 1)


def test_what_is_said_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE, "next")
    say(HOSTILE, err=True)
    printed = capsys.readouterr()
    assert printed.out == f"{SHOWN}\nnext\n"
    assert printed.err == f"{SHOWN}\n"


def test_json_is_escaped_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = {HOSTILE: "é \U000e0001"}
    print_json(value)
    printed = capsys.readouterr().out
    assert all(one.isprintable() or one == "\n" for one in printed)
    assert "é" in printed
    assert json.loads(printed) == value


def test_a_warning_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rollout", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert logging.lastResort is not None
    record = logging.LogRecord("rollout", logging.WARNING, "", 0, "MLflow: %s", ("\x1b[2J\x9b2J\nforged",), None)
    assert logging.lastResort.format(record) == "MLflow: \\x1b[2J\\x9b2J\n  forged"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_an_export_is_text_for_a_terminal_and_as_it_is_for_a_pipe(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    line = '{"text":"\x9b2J\u202eé"}\n'.encode()
    JsonOut().write(line)
    JsonOut().flush()
    printed = capsysbinary.readouterr().out
    assert printed == (b'{"text":"\\u009b2J\\u202e\xc3\xa9"}\n' if is_terminal else line)
    assert json.loads(printed) == json.loads(line)
