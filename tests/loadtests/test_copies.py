"""What copies of a model take beside handing batches over, measured with a small one."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from loadtests import copies
from tests.bundle.two import Linear, pack_two


@pytest.mark.process
def test_copies_and_a_hand_over_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    pack_two("copies", Linear().eval(), variants=["onnx"])
    monkeypatch.setattr(copies, "COPIES", (1, 2))
    result = CliRunner().invoke(copies.main, ["two:copies"])
    assert result.exit_code == 0, result.output
    one, two = (float(found.replace(",", "")) for found in re.findall(r"\| \d \| ([\d,]+) MiB", result.output))
    assert 10 < one < two < 3 * one
    handed = re.findall(r"\| (\d+) \| ([\d,]+) \| ([\d.]+) ms \| ([\d.]+) ms \|", result.output)
    assert [(rows, held) for rows, held, *_ in handed] == [("1", "8"), ("8", "64"), ("32", "256")]
    assert all(float(waited) > 0 for _, _, waited, _ in handed)
