"""The scripts that a new machine runs first."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import BIN, ROOT


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / script, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("version", "words"), [("Python 3.9.2", "is too old"), (None, "on the PATH")])
def test_an_old_or_missing_python_is_said_in_one_line(tmp_path: Path, version: str | None, words: str) -> None:
    python = tmp_path / "python"
    if version is not None:
        python.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo {version} && exit 0\nexit 1\n')
        python.chmod(0o755)
    done = run("install", "demo", PYTHON=str(python))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("rollout: ")
    assert words in line
    assert "Python 3.11 or later" in line


def test_a_missing_program_is_named() -> None:
    assert run("need", "bash").returncode == 0
    done = run("need", "no-such-program-anywhere", PATH="/bin:/usr/bin")
    assert done.returncode == 1
    assert "no-such-program-anywhere is missing" in done.stderr.splitlines()[-1]


def test_who_needs_a_program_at_the_same_time_waits_for_it(tmp_path: Path) -> None:
    fakes = {
        "id": "echo 0",
        "apt-get": f"""
            [ -e {tmp_path}/held ] && echo "E: Could not get lock" >&2 && exit 100
            touch {tmp_path}/held; sleep 0.3; echo "$@" >> {tmp_path}/calls; rm {tmp_path}/held
            case "$*" in *install*) cp {tmp_path}/id {tmp_path}/rare-program ;; esac
        """,
    }
    for name, code in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{code}")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:/bin:/usr/bin", "TMPDIR": str(tmp_path)}
    command = [str(ROOT / "scripts" / "need"), "rare-program", "rare-package"]
    running = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(3)]
    assert [(one.communicate(timeout=60)[1], one.returncode) for one in running] == [(b"", 0)] * 3
    update, install = (tmp_path / "calls").read_text().splitlines()
    assert update.endswith("update")
    assert install.endswith("rare-package")


LOCKS = ["constraints.txt", *(f"requirements/{name}.txt" for name in ("build", "demo", "sbom", "serve", "torch"))]


def read_lock(name: str) -> dict[str, list[str]]:
    """Returns what a lock pins, each with its hashes."""
    pins: dict[str, list[str]] = {}
    for line in (ROOT / name).read_text().replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            pin, _, hashes = line.partition(" --hash=")
            pins[pin.strip()] = hashes.split(" --hash=")
    return pins


@pytest.mark.parametrize("name", LOCKS)
def test_everything_is_pinned_and_has_its_hashes(name: str) -> None:
    pins = read_lock(name)
    assert pins
    for pin, hashes in pins.items():
        assert re.fullmatch(r"[\w.-]+==[\w.+]+( ; .*)?", pin), pin
        assert hashes, pin
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", one.strip()) for one in hashes), pin


@pytest.mark.parametrize("name", ["requirements/demo.txt", "requirements/serve.txt", "requirements/torch.txt"])
def test_what_is_installed_elsewhere_is_a_part_of_what_is_tested(name: str) -> None:
    assert read_lock(name).items() <= read_lock("constraints.txt").items()


def test_nothing_is_installed_without_a_hash_but_what_is_built_here() -> None:
    texts = [(ROOT / path).read_text().replace("\\\n", " ") for path in ("Dockerfile", "scripts/install")]
    steps = re.findall(r"pip\b.* install .*", "\n".join(texts))
    assert len(steps) >= 8
    ours = ("/opt/wheel/*.whl", "--editable .")
    assert [one for one in steps if "--require-hashes" not in one and not any(part in one for part in ours)] == []


@pytest.mark.parametrize("name", ["constraints.txt", "requirements/demo.txt", "requirements/torch.txt"])
def test_torch_is_the_build_for_cpus(name: str) -> None:
    builds = {pin for pin in read_lock(name) if pin.startswith("torch==")}
    assert builds == {
        'torch==2.13.0+cpu ; sys_platform == "linux" and platform_machine == "x86_64"',
        'torch==2.13.0 ; sys_platform != "linux" or platform_machine != "x86_64"',
    }
    assert not [
        pin for pin in read_lock(name) if pin.startswith(("nvidia-", "cuda-", "triton==")) and "ml-py" not in pin
    ]


def test_another_file_than_the_locked_one_is_refused(tmp_path: Path) -> None:
    (pin,) = (one for one in read_lock("requirements/serve.txt") if one.startswith("click=="))
    (tmp_path / f"click-{pin.partition('==')[2]}-py3-none-any.whl").write_bytes(b"another")
    lock = tmp_path / "lock.txt"
    hashes = " ".join(f"--hash={one.strip()}" for one in read_lock("requirements/serve.txt")[pin])
    lock.write_text(f"{pin} {hashes}\n")
    options = ["--no-deps", "--no-index", f"--find-links={tmp_path}", f"--target={tmp_path / 'to'}"]
    done = subprocess.run(
        [BIN / "python", "-m", "pip", "install", "--require-hashes", *options, "--requirement", lock],
        env={key: value for key, value in os.environ.items() if not key.startswith("PIP_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr
