"""Objects that show themselves in a notebook say what they hold, and nothing of it is markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from rollout import Classification, Tensor
from rollout.bundle.manifest import LeftOut, Manifest, PackedVariant
from rollout.bundle.parity import Parity
from rollout.bundle.report import describe
from rollout.client.answers import Verdict as TheirVerdict
from rollout.judge.findings import Finding
from rollout.judge.verdict import Verdict
from tests.conftest import ROOT

HOSTILE = """<script>alert(1)</script><img src=x onerror="alert('2')">&amp;{{ 7 * 7 }}"""
TAGS = {
    "div",
    "p",
    "b",
    "table",
    "caption",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "dl",
    "dt",
    "dd",
    "h4",
    "ul",
    "li",
    "code",
}
PARITY = Parity(rows=1234, largest_difference=1e-6, answers_flipped=2, reviews_flipped=0)
MANIFEST = Manifest(
    name="m",
    version=HOSTILE,
    inputs={HOSTILE: Tensor(shape=(2,), minimum=0)},
    task=Classification(labels=[HOSTILE, "b"], review_threshold=0.5),
    variants={"onnx": PackedVariant(file="onnx/model.onnx", parity={HOSTILE: PARITY}, is_exact=False)},
    left_out={"onnx-int8": LeftOut(why=HOSTILE, worst=[HOSTILE])},
    hashes={},
    metrics={"accuracy": 0.9731},
    lineage={"by": HOSTILE, "command": [HOSTILE]},
    created_at="2026-11-22T10:00:00Z",
)
FINDING = Finding(question=HOSTILE, state="open", estimate=0.0123, low=-0.1, limit=-0.02, detail=HOSTILE)
VERDICT = Verdict(verdict="hold", reason="too_few", detail=HOSTILE, waits_for=HOSTILE, findings=(FINDING,))
SAID = msgspec.to_builtins(VERDICT) | {"model": HOSTILE, "revision": 3}


class Seen(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (PARITY, ["1,234", "2", "1e-06"]),
        (MANIFEST, ["m:", "accuracy", "0.9731", "onnx", HOSTILE]),
        (describe(MANIFEST, is_signed=False), ["Figures", "0.9731", HOSTILE]),
        (VERDICT, ["hold", "0.0123", "-0.02", HOSTILE]),
        (msgspec.convert(SAID, TheirVerdict), ["hold", "open", HOSTILE]),
    ],
    ids=["parity", "manifest", "report", "verdict", "verdict of the client"],
)
def test_they_say_what_they_hold_and_hostile_texts_stay_texts(shown: Any, says: list[str]) -> None:
    page = shown._repr_html_()
    seen = Seen(page)
    assert [one for one in says if one not in seen.text] == []
    assert seen.tags <= TAGS
    assert seen.attributes <= {"scope", "style", "class", "role", "aria-label", "tabindex", "rowspan"}
    assert "49" not in seen.text.replace(HOSTILE, "")


def test_the_page_runs(bundles: str) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "notebooks.md").read_text(), re.S)
    found: dict[str, Any] = {}
    shown = []
    for line in filter(None, block.splitlines()):
        if line.startswith(("from", "folder")):
            exec(line, found)  # noqa: S102
        else:
            shown.append(eval(line, found)._repr_html_())  # noqa: S307
    assert len(shown) == 3
    assert all("digits:v2" in page or "Parity" in page for page in shown)
