"""How the tests are run: which of them together, in which order, how long at most, and which need no process."""

from __future__ import annotations

import asyncio
import io
import shutil
import subprocess
from typing import Any, NoReturn

import pytest
import pytest_timeout

# Measured; first those that take longest, so that no process is left with one of them at the end.
LONGEST = (
    "tests/test_readme.py",
    "tests/bundle/test_cpp.py",
    "tests/image/test_image.py",
    "tests/kinds/test_kinds.py",
    "tests/cli/test_split.py",
    "tests/service/console/test_browser.py",
    "tests/cli/test_push_pull.py",
    "tests/cli/test_labels.py",
    "tests/cli/test_review.py",
    "tests/cli/test_review_labels.py",
    "tests/service/test_serve.py",
    "tests/cli/test_predict.py",
    "tests/service/console/test_review_leases.py",
    "tests/cli/test_cli.py",
    "tests/cli/test_gate_and_sign.py",
)
# These measure under load, and would measure each other: `make test` runs them after all others, one by one.
ALONE = (
    "tests/loadtests/",
    "tests/service/test_challenger.py",
    "tests/service/test_drain_and_swap.py",
    "tests/service/test_kill.py",
    "tests/service/test_overload.py",
    "tests/service/test_redis_failover.py",
    "tests/service/test_serve.py::test_nobody_waits_for_a_slow_neighbour",
    "tests/service/test_serve.py::test_sigterm_answers_what_is_in_flight_and_exits_cleanly",
)
# A test needs a process if it is here, where bundles are packed, models trained and manifests rendered,
PROCESS_FILES = (
    "tests/bundle/test_exchange.py",
    "tests/bundle/test_machine.py",
    "tests/bundle/test_pack.py",
    "tests/bundle/test_reliability.py",
    "tests/bundle/test_screening.py",
    "tests/bundle/test_source.py",
    "tests/cli/",
    "tests/image/",
    "tests/k8s/",
    "tests/kinds/",
    "tests/loadtests/",
    "tests/models/",
    "tests/training/",
)
# or uses one of these fixtures, or its module one of these names.
FIXTURES = {"bundles", "valkey_url", "service", "chromium", "program", "haproxy", "wrk", "redis"}
NAMES = {
    "subprocess",
    "run_service",
    "need",
    "running_redis",
    "RedisServer",
    "small_disk",
    "get_context",
    "multiprocessing",
    "one_pod",
    "kubectl",
}
WITHOUT_PROCESS = "not process"


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker, and has a test that is out of time show its tasks as well."""
    config.addinivalue_line("markers", "alone: measures under load, and runs beside no other test")
    config.addinivalue_line("markers", "process: starts a process, or needs one that another test started")
    pytest_timeout.dump_stacks = dump_stacks


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes what was built for all processes."""
    from tests.conftest import IS_SHARED, SHARED

    if not IS_SHARED and not hasattr(config, "workerinput"):
        shutil.rmtree(SHARED, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what its markers leave out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take long first, and marks what the tests need."""
    items.sort(key=lambda item: _rank(_file(item)))
    for item in items:
        if item.nodeid.startswith(ALONE):
            item.add_marker(pytest.mark.alone)
        if needs_process(item):
            item.add_marker(pytest.mark.process)


def needs_process(item: pytest.Item) -> bool:
    """Whether a test starts a process, or uses one."""
    module: Any = getattr(item, "module", None)
    return (
        _file(item).startswith(PROCESS_FILES)
        or bool(FIXTURES & set(getattr(item, "fixturenames", ())))
        or bool(NAMES & set(vars(module)))
    )


@pytest.fixture(autouse=True)
def _no_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In ``make check``, fails a test that starts a process although it is not marked so."""
    if request.config.option.markexpr == WITHOUT_PROCESS:
        monkeypatch.setattr(subprocess, "Popen", _Refused)


class _Refused:
    def __init__(self, *arguments: object, **_: object) -> NoReturn:
        raise AssertionError(f"a test without the marker `process` starts {arguments}: see tests/running.py")


def dump_stacks(terminal: Any) -> None:
    """Writes the stacks of all threads, and of all tasks of the event loop that was running."""
    _dump_threads(terminal)
    for task in _tasks():
        stack = io.StringIO()
        task.print_stack(file=stack)
        terminal.sep("~", title=f"Stack of task {task.get_name()}")
        terminal.write(stack.getvalue())


def _tasks() -> set[asyncio.Task[Any]]:
    try:
        return asyncio.all_tasks()
    except RuntimeError:  # no event loop was running
        return set()


_dump_threads = pytest_timeout.dump_stacks


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _rank(file: str) -> int:
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)
