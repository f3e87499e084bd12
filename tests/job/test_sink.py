"""Columns of answers of every kind, by the types of their fields."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow
import pyarrow.parquet as pq

from rollout import Classification, Regression
from rollout.heads import Head
from rollout.job.sink import columns_of, open_sink
from rollout.whole_file import write_whole


class ManyAnswer(NamedTuple):
    """A field of every type."""

    label: str | None
    size: int
    holds: bool
    tags: list[str]
    vector: tuple[float, ...]
    grid: list[list[float]]
    scores: dict[str, float]
    sets: dict[str, list[str]]
    free: dict[str, float]
    spans: list[dict[str, Any]]


class Many(msgspec.Struct, Head, frozen=True):
    """A kind that nothing but this test knows."""

    @property
    def answer_type(self) -> type[tuple[Any, ...]]:
        """A field of every type."""
        return ManyAnswer

    def keys_of(self, column: str) -> list[str] | None:
        """Those of two objects are always the same."""
        return {"scores": ["a", "b"], "sets": ["x"]}.get(column)


WHO = {"client_id": "c-1", "key": None, "version": "v1", "arm": "champion", "review": None, "error": None}
SAID: dict[str, Any] = {
    "label": None,
    "size": 2,
    "holds": True,
    "tags": ["red"],
    "vector": [0.5, 0.25],
    "grid": [[1.0], [2.0]],
    "scores": {"a": 0.5, "b": 0.5},
    "sets": {"x": ["y"]},
    "free": {"q50": 1.5},
    "spans": [{"start": 0, "end": 3, "label": "name"}],
}


def types_of(head: Head, file: Path) -> dict[str, Any]:
    with open_sink(file, head):
        pass
    schema = pq.read_schema(file)
    return dict(zip(schema.names, schema.types, strict=True))


def test_columns_of_parquet_have_the_types_of_the_answer(tmp_path: Path) -> None:
    with open_sink(tmp_path / "out.parquet", Many()) as write:
        write([{**WHO, **SAID}, {**WHO, **dict.fromkeys(SAID), "error": "too late"}])
    table = pq.read_table(tmp_path / "out.parquet")
    number = pyarrow.float64()
    assert {name: table.schema.field(name).type for name in SAID} == {
        "label": pyarrow.string(),
        "size": pyarrow.int64(),
        "holds": pyarrow.bool_(),
        "tags": pyarrow.list_(pyarrow.string()),
        "vector": pyarrow.list_(number),
        "grid": pyarrow.list_(pyarrow.list_(number)),
        "scores": pyarrow.struct([("a", number), ("b", number)]),
        "sets": pyarrow.struct([("x", pyarrow.list_(pyarrow.string()))]),
        "free": pyarrow.string(),
        "spans": pyarrow.string(),
    }
    first, failed = table.to_pylist()
    assert {name: json.loads(first[name]) if name in ("free", "spans") else first[name] for name in SAID} == SAID
    assert failed == {**WHO, **dict.fromkeys(SAID), "error": "too late"}


def test_the_two_first_kinds_have_the_columns_that_they_had(tmp_path: Path) -> None:
    text, number = pyarrow.string(), pyarrow.float64()
    before, after = dict.fromkeys(("client_id", "key", "version", "arm"), text), {"review": text, "error": text}
    scores = pyarrow.struct([("no", number), ("yes", number)])
    classes = Classification(labels=["no", "yes"])
    answer = {"label": text, "confidence": number, "scores": scores}
    assert types_of(classes, tmp_path / "classes.parquet") == {**before, **answer, **after}
    answer = {"value": number, "interval": pyarrow.list_(number)}
    assert types_of(Regression(), tmp_path / "values.parquet") == {**before, **answer, **after}
    assert columns_of(classes)[4:7] == ("label", "confidence", "scores")


def test_csv_has_json_for_what_is_no_cell(tmp_path: Path) -> None:
    with open_sink(tmp_path / "out.csv", Many()) as write:
        write([{**WHO, **SAID}])
    with (tmp_path / "out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["size"], row["label"], row["tags"], row["free"]) == ("2", "", '["red"]', '{"q50":1.5}')


def test_a_link_in_the_place_of_a_draft_is_not_followed(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    (tmp_path / ".out.csv.partial").symlink_to(theirs)
    with open_sink(tmp_path / "out.csv", Regression()) as write:
        write([])
    assert theirs.read_text() == "precious"
    assert not (tmp_path / "out.csv").is_symlink()
    assert (tmp_path / "out.csv").read_text().startswith("client_id,")
    (tmp_path / f".kept.{os.getpid()}").symlink_to(theirs)
    write_whole(tmp_path / "kept", b"ours")
    assert (theirs.read_text(), (tmp_path / "kept").read_bytes()) == ("precious", b"ours")
