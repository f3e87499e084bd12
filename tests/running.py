"""How the tests are run: which of them together, in which order, how long at most, and which need no process."""

from __future__ import annotations

import asyncio
import io
import shutil
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest
import pytest_timeout
from xdist.scheduler import LoadFileScheduling

# Measured; first those that take longest, so that no process is left with one of them at the end.
LONGEST = (
    "tests/site/test_readme.py",
    "tests/test_circle.py",
    "tests/kinds/test_kinds.py",
    "tests/http/test_connections.py",
    "tests/site/test_how_tos.py",
    "tests/improvement/test_steps.py",
    "tests/cli/test_improve.py",
    "tests/bundle/test_cpp.py",
    "tests/http/test_fuzz.py",
    "tests/models/test_addresses.py",
    "tests/image/test_image.py",
    "tests/service/test_new_models.py",
    "tests/service/console/test_browser.py",
    "tests/service/test_challenger.py",
    "tests/cli/test_push_pull.py",
    "tests/training/test_tracking.py",
    "tests/models/test_speech.py",
    "tests/cli/test_split.py",
    "tests/service/test_redis_failover.py",
    "tests/service/test_kill.py",
    "tests/training/test_fitting.py",
    "tests/models/test_arrivals.py",
    "tests/loadtests/test_large.py",
    "tests/service/test_drift.py",
    "tests/cli/test_search.py",
    "tests/loadtests/test_locust.py",
    "tests/http/test_oip_grpc.py",
    "tests/http/test_requests.py",
    "tests/http/test_stream.py",
    "tests/cli/test_labels.py",
    "tests/cli/test_review.py",
    "tests/cli/test_review_labels.py",
    "tests/service/test_serve.py",
    "tests/cli/test_predict.py",
    "tests/service/console/test_review_leases.py",
    "tests/cli/test_cli.py",
    "tests/cli/test_gate_and_sign.py",
)
# One process runs all of these: starting the service with all models that they share takes as long as they do.
TOGETHER = (
    "tests/http/test_oip_grpc.py",
    "tests/http/test_oip.py",
    "tests/http/test_feedback.py",
    "tests/http/test_files.py",
)
# These put a machine under load, or start an engine that gives up on one that is too busy, and measure nothing
# themselves: `make test` runs them after the others, two at a time.
PAIRED = (
    "tests/loadtests/test_bench.py::test_the_report_is_printed_and_nothing_fails",
    "tests/loadtests/test_rehearsal.py::test_what_a_cluster_does_costs_no_request",
    "tests/loadtests/test_ramp.py::test_no_request_fails_and_nobody_changes_sides",
    "tests/job/test_engines.py",
    "tests/job/test_page.py",
)
# These measure under load, and would measure what others do: they run at the end, one after the other.
ALONE = (
    "tests/service/test_overload.py",
    "tests/service/test_drain_and_swap.py",
    "tests/service/test_serve.py::test_nobody_waits_for_a_slow_neighbour",
    "tests/service/test_serve.py::test_sigterm_answers_what_is_in_flight_and_exits_cleanly",
)
# A test needs a process if it is here, where bundles are packed, models trained and manifests rendered,
PROCESS_FILES = (
    "tests/bundle/test_exchange.py",
    "tests/bundle/test_machine.py",
    "tests/bundle/test_pack.py",
    "tests/heads/test_reliability.py",
    "tests/bundle/test_screening.py",
    "tests/bundle/test_source.py",
    "tests/cli/",
    "tests/image/",
    "tests/job/test_scorer.py",
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
LATER = {"alone": ALONE, "paired": PAIRED}


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker, and has a test that is out of time show its tasks as well."""
    config.addinivalue_line("markers", "alone: measures under load, and runs after all others")
    config.addinivalue_line("markers", "paired: is a load, and runs beside one other of its sort")
    config.addinivalue_line("markers", "process: starts a process, or needs one that another test started")
    pytest_timeout.dump_stacks = dump_stacks


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes what was built for all processes."""
    from tests.conftest import IS_SHARED, SHARED

    if not IS_SHARED and not hasattr(config, "workerinput"):
        shutil.rmtree(SHARED, ignore_errors=True)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out the files that have no test of those asked for: importing all takes as long as some of them."""
    wanted = LATER.get(config.option.markexpr)
    is_file = collection_path.suffix == ".py" and wanted is not None
    return (
        True if is_file and not any(str(collection_path).endswith(_path(one)) for one in wanted or ()) else None
    )


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what its markers leave out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take long first, and marks what the tests need."""
    items.sort(key=lambda item: _rank(_file(item)))
    for item in items:
        for marker, tests in LATER.items():
            if item.nodeid.startswith(tests):
                item.add_marker(marker)
        if needs_process(item):
            item.add_marker(pytest.mark.process)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Hands out files, some of them as one."""
    return Files(config, log) if config.option.dist == "loadfile" else None


class Files(LoadFileScheduling):  # type: ignore[misc]  # it has no types
    """Gives a process a file at a time, and those that share a service together."""

    def _split_scope(self, nodeid: str) -> str:
        file = _path(nodeid)
        return TOGETHER[0] if file in TOGETHER else file


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
    return _path(item.nodeid)


def _path(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def _rank(file: str) -> int:
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)
