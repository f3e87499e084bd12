"""The spool: nothing that it took is lost."""

from __future__ import annotations

import multiprocessing
import zlib
from pathlib import Path

import pytest

from rollout.review.spool import Spool
from tests.disks import fill, small_disk
from tests.review.items import make_item

LIMIT = 1_000_000


def drain(spool: Spool) -> list[str | None]:
    with spool.drain() as items:
        return [item.key for item in items]


def test_drains_in_order_and_only_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT)
    assert spool.append([make_item(1), make_item(2)]) == [True, True]
    assert spool.append([make_item(3)]) == [True]
    assert spool.size > 0
    with spool.drain() as items:
        assert list(items) == [make_item(1), make_item(2), make_item(3)]
    assert drain(spool) == []
    assert spool.size == 0


def test_a_drain_that_fails_keeps_everything(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT)
    spool.append([make_item(1), make_item(2)])
    with pytest.raises(ConnectionError), spool.drain() as items:
        next(items)
        raise ConnectionError
    spool.append([make_item(3)])
    assert drain(spool) == ["key-1", "key-2"], "what was being drained comes first"
    assert drain(spool) == ["key-3"]


def test_another_start_finds_what_was_left(tmp_path: Path) -> None:
    Spool(tmp_path, LIMIT).append([make_item(1)])
    assert drain(Spool(tmp_path, LIMIT)) == ["key-1"]


def test_a_cut_line_costs_only_itself(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT)
    spool.append([make_item(1), make_item(2)])
    file = tmp_path / "items.jsonl"
    file.write_bytes(file.read_bytes()[:-40])
    spool.append([make_item(3)])
    assert drain(spool) == ["key-1", "key-3"]


def test_a_damaged_line_costs_only_itself(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT)
    spool.append([make_item(1), make_item(2), make_item(3)])
    file = tmp_path / "items.jsonl"
    file.write_bytes(file.read_bytes().replace(b"client-2", b"client-9"))
    assert drain(spool) == ["key-1", "key-3"]


def test_it_is_bounded(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1300)
    assert spool.append([make_item(number) for number in range(5)]) == [True, True, False, False, False]
    assert spool.size <= 1300


def test_what_a_full_disk_does_not_take_leaves_no_trace(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "256k") as disk:
        spool = Spool(disk, LIMIT)
        spool.append([make_item(1)])
        filler = fill(disk)
        before = spool.size
        with pytest.raises(OSError, match="No space left"):
            spool.append([make_item(number) for number in range(2, 30)])
        assert spool.size == before
        filler.unlink()
        assert spool.append([make_item(30)]) == [True]
        assert drain(spool) == ["key-1", "key-30"]


def test_a_second_drain_at_the_same_time_gets_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT)
    spool.append([make_item(1)])
    with spool.drain() as items:
        assert drain(Spool(tmp_path, LIMIT)) == []
        assert [item.key for item in items] == ["key-1"]


def append_many(folder: Path, start: int) -> None:
    spool = Spool(folder, 10 * LIMIT)
    for number in range(start, start + 50):
        spool.append([make_item(number)])


def test_processes_share_it_while_it_is_drained(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_many, args=(tmp_path, start)) for start in (0, 1000, 2000)]
    for writer in writers:
        writer.start()
    found: list[str | None] = []
    while any(writer.is_alive() for writer in writers):
        found += drain(Spool(tmp_path, LIMIT))
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    found += drain(Spool(tmp_path, LIMIT))
    assert sorted(map(str, found)) == sorted(f"key-{start + n}" for start in (0, 1000, 2000) for n in range(50))


def test_what_another_release_wrote_holds_nothing_up(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1_000_000)
    data = b'{"id":"of another time"}'
    line = b"%08x %b\n" % (zlib.crc32(data), data)
    (tmp_path / "items.jsonl").write_bytes(line)
    spool.append([make_item(1)])
    with spool.drain() as items:
        assert [item.key for item in items] == ["key-1"]
    assert (tmp_path / "unreadable.jsonl").read_bytes() == line


def test_what_is_set_aside_is_bounded(tmp_path: Path) -> None:
    data = b'{"id":"of another time"}'
    line = b"%08x %b\n" % (zlib.crc32(data), data)
    (tmp_path / "items.jsonl").write_bytes(5 * line)
    assert drain(Spool(tmp_path, 3 * len(line))) == []
    assert (tmp_path / "unreadable.jsonl").read_bytes() == 3 * line
