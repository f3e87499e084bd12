"""``rollout review export`` and ``import``: labels out and in, as files that others read."""

from __future__ import annotations

import asyncio
import copy
import importlib
import json
import os
import subprocess
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from models.digits.recipe import RECIPE
from rollout.heads import Embedding, Truth
from rollout.heads.truth import FORMS
from rollout.job.labels import choose_format
from rollout.review import actions
from rollout.review.access_log import read_access
from rollout.review.export import ExportRow
from rollout.review.item import item_id
from rollout.review.queue import read_item
from rollout.review.state import State
from rollout.store import Redis
from rollout.training.labels import add_labels
from tests.cli.reviews import Review
from tests.conftest import BIN, ROOT
from tests.images import image
from tests.review.decisions import decide, fill
from tests.review.items import make_guess, make_item, written

pandas: Any = importlib.import_module("pandas")  # it has no types
THREE, EIGHT = Truth(label="3"), Truth(label="8")


@pytest.fixture
def review(redis: Redis, valkey_url: str, tmp_path: Path) -> Review:
    return Review(tmp_path, valkey_url)


async def fill_and_decide(redis: Redis, count: int, answer: Truth = THREE) -> None:
    items = [make_item(number) for number in range(count)]
    await fill(redis, items)
    await decide(redis, {item.id: answer for item in items})


async def label_of(redis: Redis, number: int) -> tuple[State, str | None, list[str]]:
    found = await read_item(redis, "digits", make_item(number).id)
    assert found is not None
    return found[1].state, found[1].label, [one.reviewer for one in found[1].reviews]


async def test_lines_on_stdout_and_the_cursor_beside_them(review: Review, redis: Redis) -> None:
    await fill_and_decide(redis, 3)
    rows = review.rows()
    assert [row["key"] for row in rows] == ["key-0", "key-1", "key-2"]
    assert list(rows[0]) == [name for name in ExportRow.__struct_fields__ if name not in set(FORMS) - {"label"}]
    cursor = rows[-1]["cursor"]
    assert review.errors == f"3 rows; --since {cursor} goes on after them\n"
    assert review.rows("--since", str(cursor)) == []
    assert review.errors == f"0 rows; --since {cursor} goes on after them\n"
    assert review.rows("--since", str(rows[1]["cursor"])) == rows[2:]
    assert review.rows("--since", "2020-01-01") == rows
    assert review.rows("--since", "2090-01-01T00:00:00Z") == []
    assert {(one.who, one.role, one.did) async for one in read_access(redis, "digits")} == {
        ("ada", "terminal", "export")
    }


async def test_a_cron_job_gets_each_change_once(review: Review, redis: Redis) -> None:
    await fill_and_decide(redis, 3)
    cursor = review.folder / "cursor"
    job = ("--cursor-file", cursor)
    assert len(review.rows(*job)) == 3
    assert review.rows(*job) == []
    await fill(redis, [make_item(7)])
    (leased,) = (await actions.claim(redis, "digits", "ada")).items
    await actions.resolve(redis, "digits", leased.item.id, leased.token, EIGHT)
    assert [(row["key"], row["label"]) for row in review.rows(*job)] == [("key-7", "8")]
    await actions.undo(redis, "digits", leased.item.id, leased.token)
    assert [(row["key"], row.get("label"), row["retracted"]) for row in review.rows(*job)] == [
        ("key-7", None, True)
    ]
    before = cursor.read_text()
    await actions.resolve(redis, "digits", leased.item.id, leased.token, THREE)
    review("export", "digits", *job, "--out", review.folder / "nowhere" / "x.jsonl", code=1)
    assert cursor.read_text() == before
    assert [(row["key"], row["label"], row["retracted"]) for row in review.rows(*job)] == [("key-7", "3", False)]
    assert sorted(path.name for path in review.folder.iterdir()) == ["cursor"]


