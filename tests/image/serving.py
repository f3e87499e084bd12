"""The image's root file system at work, as a pod runs it: read-only, as its user, with two volumes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.conftest import free_port, wait_ready
from tests.image.dockerfile import Stage
from tests.image.root import Tree

VOLUMES = ("/var/lib/rollout", "/tmp")


@dataclass
class Pod:
    """What a container gets: its image, its variables and its volumes.

    Attributes:
        stage: What the Dockerfile says about the image.
        tree: The image's root file system.
        environment: What the image does not set itself.
        volumes: A folder of this machine for each of ``VOLUMES``.
    """

    stage: Stage
    tree: Tree
    environment: Mapping[str, str]
    volumes: Mapping[str, Path]

    def command(
        self, *arguments: str, entrypoint: list[str] | None = None, options: tuple[str, ...] = ()
    ) -> list[str]:
        """Returns the command that runs the image with these arguments, or with its own."""
        return self.tree.command(
            [*(entrypoint or self.stage.words("ENTRYPOINT")), *(arguments or self.stage.words("CMD"))],
            # A user without an entry in /etc/passwd gets / as the home.
            environment={"HOME": "/", **self.stage.environment, **self.environment},
            directory=self.stage.last("WORKDIR"),
            user=self.stage.user,
            mounts=self.volumes,
            read_only=True,
            options=options,
        )

    def run(self, *arguments: str, entrypoint: list[str] | None = None, options: tuple[str, ...] = ()) -> str:
        """Runs it to its end and returns what it says, which must end well."""
        command = self.command(*arguments, entrypoint=entrypoint, options=options)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@dataclass
class Running:
    """A container that serves.

    Attributes:
        process: ``bwrap``, which ends with the code of what it runs.
        pid: What it runs, as this machine counts.
        base: Where it answers.
        log: What it says.
    """

    process: subprocess.Popen[bytes]
    pid: int
    base: str
    log: Path


@contextlib.contextmanager
def serving(pod: Pod, log: Path) -> Iterator[Running]:
    """Runs the image's own command until the block ends."""
    port = free_port()
    reader, writer = os.pipe()
    # 3000 may be another's on this machine.
    pod = replace(pod, environment={**pod.environment, "ROLLOUT_PORT": str(port)})
    with log.open("w") as file:
        process = subprocess.Popen(
            pod.command(options=("--info-fd", str(writer))), stdout=file, stderr=file, pass_fds=[writer]
        )
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told: dict[str, Any] = json.loads(pipe.read())
    running = Running(process, told["child-pid"], f"http://127.0.0.1:{port}", log)
    try:
        wait_ready(running.base, process, log)
        yield running
    finally:
        if process.poll() is None:
            # What runs as another user outlives bwrap; it is the first process of its name space, which ends with it.
            os.kill(running.pid, signal.SIGKILL)
        process.wait()
