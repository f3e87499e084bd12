"""Files of labels that somebody made to harm, or that are of something else: each label fails by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rollout.errors import ConfigError, InvalidRequestError
from rollout.heads import Boxes, Classification, Head, MultiLabel, Regression, Targets, TokenLabels
from rollout.job.labels import open_labels
from rollout.review.label_studio import read_tasks
from rollout.review.labels import Fault, Label, read_lines, take_labels
from rollout.store import Redis
from tests.review.items import make_item, written

DEEP = 20_000
VALUES = ("1e308", "9" * 400, "-" + "9" * 30, "true", "null", '"x"', "[]", "{}", "[null]", '[["a"]]', "-0.0", "[1]",
          '{"a":' * 900 + "1" + "}" * 900, "[" * 900 + "]" * 900, '["\\u0000\\u001b[31m"]')  # fmt: skip
FIELDS = ("choices", "number", "labels", "start", "end", "rectanglelabels", "x", "width", "rotation")
REGIONS: tuple[dict[str, Any], ...] = (
    {},
    {"labels": ["a"], "start": 0, "end": 3},
    {"rectanglelabels": ["a"], "x": 1, "y": 1, "width": 5, "height": 5},
)
HEADS: tuple[Head, ...] = (
    Classification(labels=["3", "8"]),
    MultiLabel(labels=["a", "b"]),
    Regression(widest=1.0),
    Targets(names=["x", "y"]),
    Boxes(labels=["a"], candidates=5),
    TokenLabels(labels=["a"], positions=10, field="text"),
)


def as_task(region: str, item: str = "0" * 32) -> str:
    named = ",".join(f'{{"from_name":"{name}","value":{region}}}' for name in ("x", "y"))
    return f'{{"data":{{"id":"{item}"}},"annotations":[{{"result":[{named}]}}]}}'


def regions() -> Iterator[str]:
    for region in REGIONS:
        for field in FIELDS:
            rest = [f"{json.dumps(name)}:{json.dumps(said)}" for name, said in region.items() if name != field]
            for value in VALUES:
                yield "{" + ",".join([f'"{field}":{value}', *rest]) + "}"


async def test_whatever_an_annotation_says_fails_by_itself(redis: Redis) -> None:
    items = [make_item(number, task=written(head)) for number, head in enumerate(HEADS)]
    tasks = f"[{','.join(map(as_task, regions()))}]".encode()
    found = list(read_tasks(tasks))
    assert len(found) == len(REGIONS) * len(FIELDS) * len(VALUES)
    for item in items:
        for label in found:
            if isinstance(label, Label) and callable(label.said):
                with suppress(InvalidRequestError):
                    label.said(item.head)
    assert (await take_labels(redis, "digits", found[:3], "ada")).taken == 0


@pytest.mark.parametrize("deep", ["[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP])
def test_what_is_nested_too_deeply_is_said(deep: str, tmp_path: Path) -> None:
    bad, good = read_lines([f'{{"id":"1","tensors":{{"a":{deep}}}}}'.encode(), b'{"id":"1","label":"3"}'])
    assert isinstance(bad, Fault)
    assert isinstance(good, Label)
    file = tmp_path / "tasks.json"
    file.write_text("[" + as_task('{"choices":' + deep + "}") + "]")
    with pytest.raises(ConfigError, match="is not what Label Studio exports"), open_labels(file, None):
        pass
