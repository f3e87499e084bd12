"""``rollout predict``, as it is typed: files in, files out, and what goes wrong on the way."""

from __future__ import annotations

import base64
import csv
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rollout.errors import ConfigError
from rollout.job.sink import check_sink
from tests.cli.test_cli import run
from tests.conftest import ROOT, TRIAL, Service, free_port, run_service, set_split
from tests.images import image, png, row

COLUMNS = ["client_id", "key", "version", "arm", "label", "confidence", "scores", "review", "error"]
TEXTS = {
    "en": "Thursday's delivery was late",
    "de": "Die Lieferung vom Donnerstag kam zu spät",
    "fr": "La livraison de jeudi était en retard, nous sommes désolés",
}


@pytest.fixture(scope="module")
def both(more_bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of two models, digits on trial."""
    home = tmp_path_factory.mktemp("both")
    set_split(home, *TRIAL)
    set_split(home, "--champion", "v2", model="languages")
    with run_service(home, ROLLOUT_WORKERS="1") as running:
        yield running


def predict(service: Service, file: Path, out: Path, *options: str, model: str = "digits", code: int = 0) -> str:
    """Runs ``rollout predict``; returns what it printed."""
    arguments = (str(file), "--out", str(out), "--url", service.base, "--model", model, *options)
    return run(service.home, "predict", *arguments, code=code)


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def single(service: Service, body: dict[str, Any], model: str = "digits") -> dict[str, Any]:
    with service.client() as client:
        answer: dict[str, Any] = client.post(f"/v1/models/{model}/predict", json=body).json()
    return answer


def test_csv_to_csv(both: Service, tmp_path: Path) -> None:
    instances = [row(number, f"c-{number}", key=f"k-{number}") for number in range(300)]
    with (tmp_path / "in.csv").open("w", newline="", encoding="utf-8-sig") as text:
        writer = csv.writer(text)
        writer.writerow(["note", "key", "image", "client_id"])
        for number, one in enumerate(instances):
            picture = json.dumps(one["inputs"]["image"])
            writer.writerow(["two\nlines", one["key"] if number else "", picture, one["client_id"]])
    out = tmp_path / "out.csv"
    printed = predict(both, tmp_path / "in.csv", out)
    assert printed.startswith("300 rows, ")
    assert printed.endswith(f" rows/s, 0 failed; the answers are in {out}\n")
    answers = read_csv(out)
    assert list(answers[0]) == COLUMNS
    assert [answer["client_id"] for answer in answers] == [f"c-{number}" for number in range(300)]
    assert [answer["key"] for answer in answers] == ["", *(f"k-{number}" for number in range(1, 300))]
    for number in range(20):
        expected = single(both, instances[number])
        assert {name: answers[number][name] for name in ("version", "arm", "label")} == {
            name: expected[name] for name in ("version", "arm", "label")
        }
        assert json.loads(answers[number]["scores"]) == pytest.approx(expected["scores"], abs=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv", "out.csv"], "nothing beside it is left"


def test_parquet_to_parquet_with_numbers_as_ids_and_files_as_images(both: Service, tmp_path: Path) -> None:
    pixels = [pa.array(image(number), pa.list_(pa.uint8())) for number in range(200)]
    lists = pa.array([column.to_pylist() for column in pixels], pa.list_(pa.list_(pa.uint8())))
    files = pa.array([base64.b64decode(png_of(number)) for number in range(200)], pa.binary())
    answers = {}
    for name, images in (("lists", lists), ("files", files)):
        table = pa.table({"customer": pa.array(range(200)), "image": images, "label": ["?"] * 200})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=70)
        predict(both, tmp_path / f"{name}.parquet", tmp_path / f"{name}-out.parquet", "--client-id", "customer")
        answers[name] = pq.read_table(tmp_path / f"{name}-out.parquet")
    assert answers["lists"].equals(answers["files"])
    assert answers["lists"].column_names == COLUMNS
    assert answers["lists"].num_rows == 200
    records = answers["lists"].to_pylist()
    assert [record["client_id"] for record in records] == [str(number) for number in range(200)]
    expected = single(both, row(7, "7"))
    assert (records[7]["label"], records[7]["arm"]) == (expected["label"], expected["arm"])
    assert records[7]["scores"] == pytest.approx(expected["scores"], abs=1e-5)
    assert records[7]["key"] is records[7]["error"] is None


def png_of(number: int) -> str:
    import numpy as np

    return png(np.array(image(number), np.uint8))


def test_jsonl_flat_and_as_instances_and_rows_that_fail(both: Service, tmp_path: Path) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [
        {"client_id": "a", "text": TEXTS["de"], "other": 1},
        {"client_id": "b", "key": "k", "inputs": {"text": TEXTS["fr"]}},
        {"client_id": "c", "key": "bad", "text": 5},
        {"client_id": 7, "text": TEXTS["en"]},
        {"text": TEXTS["en"]},
    ]
    file.write_text("\n\n".join(json.dumps(line) for line in lines) + "\nnonsense\n[]")
    printed = predict(both, file, out, model="languages", code=3)
    assert printed.startswith(
        "rollout: 4 of 7 rows failed; the first is row 3: /inputs/text expected str, got int"
    )
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(list(answer) == COLUMNS for answer in answers)
    assert [answer["label"] for answer in answers] == ["de", "fr", None, "en", None, None, None]
    assert [answer["client_id"] for answer in answers] == ["a", "b", "c", "7", None, None, None]
    assert answers[1]["key"] == "k"
    assert (answers[2]["key"], answers[2]["version"]) == ("bad", None)
    assert answers[4]["error"] == "/client_id must be 1 to 128 printable characters"
    assert "send one JSON object" in answers[5]["error"]
    assert answers[0]["error"] is None


def test_a_text_that_looks_like_json_stays_text(both: Service, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('client_id,text\na,5\nb,"[1, 2]"\nc,null\n')
    predict(both, tmp_path / "in.csv", tmp_path / "out.parquet", model="languages")
    assert pq.read_table(tmp_path / "out.parquet")["error"].to_pylist() == [None] * 3


def test_cells_that_do_not_fit_are_said_so_row_by_row(both: Service, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('client_id,image\na,[[1]]\nb,\nc,"[[1"\nd\n')
    printed = predict(both, tmp_path / "in.csv", tmp_path / "out.csv", code=3)
    assert "4 of 4 rows failed; the first is row 1: /inputs/image" in printed
    errors = [answer["error"] for answer in read_csv(tmp_path / "out.csv")]
    assert "32×32" in errors[0]
    assert errors[3].startswith("/inputs/image is required")


def test_what_is_there_is_not_replaced_unasked(both: Service, tmp_path: Path) -> None:
    file = tmp_path / "same.jsonl"
    file.write_text(json.dumps({"client_id": "a", "text": TEXTS["en"]}) + "\n")
    before = file.read_text()
    assert predict(both, file, file, model="languages", code=1) == (
        f"rollout: --out {file} is there already; --force replaces it\n"
    )
    assert file.read_text() == before
    predict(both, file, file, "--force", model="languages")
    assert json.loads(file.read_text())["label"] == "en"


def test_what_cannot_be_done_is_one_line(both: Service, tmp_path: Path) -> None:
    good = tmp_path / "good.csv"
    good.write_text("client_id,text\na,hello\n")
    out = tmp_path / "out.csv"

    def refused(*arguments: str) -> str:
        (line,) = run(tmp_path, "predict", *arguments, code=1).splitlines()
        assert not out.exists()
        return line.removeprefix("rollout: ")

    def of_file(name: str, content: bytes, *options: str) -> str:
        file = tmp_path / name
        file.write_bytes(content)
        return refused(
            str(file), "--out", str(out), "--url", both.base, "--model", "languages", *options
        ).replace(str(file), name)

    nowhere = f"http://127.0.0.1:{free_port()}"
    assert refused(str(good), "--out", str(out), "--url", nowhere).startswith(
        f"no Rollout service answers at {nowhere}: "
    )
    assert refused(str(good), "--out", str(out), "--url", both.base) == (
        "the service has several models; --model is one of digits, languages"
    )
    assert refused(str(good), "--out", str(out), "--url", both.base, "--model", "cats") == (
        "there is no model cats; the service has digits, languages"
    )
    token = tmp_path / "token"
    token.write_text("nobody\n")
    assert of_file("good.csv", good.read_bytes(), "--token-file", str(token)) == (
        "the service refused: the token is not one that this service knows"
    )
    assert of_file("in.xlsx", b"") == (
        "in.xlsx: reads .csv, .jsonl, .ndjson, .parquet, .tar, .tar.gz, .tgz, .zip, by the extension, and folders of files"
    )
    assert of_file("in.csv", b"id,text\n") == (
        "in.csv has no column client_id; it has id, text: --client-id names the one with client IDs"
    )
    assert of_file("in.csv", b"client_id,words\n") == (
        "in.csv has no column text, which is an input of the model; it has client_id, words"
    )
    assert of_file("in.csv", b"").startswith("in.csv has no column client_id; it has none")
    assert of_file("in.csv", b"client_id,text\na,ok\nb,\xff\n").startswith("in.csv, line 3: 'utf-8' codec")
    assert of_file("in.parquet", b"hello").startswith("cannot read in.parquet: ")
    assert refused(str(tmp_path / "none.csv"), "--out", str(out), "--url", both.base, "--model", "languages") == (
        f"cannot read {tmp_path / 'none.csv'}: No such file or directory"
    )
    assert refused(str(good), "--out", "out.txt") == (
        "--out out.txt: writes .csv, .jsonl, .ndjson, .parquet, by the extension"
    )
    assert refused(str(good), "--out", str(tmp_path / "no" / "out.csv")).endswith(
        f"there is no folder {tmp_path / 'no'}"
    )


def test_parquet_without_pyarrow_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"Parquet needs pyarrow: pip install 'rollout\[batch\]'"):
        check_sink(tmp_path / "out.parquet", replace=False)


def test_an_empty_file_is_an_empty_answer(both: Service, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("client_id,text\n")
    for kind in ("csv", "jsonl", "parquet"):
        predict(both, tmp_path / "in.csv", tmp_path / f"out.{kind}", model="languages")
    assert read_csv(tmp_path / "out.csv") == []
    assert (tmp_path / "out.jsonl").read_text() == ""
    assert pq.read_table(tmp_path / "out.parquet").column_names == COLUMNS


def test_a_long_file_takes_no_memory(both: Service, tmp_path: Path) -> None:
    """Ten times the rows, and the same memory."""

    def peak(rows: int) -> int:
        file = tmp_path / f"{rows}.jsonl"
        with file.open("w") as lines:
            for number in range(rows):
                lines.write(json.dumps(row(number % 360, f"c-{number}")) + "\n")
        code = "import resource, rollout.cli as c; c.cli(standalone_mode=False); print(resource.getrusage(0).ru_maxrss)"
        arguments = ("predict", str(file), "--out", f"{file}.out.jsonl", "--url", both.base, "--model", "digits")
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        with open(f"{file}.out.jsonl") as lines:  # noqa: PTH123
            assert sum(1 for _ in lines) == rows
        return int(done.stdout.split()[-1])

    small = peak(2_000)
    assert peak(20_000) < small + 15_000, "kB"


def test_a_job_outlives_a_worker(bundles: str, tmp_path: Path) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    with file.open("w") as lines:
        for number in range(8_000):
            lines.write(json.dumps(row(number % 360, f"c-{number}")) + "\n")
    home = tmp_path / "home"
    set_split(home, *TRIAL)
    with run_service(home, ROLLOUT_WORKERS="1") as running:
        printed: list[str] = []
        # Neither the address nor the only model is named.
        command, port = ("predict", str(file), "--out", str(out)), running.base.rpartition(":")[2]
        job = threading.Thread(target=lambda: printed.append(run(home, *command, ROLLOUT_PORT=port)))
        job.start()
        partial = tmp_path / ".out.jsonl.partial"
        while not partial.exists() or partial.stat().st_size < 100_000:
            time.sleep(0.01)
        for worker in running.workers():
            worker.kill()
        assert not out.exists(), "the file is there only when it is whole"
        job.join()
    assert printed[0].startswith("8,000 rows, ")
    with out.open() as lines:
        assert [json.loads(line)["client_id"] for line in lines] == [f"c-{number}" for number in range(8_000)]
