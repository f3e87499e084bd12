"""``rollout report``: in the terminal and as a page."""

from __future__ import annotations

import re
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from rollout.bundle import store
from rollout.bundle.baseline import read_baseline
from rollout.bundle.evidence import Finding, GateResult, PValues, Spread
from rollout.bundle.lineage import by_head, differences
from rollout.bundle.manifest import LeftOut, Manifest
from rollout.bundle.report import describe
from rollout.bundle.report_page import render
from rollout.bundle.store import bundle_path, open_bundle
from rollout.cli import cli
from rollout.cli.report import show
from rollout.errors import BundleError
from rollout.heads import Classification
from rollout.training.labels import learnt_from
from rollout.training.reproduction import seed_of
from tests.cli.test_cli import run

HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "img"}
GATE = GateResult(
    against="v1",
    seeds=8,
    margin=0.01,
    metric="error rate",
    candidate=Spread(mean=0.0033, deviation=0.0023),
    champion=Spread(mean=0.0444, deviation=0.0011),
    baselines={"nearest centroid": 0.0861},
    p_values={"better": PValues(seeds=0.004, rows=0.0002)},
    decision="better",
    why="The candidate is better.",
    at="2026-11-22T10:00:00Z",
    by="ada",
)


class Page(HTMLParser):
    """Checks that every element is closed where it was opened, and keeps what the tests ask for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """What is to be read."""
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Returns the attributes of every element of this name."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def digits(bundles: str) -> tuple[Path, Manifest]:
    """``digits:v2`` with one variant left out, a gate and a finding."""
    folder, manifest = open_bundle("digits:v2")
    left_out = {"onnx-int8": LeftOut(why="it is coarse", worst=["golden row 3: 1 at 0.9 became 7 at 0.8"])}
    finding = Finding(check="duplicates", where="train", detail="Two rows are the same.", rows=[4, 9])
    variants = {name: variant for name, variant in manifest.variants.items() if name != "onnx-int8"}
    return folder, msgspec.structs.replace(
        manifest, left_out=left_out, variants=variants, gate=GATE, findings=[finding]
    )


def shown(folder: Path, manifest: Manifest, capsys: pytest.CaptureFixture[str]) -> list[str]:
    show(describe(manifest, is_signed=False), folder)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_it_says_what_live_rows_are_compared_with(digits: tuple[Path, Manifest]) -> None:
    folder, manifest = digits
    titles = [section.title for section in describe(manifest, is_signed=False)]
    assert "Baseline of drift" not in titles
    section = next(
        section
        for section in describe(manifest, is_signed=False, baseline=read_baseline(folder))
        if section.title == "Baseline of drift"
    )
    assert section.text == ["What 360 rows of the evaluation part were like; live rows are compared with that."]
    assert re.fullmatch(r"0\.\d+ \(0\.\d+ to 0\.\d+\)", section.facts["image.brightness"])
    assert re.fullmatch(r"\d 1\d%(, \d 1\d%){4} and 5 more", section.facts["answer.label"])


def page(folder: Path, manifest: Manifest) -> Page:
    return Page(render(describe(manifest, is_signed=False), folder))


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_terminal_shows_everything_within_its_width(
    digits: tuple[Path, Manifest],
    columns: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = shown(*digits, capsys)
    assert lines[0] == "digits:v2"
    assert all(len(line) <= int(columns) for line in lines if not line.startswith(str(digits[0])))
    parity = [line.split() for line in lines if re.match(r" +(onnx|torchscript|export) +evaluation ", line)]
    assert [cells[:5] for cells in parity] == [
        [name, "evaluation", "360", "0", "0"] for name in ("onnx", "torchscript", "export")
    ]
    at = lines.index("Left out: onnx-int8")
    assert lines[at + 1 : at + 4] == [
        "It is coarse.",
        "Its worst rows:",
        "• golden row 3: 1 at 0.9 became 7 at 0.8",
    ]
    at = lines.index("Gate: better")
    assert lines[at + 1] == "The candidate is better."
    assert [line.split()[-2:] for line in lines if line.startswith(" digits:v")] == [
        ["0.0033", "0.0023"],
        ["0.0444", "0.0011"],
    ]
    assert "• Duplicates (train): Two rows are the same. Rows: 4, 9." in lines
    assert {"Lineage: environment", "Lineage: code", "Lineage: data"} <= set(lines)
    assert re.search(r"^calibration error before scaling +0\.\d{4}$", "\n".join(lines), re.M)


def test_terminal_and_page_say_the_same(
    digits: tuple[Path, Manifest], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    of_terminal = set(re.findall(r"\w+", "\n".join(shown(*digits, capsys))))
    of_page = set(re.findall(r"\w+", page(*digits).text))
    assert of_page - of_terminal <= {"Rollout"}
    assert of_terminal - of_page <= set(re.findall(r"\w+", f"{digits[0]} reliability.svg"))


def test_the_page_is_whole_and_needs_nothing_else(digits: tuple[Path, Manifest]) -> None:
    found = page(*digits)
    assert found.all("html") == [{"lang": "en"}]
    assert len(found.all("h1")) == 1
    (image,) = found.all("img")
    assert (image["src"] or "").startswith("data:image/svg+xml;base64,")
    assert image["alt"]
    assert len(found.all("caption")) == len(found.all("table")) == 3
    assert {cell["scope"] for cell in found.all("th")} == {"col", "rowgroup"}
    assert not found.all("script")
    assert not found.all("link")
    assert not any("http" in (value or "") for _, attributes in found.elements for value in attributes.values())
    assert "url(" not in render(describe(digits[1], is_signed=False), digits[0])


def test_the_page_escapes_what_others_wrote(digits: tuple[Path, Manifest]) -> None:
    folder, manifest = digits
    assert isinstance(manifest.task, Classification)
    hostile = msgspec.structs.replace(
        manifest,
        task=msgspec.structs.replace(manifest.task, labels=[HOSTILE, *manifest.task.labels[1:]]),
        left_out={"onnx-int8": LeftOut(why=f"it says `{HOSTILE}`", worst=[HOSTILE])},
        metrics={HOSTILE: 1.0},
        lineage={"by": HOSTILE, "data": {"source": HOSTILE}},
    )
    found = page(folder, hostile)
    assert not found.all("script")
    assert found.text.count(HOSTILE) == 6


def test_markup_in_a_name_is_only_text(digits: tuple[Path, Manifest], capsys: pytest.CaptureFixture[str]) -> None:
    folder, manifest = digits
    left_out = {"[bold]x[/]": LeftOut(why="[/nothing] is closed", worst=["[red]row"])}
    gate = msgspec.structs.replace(GATE, baselines={"[dim]mean": 0.5})
    lines = shown(folder, msgspec.structs.replace(manifest, left_out=left_out, gate=gate), capsys)
    assert "Left out: [bold]x[/]" in lines
    assert "• [red]row" in lines
    assert any(line.startswith(" [dim]mean ") for line in lines)


def test_escape_codes_in_a_bundle_reach_no_terminal(
    digits: tuple[Path, Manifest], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, manifest = digits
    assert isinstance(manifest.task, Classification)
    bad = "\x1b[2J[bold]\rforged"
    hostile = msgspec.structs.replace(
        manifest,
        task=msgspec.structs.replace(manifest.task, labels=[bad, *manifest.task.labels[1:]]),
        left_out={bad: LeftOut(why=bad, worst=[bad])},
        metrics={bad: 1.0},
        lineage={"by": bad, "command": [bad], "data": {bad: bad}, bad: {"x": bad}},
        gate=msgspec.structs.replace(GATE, why=bad, by=bad, baselines={bad: 0.5}),
        findings=[Finding(check=bad, where=bad, detail=bad)],
    )
    printed = "\n".join(shown(folder, hostile, capsys))
    monkeypatch.setattr(store, "open_bundle", lambda tag: (folder, manifest if tag == "digits:v1" else hostile))
    for command in (["diff", "digits:v1", "digits:v2"], ["diff", "digits:v2", "digits:v1"]):
        printed += CliRunner().invoke(cli, command, catch_exceptions=False).output
    assert printed.count(r"\x1b[2J[bold]\rforged") > 15
    assert all(one.isprintable() or one == "\n" for one in printed)


@pytest.mark.parametrize(
    "lineage",
    [
        {"command": [1, None]},
        {"tracking": ["x"]},
        {"tracking": {"x": "y"}},
        {"data": ["x"]},
        {"data": {"labels": {"files": ["x"]}}},
        {"data": {"labels": {"files": {"x": 1}}}},
        {"seeds": "x", "fit": ["x"], "teacher": ["x"], "again": ["x"]},
    ],
)
def test_a_lineage_may_have_anything_in_the_place_of_anything(
    digits: tuple[Path, Manifest], capsys: pytest.CaptureFixture[str], lineage: dict[str, Any]
) -> None:
    folder, manifest = digits
    hostile = msgspec.structs.replace(manifest, lineage=lineage)
    assert shown(folder, hostile, capsys)
    assert learnt_from(hostile) in ({}, {"x": "1"})
    with pytest.raises(BundleError, match="does not say with which seed"):
        seed_of(hostile)


@pytest.mark.parametrize("distillation", [None, [], {"rows": 1}])
def test_what_is_no_comparison_with_a_teacher_is_said_in_a_line(
    digits: tuple[Path, Manifest], distillation: Any
) -> None:
    hostile = msgspec.structs.replace(digits[1], lineage={"distillation": distillation})
    with pytest.raises(BundleError, match="a lineage that says nothing of a teacher"):
        describe(hostile, is_signed=False)


def test_the_names_in_a_lineage_are_no_bomb() -> None:
    lineage = {"data": {"x" * 100_000: dict.fromkeys(map(str, range(1000)), 0)}}
    tracemalloc.start()
    for look in (by_head, lambda given: differences({}, given)):
        with pytest.raises(BundleError, match="the names in its lineage have more than 1,048,576 characters"):
            look(lineage)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10_000_000


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("digits:v2", ("Answers with one of 10 labels: 0, 1,", "calibration error after scaling 0.0")),
        ("languages:v2", ("Answers with one of 9 labels: de, en,", "a text of at most 256 bytes in UTF-8")),
        ("departures:v2", ("an interval that holds the true one 90.0% of the time", "coverage observed 9")),
    ],
)
def test_every_kind_of_model_has_a_report(
    more_bundles: str, tmp_path: Path, tag: str, words: tuple[str, str]
) -> None:
    output = " ".join(run(tmp_path, "report", tag, COLUMNS="80").split())
    file = tmp_path / "report.html"
    assert run(tmp_path, "report", tag, "--html", str(file)) == f"{tag} is described in {file}\n"
    found = Page(file.read_text())
    for part in (tag, *words, f"rollout gate {tag} --against VERSION", f"none; `rollout sign {tag}"):
        assert part in output
        assert part.replace("`", "") in found.text
    assert len(found.all("img")) == 1


def test_a_signature_is_mentioned(digits: tuple[Path, Manifest]) -> None:
    headline = describe(digits[1], is_signed=True)[0]
    assert "`rollout verify digits:v2 --key FILE` checks whose it is" in headline.facts["signature"]


def test_a_bundle_without_a_diagram_is_described_without_one(digits: tuple[Path, Manifest]) -> None:
    folder, manifest = digits
    hashes = {name: digest for name, digest in manifest.hashes.items() if name != "reliability.svg"}
    assert not page(folder, msgspec.structs.replace(manifest, hashes=hashes)).all("img")


def test_what_cannot_be_shown_is_said_in_a_line(bundles: str, tmp_path: Path) -> None:
    assert run(tmp_path, "report", "digits:v9", code=1) == (
        "rollout: there is no bundle digits:v9; `rollout ls` shows what the store has\n"
    )
    nowhere = tmp_path / "nowhere" / "page.html"
    line = run(tmp_path, "report", "digits:v2", "--html", str(nowhere), code=1)
    assert line == f"rollout: cannot write {nowhere}: No such file or directory\n"
    diagram = bundle_path("digits:v2") / "reliability.svg"
    drawn = diagram.read_bytes()
    diagram.write_bytes(drawn + b" ")
    try:
        refused = run(tmp_path, "report", "digits:v2", code=1)
    finally:
        diagram.write_bytes(drawn)
    assert refused == "rollout: digits:v2 is refused: reliability.svg was changed after packing\n"