async def test_a_cursor_that_is_none_is_refused(review: Review, redis: Redis) -> None:
    await fill_and_decide(redis, 1)
    cursor = review.folder / "cursor"
    cursor.write_text("yesterday")
    review("export", "digits", "--cursor-file", cursor, code=1)
    assert review.errors == (
        f"rollout: --cursor-file {cursor} holds no cursor; delete it to export everything again\n"
    )
    review("export", "digits", "--cursor-file", cursor, "--since", "0", code=1)
    assert "--since and --cursor-file both say where to begin" in review.errors
    review("export", "digits", "--since", "yesterday", code=1)
    assert "since must be the cursor of a row or a time in ISO 8601" in review.errors
    review("export", "digits", "--cursor-file", review.folder / "no" / "cursor", code=1)
    assert "there is no folder" in review.errors
    review("export", "texts", code=1)
    assert review.errors == (
        "rollout: texts has neither a split nor review items; "
        "`rollout split set texts --champion VERSION` makes a split\n"
    )


LOAD = """
import json, datasets
for kind, file in (("json", "labels.jsonl"), ("parquet", "labels.parquet")):
    rows = datasets.load_dataset(kind, data_files=file, split="train")
    print(json.dumps({name: list(rows[name]) for name in ("key", "label", "pi", "retracted", "reviewers")}))
"""


