"""``rollout predict`` with a folder or an archive of images: each file is a row, whoever made the archive."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rollout import Image, Number, Text
from rollout.bundle.fields import Field
from rollout.errors import ConfigError
from rollout.job.files import open_files
from rollout.job.row import Columns, Row
from rollout.job.source import open_source
from tests.cli.test_cli import run
from tests.conftest import ROOT, TRIAL, Service, run_service, set_split
from tests.images import image, png

FIELDS: dict[str, Field] = {"image": Image(height=32, width=32)}


@pytest.fixture(scope="module")
def digits(bundles: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("digits")
    set_split(home, *TRIAL)
    with run_service(home, ROLLOUT_WORKERS="1") as running:
        yield running


def scan(number: int) -> bytes:
    return base64.b64decode(png(np.array(image(number), np.uint8)))


def fill(folder: Path, rows: int = 6) -> None:
    (folder / "deep").mkdir(parents=True)
    for number in range(rows):
        (folder / ("deep" if number % 2 else ".") / f"{number}.png").write_bytes(scan(number))


def pack(folder: Path, archive: Path) -> Path:
    """Packs a folder by the extension, as the programs do that people have."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(folder.rglob("*")):
                packed.write(path, path.relative_to(folder))
    else:
        compress = "-cf" if archive.suffix == ".tar" else "-czf"
        subprocess.run(["tar", compress, archive, "-C", folder, "."], check=True)
    return archive


@pytest.mark.parametrize("kind", ["", ".tar", ".tar.gz", ".tgz", ".zip"])
def test_each_file_is_a_row_and_its_name_the_key(digits: Service, tmp_path: Path, kind: str) -> None:
    fill(tmp_path / "photos")
    has_link = kind != ".zip"
    if has_link:
        (tmp_path / "photos" / "link.png").symlink_to("0.png")
    given = pack(tmp_path / "photos", tmp_path / f"photos{kind}") if kind else tmp_path / "photos"
    out = tmp_path / "out.csv"
    arguments = ("predict", str(given), "--out", str(out), "--url", digits.base, "--client", "c-42")
    printed = run(digits.home, *arguments)
    assert printed.startswith("6 rows, ")
    assert ("; 1 left out, which are no files; the answers are in" in printed) == has_link
    with out.open(newline="") as text:
        answers = {answer["key"]: answer for answer in csv.DictReader(text)}
    assert set(answers) == {"0.png", "deep/1.png", "2.png", "deep/3.png", "4.png", "deep/5.png"}
    with digits.client() as client:
        for key, answer in answers.items():
            data = base64.b64encode(scan(int(Path(key).stem))).decode()
            body = {"client_id": "c-42", "key": key, "inputs": {"image": data}}
            expected = client.post("/v1/models/digits/predict", json=body).json()
            assert {name: answer[name] for name in ("client_id", "version", "arm", "label")} == {
                name: expected[name] for name in ("client_id", "version", "arm", "label")
            }


