"""This machine: the home on its disk, ports, cores and memory."""

from __future__ import annotations

import errno
import http.client
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus

from rollout.cores import own_cgroups, usable_cores
from rollout.doctor.finding import Finding, fault, ok, warning
from rollout.doctor.setup import Setup
from rollout.home import PRIVATE_UMASK

MB = 1_000_000
# Below it the embedded Valkey, the spool and a new bundle fail soon.
LEAST_FREE = 64 * MB
LITTLE_FREE = 1000 * MB
# What a worker takes without torch, before it has any model.
WORKER_BYTES = 140 * MB
CONNECT_S = 2.0


def home(setup: Setup) -> Iterator[Finding]:
    """Is the home there, ours, and for nobody else?"""
    folder = setup.settings.home
    try:
        found = folder.stat()
    except FileNotFoundError:
        yield ok(f"{folder.resolve()} does not exist yet; the first `rollout serve` makes it")
        return
    if not stat.S_ISDIR(found.st_mode):
        yield fault(f"{folder} is no folder", "move it away, or set ROLLOUT_HOME to another place")
        return
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != os.geteuid():
        yield warning(
            f"{folder} belongs to user {found.st_uid}, and this is user {os.geteuid()}",
            "run Rollout as its owner, or give the folder to this user",
        )
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield fault(f"{folder} cannot be written to (mode {mode:o})", f"`chmod 700 {folder}`, as its owner")
    elif mode & PRIVATE_UMASK:
        yield warning(
            f"other users can enter {folder} (mode {mode:o})", f"`chmod 700 {folder}`; so does `rollout serve`"
        )
    else:
        yield ok(f"{folder.resolve()} is for its owner alone")
    with suppress(FileNotFoundError):
        if (folder / "token").stat().st_mode & PRIVATE_UMASK:
            yield warning(f"other users may read {folder / 'token'}", f"`chmod 600 {folder / 'token'}`")


def disk(setup: Setup) -> Iterator[Finding]:
    """Is there room on the disks of the home and the store?"""
    seen = set()
    for what, folder in (("the home", setup.settings.home), ("the store", setup.store)):
        place = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
        if (device := place.stat().st_dev) in seen:
            continue
        seen.add(device)
        free = shutil.disk_usage(place).free
        said = f"{free / 1e9:,.1f} GB are free on the disk of {what}"
        if free < LEAST_FREE:
            yield fault(said, "make room: review items and bundles cannot be written")
        elif free < LITTLE_FREE:
            yield warning(said, "make room; `rollout gc` removes bundles that nobody names")
        else:
            yield ok(said)


def ports(setup: Setup) -> Iterator[Finding]:
    """Are the ports free? If not, who listens there?"""
    settings = setup.settings
    is_ours = False
    if settings.port:
        _, metrics = _get(settings.host, settings.port, "/metrics")
        is_ours = b"rollout_" in metrics
        if is_ours:
            yield _service(settings.host, settings.port)
        else:
            yield _port(settings.host, settings.port, "ROLLOUT_PORT")
    if settings.grpc_port:
        if is_ours and _listens(settings.host, settings.grpc_port):
            yield ok(f"port {settings.grpc_port}: taken while a Rollout service runs, for gRPC")
        else:
            yield _port(settings.host, settings.grpc_port, "ROLLOUT_GRPC_PORT")


def cores(setup: Setup) -> Iterator[Finding]:
    """Are there as many cores as workers?"""
    workers, usable = setup.settings.processes, usable_cores()
    said = f"workers: {workers}; cores within the CPU limit: {usable}"
    if workers > usable:
        yield warning(
            said, "lower ROLLOUT_WORKERS or raise the limit: workers that share a core hold each other up"
        )
    elif workers * setup.settings.intra_op_threads > usable:
        yield warning(
            f"{said}; ROLLOUT_INTRA_OP_THREADS: {setup.settings.intra_op_threads}",
            "lower one of them: together they are more than the cores",
        )
    else:
        yield ok(said)


def memory(setup: Setup) -> Iterator[Finding]:
    """Is there memory for what the splits name, in every worker?"""
    size = 0
    named = [f"{model}:{version}" for model, split in setup.splits.items() for version in split.kept]
    if here := [tag for tag in named if tag in setup.tags]:
        from rollout.bundle.store import bundle_bytes  # noqa: PLC0415  the store imports BentoML

        size = sum(map(bundle_bytes, here))
    workers, limit = setup.settings.processes, _memory_limit()
    needed = workers * (WORKER_BYTES + size)
    said = f"workers: {workers}, which take some {needed / 1e9:,.1f} GB of {limit / 1e9:,.1f} GB"
    if needed > limit:
        yield warning(said, "raise the memory limit or lower ROLLOUT_WORKERS; else workers are killed")
    else:
        yield ok(said)


def _service(host: str, port: int) -> Finding:
    if _get(host, port, "/readyz")[0] == HTTPStatus.OK:
        return ok(f"port {port}: a Rollout service listens, and is ready")
    return warning(f"port {port}: a Rollout service listens, and is not ready", "its log says why")


def _port(host: str, port: int, setting: str) -> Finding:
    if _listens(host, port):
        return fault(f"port {port} on {host}: {_listener(port)} listens", f"stop it, or change {setting}")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        why = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror
        return fault(f"port {port} on {host} cannot be listened on: {why}", f"change {setting} or ROLLOUT_HOST")
    return ok(f"port {port} is free")


def _listener(port: int) -> str:
    """Returns which program listens, as far as this user may know."""
    with suppress(ImportError, OSError):
        import psutil  # noqa: PLC0415  comes with BentoML, on most platforms

        with suppress(psutil.Error):
            for one in psutil.net_connections("tcp"):
                if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
                    return f"{psutil.Process(one.pid).name()} (process {one.pid})"
    return "another program"


def _listens(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((_reached(host), port), CONNECT_S):
        return True
    return False


def _get(host: str, port: int, path: str) -> tuple[int, bytes]:
    """Asks whoever listens; returns status and body, 0 and nothing where there is no answer in HTTP."""
    connection = http.client.HTTPConnection(_reached(host), port, timeout=CONNECT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(MB)
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def _reached(host: str) -> str:
    """Returns where a service is reached that listens on all addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  it is only asked


def _memory_limit() -> int:
    """Returns the bytes of memory that this process may take: of its cgroups and of the machine."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in own_cgroups():
        with suppress(OSError, ValueError):  # there is none, or it says max
            limits.append(int((folder / "memory.max").read_text()))
    return min(limits)
