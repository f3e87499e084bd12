"""A table of rows through a bundle: the answers and the reviews of the service, and sentences for bad rows."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import PIL.Image
import pyarrow as pa
import pytest

from loadtests.tables import digits
from rollout.bundle.schema import InputSchema
from rollout.errors import BundleError, ConfigError, InvalidRequestError
from rollout.job.decoding import decode_columns, records_of
from rollout.job.plan import Job, prepare
from rollout.job.row import Columns
from rollout.job.scorer import Scorer, open_scorer
from rollout.job.unpacked import open_unpacked
from tests.heads.serving import pack_tiny
from tests.passengers import RAW, pack_passengers, scores_by_itself

ANSWERED = ("label", "confidence", "scores")


def scorer(table: Any, tag: str, home: Path, **options: Any) -> Scorer:
    job = prepare(tag, table.column_names, options)
    return Scorer(job.plan, *open_unpacked(job.plan, job.archive.read_bytes, home))


def test_answers_and_reviews_are_those_of_the_service(
    bundles: str, predict: Callable[..., httpx.Response], tmp_path: Path
) -> None:
    table = digits(300)
    keys = table.column("key").to_pylist()
    keys[:50] = [None] * 50  # then what was sent tells one from another
    table = table.set_column(1, "key", pa.array(keys, pa.string()))
    instances = [
        {"client_id": row["client_id"], "key": row["key"], "inputs": {"image": row["image"]}}
        for row in table.to_pylist()
    ]
    said = predict({"instances": instances}).json()["predictions"]
    version, variant = "v1", next(one["variant"] for one in said if one["version"] == "v1")
    answers = scorer(table, f"digits:{version}", tmp_path, variant=variant)(table).to_pylist()
    same = [(one, other) for one, other in zip(said, answers, strict=True) if one["version"] == version]
    assert len(same) > 200
    for one, other in same:
        assert {name: one[name] for name in ANSWERED} == {name: other[name] for name in ANSWERED}
        assert (one["review"] is not None) == other["needs_review"] == (other["reason"] is not None)
    reasons = {other["reason"]: other["pi"] for _, other in same}
    assert reasons["low_confidence"] == 1.0
    assert reasons[None] is None


def test_an_audit_is_drawn_by_the_same_hash(bundles: str, tmp_path: Path) -> None:
    table = digits(400)
    answer = scorer(table, "digits:v1", tmp_path, audit=0.2)
    picked = [row["key"] for row in answer(table).to_pylist() if row["reason"] == "audit"]
    sampler = answer._sampler
    certain = [row for row in answer(table).to_pylist() if row["reason"] != "low_confidence"]
    assert picked == [
        row["key"] for row in certain if sampler.audits(f"{row['client_id']}\0{row['key']}".encode())
    ]
    assert 0.1 < len(picked) / len(certain) < 0.3
    assert {row["pi"] for row in answer(table).to_pylist() if row["reason"] == "audit"} == {0.2}


def test_bad_rows_say_why_and_the_others_are_answered(bundles: str, tmp_path: Path) -> None:
    table = digits(6)
    images, clients = table.column("image").to_pylist(), ["", "c\n", "c", "c", "c", "c"]
    images[2], images[3][1][1] = None, None
    table = pa.table({"client_id": clients, "key": list("abcdef"), "image": images})
    rows = scorer(table, "digits:v1", tmp_path)(table).to_pylist()
    assert [row["error"] is None for row in rows] == [False, False, False, False, True, True]
    assert rows[0]["error"] == rows[1]["error"] == "/client_id must be 1 to 128 printable characters"
    assert rows[2]["error"].startswith("/inputs/image ")
    assert rows[3]["error"].startswith("/inputs/image")
    assert [row["key"] for row in rows] == list("abcdef")
    assert rows[2]["label"] is rows[2]["needs_review"] is rows[2]["version"] is None
    with pytest.raises(InvalidRequestError, match="the row with the key a: /client_id must be"):
        scorer(table, "digits:v1", tmp_path, on_error="fail")(table)


def test_a_cell_that_nothing_in_python_can_be_fails_with_its_row_alone(tmp_path: Path, more_bundles: str) -> None:
    sizes = pa.array([0, 1, 3], pa.int32()).buffers()[1]
    broken = pa.StringArray.from_buffers(2, sizes, pa.py_buffer(b"\xffok"))  # Spark does not look either
    far, fine = pa.array([2**62, 0], pa.timestamp("us")), pa.array(["one", "two"])
    for name, said in (
        ("text", "/inputs cannot be read"),
        ("key", "/key must be"),
        ("client_id", "/client_id must"),
    ):
        for column in (broken, far):
            table = pa.table({"client_id": fine, "key": fine, "text": fine} | {name: column})
            bad, good = scorer(table, "languages:v1", tmp_path)(table).select(["error", "label"]).to_pylist()
            assert bad["error"].startswith(said)
            assert good["label"]


def test_one_bad_cell_costs_little() -> None:
    rows = 20_000
    fine = pa.array(["x"] * rows)
    bad = pa.StringArray.from_buffers(1, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff"))

    def seconds(cells: pa.ChunkedArray) -> float:
        table = pa.table({f"column {at}": cells for at in range(30)})
        begin = time.process_time()
        assert records_of(table).count(None) == len(cells) - rows
        return time.process_time() - begin

    # Row by row it took 26 times as long.
    assert seconds(pa.chunked_array([fine, bad])) < 6 * min(seconds(pa.chunked_array([fine])) for _ in range(3))


def test_columns_and_rows_and_files_decode_alike(bundles: str, tmp_path: Path) -> None:
    table = digits(20)
    quick = scorer(table, "digits:v1", tmp_path)(table)
    images = [np.array(rows, np.uint8) for rows in table.column("image").to_pylist()]
    files = []
    for image in images:
        file = io.BytesIO()
        PIL.Image.fromarray(image).save(file, "PNG")
        files.append(file.getvalue())
    as_files = table.set_column(2, "image", pa.array(files, pa.binary()))
    assert scorer(as_files, "digits:v1", tmp_path)(as_files) == quick
    as_json = table.set_column(
        2, "image", pa.array(table.column("image").to_pylist(), pa.list_(pa.list_(pa.int64())))
    )
    with_gap = pa.concat_tables(
        [as_json, as_json.slice(0, 1).set_column(2, "image", pa.nulls(1, as_json.schema.field(2).type))]
    )
    assert scorer(with_gap, "digits:v1", tmp_path)(with_gap).slice(0, 20) == quick


def test_a_column_of_lists_is_one_array(bundles: str) -> None:
    table, job = digits(9), prepare("digits:v1", ["client_id", "image"], {})
    schema = InputSchema(job.manifest.inputs)
    decoded = decode_columns(schema, Columns("client_id", "key", schema.fields), table.slice(2, 5))
    assert not decoded.faults
    assert decoded.arrays["image"].tolist() == table.column("image").to_pylist()[2:7]


def test_a_table_in_columns_with_what_is_missing(tmp_path: Path) -> None:
    manifest = pack_passengers()
    table = pa.Table.from_pylist([{"client_id": "c", **row} for row in RAW])
    rows = scorer(table, manifest.tag, tmp_path)(table).to_pylist()
    for row, scores in zip(rows, scores_by_itself(manifest, RAW), strict=True):
        assert row["error"] is None
        assert row["scores"] == pytest.approx(scores, abs=2e-6)


def test_several_heads_have_a_column_for_each_field(tmp_path: Path) -> None:
    manifest = pack_tiny("tiny-heads")
    table = pa.table({"client_id": ["c"], "x": [[0.1, 0.2, 0.3, 0.4]]})
    answers = scorer(table, manifest.tag, tmp_path)(table)
    assert set(manifest.task.table()) < set(answers.column_names)
    assert answers.column("error").to_pylist() == [None]


def test_what_is_wrong_with_a_job_is_said_before_it_runs(bundles: str) -> None:
    there = ["client_id", "image", "label", "day"]
    cases: list[tuple[dict[str, Any], list[str], str]] = [
        ({}, ["image"], "the table has no column client_id"),
        ({}, ["client_id"], "no column image, which is an input of the model"),
        ({"keep": ["hour"]}, there, "no column hour"),
        ({"keep": ["label"]}, there, "label is a column of the answers"),
        ({"audits": 1}, there, "audits is no option"),
        ({"audit": 2}, there, "audit is a share"),
    ]
    for options, columns, words in cases:
        with pytest.raises(ConfigError, match=words):
            prepare("digits:v1", columns, options)


def test_only_what_the_job_pins_is_run(bundles: str, tmp_path: Path) -> None:
    job: Job = prepare("digits:v1", ["client_id", "image"], {})
    other = prepare("digits:v2", ["client_id", "image"], {})
    home = tmp_path / "home"
    with pytest.raises(BundleError, match="its manifest says digits:v2"):
        open_unpacked(job.plan, other.archive.read_bytes, home)
    another = msgspec.structs.replace(job.plan, digest="0" * 64)  # what was packed anew under the same name
    with pytest.raises(BundleError, match="the job pins 000000000000"):
        open_unpacked(another, job.archive.read_bytes, home)
    folder, _ = open_unpacked(job.plan, job.archive.read_bytes, home)
    assert open_unpacked(job.plan, lambda: b"", home)[0] == folder  # it is there
    next(folder.rglob("*.onnx")).write_bytes(b"changed")
    assert open_unpacked(job.plan, job.archive.read_bytes, home)[0] == folder
    home.chmod(0o755)
    with pytest.raises(BundleError, match="is not for this user alone"):
        open_unpacked(job.plan, job.archive.read_bytes, home)
    with pytest.raises(BundleError, match="started by Rollout"):
        open_scorer(msgspec.structs.replace(job.plan, rollout="0.0.1"), job.archive.read_bytes)


def test_an_unsigned_bundle_from_elsewhere_runs_onnx_alone(bundles: str, tmp_path: Path) -> None:
    job = prepare("digits:v1", ["client_id", "image"], {})
    plan = msgspec.structs.replace(job.plan, tag="digits:v1", variant="torchscript", is_trusted=False)
    folder, manifest = open_unpacked(plan, job.archive.read_bytes, tmp_path)
    elsewhere = msgspec.structs.replace(manifest, name="digits-of-others")
    with pytest.raises(BundleError, match="torchscript variant is not loaded"):
        Scorer(plan, folder, elsewhere)


@pytest.mark.parametrize(("packed_here", "trusts"), [(False, False), (True, True)])
def test_a_job_trusts_what_the_machine_that_starts_it_does(
    bundles: str, monkeypatch: pytest.MonkeyPatch, packed_here: bool, trusts: bool
) -> None:
    monkeypatch.setattr("rollout.job.plan.was_packed_here", lambda _: packed_here)
    assert prepare("digits:v1", ["client_id", "image"], {}).plan.is_trusted is trusts
