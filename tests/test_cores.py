"""The cores of a container are those of its limit, not of its node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rollout.cores import usable_cores


@pytest.fixture
def own_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process on a node of 64 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    file = tmp_path / "cgroup"
    file.write_text("0::/\n")
    return file


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    folder = tmp_path / "cgroups"
    (folder / "kubepods" / "pod").mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("max 100000", 64), ("200000 100000", 2), ("350000 100000", 3), ("50000 100000", 1), ("nonsense", 64)],
)
def test_the_limit_of_the_container(own_cgroup: Path, cgroups: Path, limit: str, cores: int) -> None:
    (cgroups / "cpu.max").write_text(f"{limit}\n")
    assert usable_cores(cgroups, own_cgroup) == cores


def test_the_strictest_limit_on_the_way_up(own_cgroup: Path, cgroups: Path) -> None:
    own_cgroup.write_text("4:memory:/\n0::/kubepods/pod\n")
    (cgroups / "kubepods" / "pod" / "cpu.max").write_text("800000 100000\n")
    (cgroups / "kubepods" / "cpu.max").write_text("400000 100000\n")
    assert usable_cores(cgroups, own_cgroup) == 4


def test_without_cgroups_the_scheduler_decides(own_cgroup: Path, tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path / "no-file") == 64


def test_fewer_cores_than_the_limit(own_cgroup: Path, cgroups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    (cgroups / "cpu.max").write_text("200000 100000\n")
    assert usable_cores(cgroups, own_cgroup) == 1