def load_with_datasets(folder: Path) -> list[dict[str, list[Any]]]:
    """Returns columns of ``labels.jsonl`` and of ``labels.parquet``, as Hugging Face's library reads them."""
    isolated = ["--isolated", "--no-project", "--with-requirements", str(ROOT / "tests" / "datasets.txt")]
    done = subprocess.run(
        [BIN / "uv", "run", *isolated, "python", "-c", LOAD],
        cwd=folder,
        env=os.environ | {"HF_HOME": str(folder / "huggingface"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        check=False,
        timeout=240,  # the first time it is installed
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_datasets_loads_what_is_exported(review: Review, redis: Redis) -> None:
    await fill_and_decide(redis, 3)
    await fill(redis, [make_item(3, reason="audit", pi=0.25, key=None)])
    await decide(redis, {make_item(3).id: EIGHT})
    for name in ("labels.jsonl", "labels.parquet"):
        review("export", "digits", "--out", review.folder / name)
    of_lines, of_parquet = load_with_datasets(review.folder)
    assert of_lines == of_parquet
    assert of_parquet == {
        "key": ["key-0", "key-1", "key-2", None],
        "label": ["3", "3", "3", "8"],
        "pi": [1.0, 1.0, 1.0, 0.25],
        "retracted": [False] * 4,
        "reviewers": [["ada"]] * 4,
    }


@pytest.mark.parametrize(
    ("out", "asked", "says"),
    [
        (None, "parquet", "Parquet needs a file: name one with --out FILE.parquet"),
        ("labels.csv", None, "labels.csv: writes .jsonl, .ndjson, .parquet, .json, by the extension"),
        ("labels.parquet", "jsonl", "is named like parquet, but --format says jsonl"),
        ("no/labels.jsonl", None, "there is no folder"),
        ("there.jsonl", None, "is there already; --force replaces it"),
        ("folder.jsonl", None, "is a folder: name a file"),
    ],
)
def test_what_cannot_be_written_is_refused_before_it_starts(
    out: str | None, asked: Any, says: str, tmp_path: Path
) -> None:
    (tmp_path / "there.jsonl").touch()
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(Exception, match=says):
        choose_format(None if out is None else tmp_path / out, asked, replace=False)


async def test_pandas_reads_lines_and_parquet_alike(review: Review, redis: Redis) -> None:
    await fill(redis, [make_item(1), make_item(2, key=None), make_item(3)])
    await decide(redis, {make_item(1).id: THREE, make_item(3).id: EIGHT})
    lines, parquet = review.folder / "labels.jsonl", review.folder / "labels.parquet"
    assert review("export", "digits", "--out", lines) == review("export", "digits", "--out", parquet) == ""
    assert sorted(path.name for path in review.folder.iterdir()) == ["labels.jsonl", "labels.parquet"]
    read, packed = pandas.read_json(lines, lines=True), pandas.read_parquet(parquet)
    assert list(packed.columns) == list(ExportRow.__struct_fields__)
    assert list(read.columns) == [name for name in packed.columns if name not in set(FORMS) - {"label"}]
    for frame in (read, packed):
        assert list(frame["key"]) == ["key-1", "key-3"]
        assert list(map(str, frame["label"])) == ["3", "8"]
        assert list(map(list, frame["reviewers"])) == [["ada"], ["ada"]]
        assert frame["cursor"].dtype == np.int64
        assert list(frame["retracted"]) == [False, False]
    assert [json.loads(text) for text in packed["inputs"]] == list(read["inputs"])
    assert json.loads(packed["predicted"][0]) == {
        "label": "3",
        "confidence": 0.4,
        "scores": {"3": 0.4, "8": 0.35},
    }
    assert read["predicted"][0]["label"] == "3"
    assert packed["other"].isna().all()
    review("export", "digits", "--out", lines, code=1)
    assert "--force replaces it" in review.errors
    review("export", "digits", "--out", lines, "--force", "--since", "2090-01-01")
    assert lines.read_bytes() == b""


async def test_parquet_of_nothing_has_its_columns(review: Review, redis: Redis) -> None:
    await fill(redis, [make_item(1)])
    out = review.folder / "labels.parquet"
    review("export", "digits", "--out", out)
    assert review.errors == "0 rows\n"
    assert pq.read_schema(out).names == list(ExportRow.__struct_fields__)


async def test_our_own_training_learns_from_it(review: Review, redis: Redis) -> None:
    scores = dict.fromkeys(map(str, range(10)), 0.1)
    items = []
    for number in range(4):
        pixels = copy.deepcopy(image(number))
        pixels[0][0] += 1  # as it is, the evaluation part has it
        inputs = msgspec.Raw(msgspec.json.encode({"image": pixels}))
        items.append(make_item(number, inputs=inputs, scores=scores))
    linked = make_item(9, client_id=items[3].client_id, same=items[3].same, scores=scores)
    await fill(redis, [*items, linked])
    (leased,) = (await actions.claim(redis, "digits", "ada")).items
    await actions.resolve(redis, "digits", leased.item.id, leased.token, Truth(label="7"))
    first, second = review.folder / "first.jsonl", review.folder / "second.jsonl"
    job = ("export", "digits", "--cursor-file", review.folder / "cursor", "--out")
    review(*job, first)
    await actions.undo(redis, "digits", leased.item.id, leased.token)
    await decide(redis, {item.id: Truth(label="5") for item in items if item.id != leased.item.id})
    review(*job, second)
    dataset = RECIPE.load()
    learnt = add_labels(dataset, RECIPE, "v3", {"first": first, "second": second})
    assert learnt.labels is not None
    assert learnt.labels.used == 3
    assert learnt.labels.left_out == {
        "repeated": 1,
        "linked": 1,
        "retracted": 1,
        "without_inputs": 0,
        "incomplete": 0,
        "held_out": 0,
        "confirmed": 0,
        "gone": 0,
    }
    assert learnt.train.targets[-3:].tolist() == [5, 5, 5]


async def test_a_pipe_that_ends_early_is_no_error(review: Review, redis: Redis) -> None:
    await fill_and_decide(redis, 3000)
    cursor = review.folder / "cursor"
    done = await asyncio.create_subprocess_shell(
        f"{BIN / 'rollout'} review export digits --cursor-file {cursor} | head -n 1",
        env=review.environment,
        stdout=PIPE,
        stderr=PIPE,
    )
    printed, errors = await done.communicate()
    assert json.loads(printed)["key"] == "key-0"
    assert errors == b""
    assert not cursor.exists()


async def test_labels_come_in_by_id_or_by_client_and_key(review: Review, redis: Redis) -> None:
    await fill(redis, [make_item(number) for number in range(5)])
    await decide(redis, {make_item(3).id: THREE, make_item(4).id: THREE})
    labels = review.file(
        "labels.jsonl",
        {"id": make_item(0).id, "label": "8", "reviewer": "bob"},
        {"client_id": "client-1", "key": "key-1", "label": "3", "note": "further fields are left out"},
        {"id": make_item(3).id, "label": "3"},
        {"id": make_item(4).id, "label": "8"},
        {"client_id": "nobody", "key": "x", "label": "3"},
        {"id": make_item(2).id, "label": "9"},
        {"id": make_item(2).id, "label": "3", "value": 1.0},
        {"client_id": "client-2", "label": "3"},
        {"id": make_item(2).id, "label": "3", "reviewer": "a\nb"},
    )
    with labels.open("a") as file:
        file.write("\n{oops\n")
    printed = review.lines("import", "digits", labels, "--reviewer", "eve", code=1)
    assert "taken 2" in printed
    assert "already there 1" in printed
    assert "in conflict with what is there 1" in printed
    assert "of unknown items 1" in printed
    assert "refused 5" in printed
    whole = " ".join(printed)
    assert f"line 4 {make_item(4).id} was resolved as 3: nothing was changed" in whole
    assert "line 5 digits has no review item" in whole
    assert "line 6 /label must be one of 3, 8" in whole
    assert "line 7 it needs one answer, such as a label or a value, and not several" in whole
    assert "line 8 it needs an id, or a client_id and a key" in whole
    assert "line 9 reviewer must be 1 to 128 printable characters" in whole
    assert "line 11 it is no JSON object: " in whole
    assert await label_of(redis, 0) == (State.RESOLVED, "8", ["bob"])
    assert await label_of(redis, 1) == (State.RESOLVED, "3", ["eve"])
    assert await label_of(redis, 2) == (State.OPEN, None, [])
    assert await label_of(redis, 4) == (State.RESOLVED, "3", ["ada"])
    again = review.json("import", "digits", labels, code=1)
    assert (again["taken"], again["already_there"], len(again["refused"])) == (0, 3, 5)


async def test_a_link_leads_to_its_item(review: Review, redis: Redis) -> None:
    first = make_item(1)
    await fill(
        redis,
        [
            first,
            make_item(2, id=item_id(first.client_id, "key-2", b""), client_id=first.client_id, same=first.same),
        ],
    )
    labels = review.file("labels.jsonl", {"client_id": first.client_id, "key": "key-2", "label": "8"})
    assert review.json("import", "digits", labels)["taken"] == 1
    assert await label_of(redis, 1) == (State.RESOLVED, "8", ["ada"])


async def test_a_value_comes_in_for_a_regression(review: Review, redis: Redis) -> None:
    await fill(redis, [make_guess(1), make_guess(2)])
    labels = review.file(
        "labels.jsonl", {"id": make_item(1).id, "value": 0}, {"id": make_item(2).id, "label": "3"}
    )
    found = review.json("import", "digits", labels, code=1)
    assert found["taken"] == 1
    assert found["refused"] == [
        {"place": "line 2", "why": "/label is not what this model answers with: send value; /value is required"}
    ]
    (row,) = review.rows()
    assert (row["value"], "label" in row) == (0.0, False)


async def test_what_is_no_file_of_labels_is_refused(review: Review, redis: Redis) -> None:
    await fill(redis, [make_item(1)])
    lost = review.folder / "lost.jsonl"
    review("import", "digits", lost, code=1)
    assert review.errors == f"rollout: cannot read {lost}: No such file or directory\n"
    table = review.folder / "labels.csv"
    table.write_text("id,label\n")
    review("import", "digits", table, code=1)
    assert "is neither JSON lines nor a list in JSON: --format says" in review.errors
    broken = review.folder / "tasks.json"
    broken.write_text('[{"data": {}}')
    review("import", "digits", broken, code=1)
    assert "is not what Label Studio exports as JSON" in review.errors
    review("import", "digits", table, "--reviewer", "", code=1)
    assert "--reviewer must be 1 to 128 printable characters" in review.errors


async def test_open_items_go_to_label_studio_and_come_back(review: Review, redis: Redis) -> None:
    items = [make_item(number) for number in range(7)]
    await fill(redis, items)
    await decide(redis, {items[6].id: THREE})
    file = review.folder / "tasks.json"
    review("export", "digits", "--out", file)
    assert review.errors == "6 tasks\n"
    tasks = {task["data"]["key"]: task for task in json.loads(file.read_text())}
    assert tasks.keys() == {f"key-{number}" for number in range(6)}
    assert tasks["key-1"] == {
        "data": {"id": items[1].id, "client_id": "client-1", "key": "key-1", "inputs": {"image": [[1]]}},
        "predictions": [
            {
                "model_version": "v1",
                "score": 0.4,
                "result": [
                    {"from_name": "answer", "to_name": "inputs", "type": "choices", "value": {"choices": ["3"]}}
                ],
            }
        ],
    }

    def chosen(label: str, by: Any, **more: Any) -> dict[str, Any]:
        return {"result": [{"type": "choices", "value": {"choices": [label]}}], "completed_by": by, **more}

    tasks["key-0"]["annotations"] = [chosen("8", 17)]
    tasks["key-1"]["annotations"] = [chosen("3", {"id": 4, "email": "bob@example.org"}), chosen("3", 17)]
    tasks["key-2"]["annotations"] = [chosen("3", 17), chosen("8", 4)]
    tasks["key-3"]["annotations"] = [chosen("8", 17, was_cancelled=True)]
    tasks["key-4"]["annotations"] = [chosen("8", 4, was_cancelled=True), chosen("3", None)]
    tasks["key-5"]["annotations"] = [{"result": [{"value": {"choices": ["3", "8"]}}]}]
    file.write_text(json.dumps(list(tasks.values()), indent=2))
    numbers = {key: number for number, key in enumerate(tasks, start=1)}
    found = review.json("import", "digits", file, "--reviewer", "eve", code=1)
    assert (found["taken"], found["already_there"], found["conflicts"], found["unknown"]) == (3, 0, [], [])
    assert {(one["place"], one["why"]) for one in found["refused"]} == {
        (f"task {numbers['key-2']}", "its annotations differ: 3 by 17, 8 by 4"),
        (f"task {numbers['key-5']}", "an item has one label, not 2"),
    }
    assert await label_of(redis, 0) == (State.RESOLVED, "8", ["17"])
    assert await label_of(redis, 1) == (State.RESOLVED, "3", ["bob@example.org"])
    assert await label_of(redis, 2) == (State.OPEN, None, [])
    assert await label_of(redis, 3) == (State.OPEN, None, [])
    assert await label_of(redis, 4) == (State.RESOLVED, "3", ["eve"])
    review("export", "digits", "--format", "label-studio", "--since", "0", code=1)
    assert "Label Studio gets what is open now" in review.errors


async def test_values_go_to_label_studio_and_come_back(review: Review, redis: Redis) -> None:
    await fill(redis, [make_guess(1)])
    (task,) = json.loads(review("export", "digits", "--format", "label-studio"))
    (said,) = task["predictions"][0]["result"]
    assert (said["type"], said["value"]) == ("number", {"number": 9.0})
    task["annotations"] = [{"result": [said | {"value": {"number": 12}}], "completed_by": 1}]
    file = review.folder / "tasks.txt"
    file.write_text(json.dumps([task]))
    assert review.json("import", "digits", file)["taken"] == 1
    assert review.rows()[0]["value"] == 12.0
    assert json.loads(review("export", "digits", "--format", "label-studio")) == []


async def test_what_label_studio_has_no_form_for_does_not_go_there(review: Review, redis: Redis) -> None:
    answer = {"vector": [0.5, 1.0]}
    await fill(redis, [make_item(1, task=written(Embedding(size=2)), answer=answer, threshold=None)])
    file = review.folder / "tasks.json"
    review("export", "digits", "--out", file, code=1)
    assert "no form for vectors and tensors: decide in the console" in review.errors
    assert not file.exists()


async def test_an_export_comes_back_in_and_changes_nothing(review: Review, redis: Redis) -> None:
    await fill_and_decide(redis, 5)
    rows = review.rows()
    labels = review.file("labels.jsonl", *rows)
    assert review.json("import", "digits", labels) == {
        "taken": 0,
        "already_there": 5,
        "conflicts": [],
        "unknown": [],
        "refused": [],
    }
    assert review.rows() == rows
