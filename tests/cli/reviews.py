"""``rollout review`` as it is typed, on the session's Valkey."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.commands import rollout
from tests.conftest import STORE


class Review:
    """``rollout review`` on a Valkey.

    Attributes:
        folder: Where its files are.
        errors: What the last command printed on stderr.
    """

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.folder = folder
        self.errors = ""
        self.environment = os.environ | {
            "ROLLOUT_HOME": str(folder),
            "ROLLOUT_REDIS_URL": redis_url,
            "BENTOML_HOME": STORE,
            "COLUMNS": "120",
            "LOGNAME": "ada",
        }

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        """Runs it where nobody can be asked; returns what it printed on stdout."""
        done = rollout("review", *arguments, environment=self.environment)
        assert done.returncode == code, done.stderr
        self.errors = done.stderr
        return done.stdout

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        """Runs it with ``--json``; returns what it printed."""
        return json.loads(self(*arguments, "--json", code=code))

    def rows(self, *arguments: str | Path) -> list[dict[str, Any]]:
        """Runs ``export``; returns the rows that it printed."""
        return [json.loads(line) for line in self("export", "digits", *arguments).splitlines()]

    def lines(self, *arguments: str | Path, code: int = 0) -> list[str]:
        """Runs it; returns its lines, with single spaces."""
        return [" ".join(line.split()) for line in self(*arguments, code=code).splitlines()]

    def file(self, name: str, *rows: Any) -> Path:
        """Writes rows as JSON lines into a file; returns where it is."""
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path
