"""Who sends: a replica. To the collector its workers are one instance; one of them sends what all counted."""

from __future__ import annotations

import fcntl
import os
import socket
import time
import uuid
from pathlib import Path

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from rollout.__about__ import __version__

FILE = "otlp"


class Replica:
    """The workers of a replica, which know of each other by a file beside their metrics.

    Attributes:
        resource: What it is, as OpenTelemetry says it; ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_SERVICE_NAME``
            have the last word.
        since: When the first worker started, in nanoseconds since 1970: what is counted began then.
    """

    def __init__(self) -> None:
        shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        self._file = None if shared is None else (Path(shared) / FILE).open("a+")
        instance, self.since = str(uuid.uuid4()), time.time_ns()
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._file.seek(0)
            if found := self._file.read().split():
                instance, self.since = found[0], int(found[1])
            else:
                self._file.write(f"{instance} {self.since}")
                self._file.flush()
            fcntl.flock(self._file, fcntl.LOCK_UN)
        ours = Resource.create(
            {
                "service.name": "rollout",
                "service.version": __version__,
                "service.instance.id": instance,
                "host.name": socket.gethostname(),
            }
        )
        self.resource = ours.merge(OTELResourceDetector().detect())

    def speaks(self) -> bool:
        """Whether this worker sends what all of them counted; where it ends, another one does."""
        if self._file is None:
            return True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
