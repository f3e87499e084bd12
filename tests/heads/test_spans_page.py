"""Every block of docs/spans.md: a module is trained, and answers with the spans that the page says."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import torch

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "spans.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)


def test_the_module_answers_as_the_page_says() -> None:
    names: dict[str, Any] = {}
    (python, code), (_, answer) = BLOCKS
    assert python == "python"
    torch.manual_seed(0)
    exec(code, names)  # noqa: S102
    with torch.no_grad():
        logits, text = names["module"](torch.from_numpy(names["inputs"]))
    outputs = np.concatenate([logits.numpy().reshape(1, -1), text.numpy()], axis=1).astype(np.float32)
    head = names["head"]
    (row,) = head.numbers(head.scores(outputs)).tolist()
    got, wanted = head.answer(row).spans, json.loads(answer)["spans"]
    places = [[{**span, "confidence": 1} for span in spans] for spans in (got, wanted)]
    assert places[0] == places[1]
    assert [span.keys() for span in got] == [span.keys() for span in wanted]
    assert min(span["confidence"] for span in got) > 0.8