def test_what_cannot_be_a_row_fails_alone_and_what_is_no_file_is_counted(digits: Service, tmp_path: Path) -> None:
    archive, out = tmp_path / "odd.tar.gz", tmp_path / "out.jsonl"
    names = ["../../escape.png", "/etc/passwd", "x" * 200, "tab\t\x1b[31m.png", "notes.txt", "fine.png"]
    with tarfile.open(archive, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            content = b"hello" if name == "notes.txt" else scan(1)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            link = tarfile.TarInfo("link")
            link.type, link.linkname = kind, "/etc/passwd"
            tar.addfile(link)
        large = tarfile.TarInfo("large.png")
        large.size = 65 * 1024 * 1024
        tar.addfile(large, io.BytesIO(bytes(large.size)))
    printed = run(
        digits.home, "predict", str(archive), "--out", str(out), "--url", digits.base, "--client", "c", code=3
    )
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [answer["key"] for answer in answers] == [*names, "large.png"]
    errors = {answer["key"]: answer["error"] for answer in answers}
    assert errors["../../escape.png"] is errors["/etc/passwd"] is errors["fine.png"] is None
    assert errors["x" * 200] == errors["tab\t\x1b[31m.png"] == "/key must be 1 to 128 printable characters"
    assert "the bytes are neither" in errors["notes.txt"]
    assert errors["large.png"] == "the file is larger than 67,108,864 bytes"
    assert "4 of 7 rows failed" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["odd.tar.gz", "out.jsonl"]


def rows_of(file: Path) -> list[Row]:
    return list(open_source(file, Columns("", "", FIELDS), "c").read())


def test_links_are_not_followed_and_names_that_are_no_text_stay_different(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    fill(folder, 2)
    (folder / "link.png").symlink_to("/etc/passwd")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    for name in (b"\xff.png", b"\xfe.png"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(scan(2))
    source = open_files(folder, FIELDS, "c")
    assert [row.key for row in source.read()] == ["0.png", "deep/1.png", "\\xfe.png", "\\xff.png"]
    assert source.left_out() == 3
    assert [row.key for row in source.rows(skip=3)] == ["\\xff.png"]
    assert source.left_out() == 3, "of the last time that it was read"


def test_a_zip_that_was_made_to_harm(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("../a.png", scan(1))
        packed.writestr("zeros.png", bytes(80 * 1024 * 1024))
        packed.writestr(zipfile.ZipInfo("bz.png"), scan(1), zipfile.ZIP_BZIP2)
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "/etc/passwd")
        packed.writestr("damaged.png", b"x" * 1000)
    data = bytearray(archive.read_bytes())
    at = data.index(b"damaged.png") + len("damaged.png") + 2
    data[at : at + 4] = b"\xff\xff\xff\xff"
    archive.write_bytes(data)
    source = open_files(archive, FIELDS, "c")
    assert [(row.key, row.fault and row.fault[:33]) for row in source.read()] == [
        ("../a.png", None),
        ("zeros.png", "the file is larger than 67,108,86"),
        ("bz.png", "the file is compressed by somethi"),
        ("damaged.png", "the file cannot be read: Error -3"),
    ]
    assert source.left_out() == 1


def test_headers_of_a_tar_do_not_fill_the_memory(tmp_path: Path) -> None:
    archive = tmp_path / "pax.tar.gz"
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    with gzip.open(archive, "wb") as packed:
        packed.write(header.tobuf())
        packed.write(bytes(1 << 20))
    with pytest.raises(ConfigError, match="a header in it is too large"):
        rows_of(archive)


@pytest.mark.parametrize("name", ["cut.tar.gz", "none.zip", "none.tar", "text.tgz"])
def test_an_archive_that_is_none(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "folder")
    archive = tmp_path / name
    if name == "cut.tar.gz":
        archive.write_bytes(pack(tmp_path / "folder", tmp_path / "whole.tar.gz").read_bytes()[:-900])
    else:
        archive.write_bytes(b"hello" * 500)
    with pytest.raises(ConfigError, match=f"cannot read .*{name}: "):
        rows_of(archive)


def test_what_must_be_said_and_what_models_take_files(digits: Service, tmp_path: Path) -> None:
    fill(tmp_path / "photos", 1)
    with pytest.raises(ConfigError, match="--client ID says whose all its files are"):
        open_files(tmp_path / "photos", FIELDS, "")
    others: list[dict[str, Field]] = [{"text": Text()}, {**FIELDS, "age": Number()}]
    for fields in others:
        with pytest.raises(ConfigError, match=f"the model takes {', '.join(fields)}: give it a table"):
            open_files(tmp_path / "photos", fields, "c")
    (tmp_path / "in.csv").write_text("client_id,image\n")
    arguments = ("--out", str(tmp_path / "o.csv"), "--url", digits.base, "--client", "c")
    printed = run(digits.home, "predict", str(tmp_path / "in.csv"), *arguments, code=1)
    assert "in.csv has a column of client IDs, named by --client-id" in printed
    printed = run(digits.home, "predict", str(tmp_path / "none.zip"), *arguments, code=1)
    assert "No such file" in printed


def test_many_files_take_no_more_memory_than_few(digits: Service, tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        archive = tmp_path / f"{rows}.tar"
        noise = np.random.default_rng(1).integers(0, 256, (700, 700), np.uint8)
        content = base64.b64decode(png(noise))
        with tarfile.open(archive, "w") as tar:
            for number in range(rows):
                member = tarfile.TarInfo(f"{number}.png")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        code = "import resource, rollout.cli as c; c.cli(standalone_mode=False); print(resource.getrusage(0).ru_maxrss)"
        arguments = ("predict", str(archive), "--out", f"{archive}.csv", "--url", digits.base, "--client", "c")
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith(f"{rows} rows, ")
        return int(done.stdout.split()[-1])

    assert peak(200) < peak(20) + 20_000, "kB; they have 100 MB"
