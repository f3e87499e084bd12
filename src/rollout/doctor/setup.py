"""What is looked at: the environment, the settings as far as they can be read, the store, and Redis."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from rollout.config import Settings, load_settings
from rollout.errors import ConfigError, RolloutError, StoredValueError
from rollout.routing.split import Split
from rollout.routing.split_cache import cached_splits
from rollout.routing.splits import read_models, read_split
from rollout.store import Redis, connect, report_left_out
from rollout.valkey_server import ValkeyServer

T = TypeVar("T")


class Setup:
    """An installation as it is found.

    Args:
        environ: The environment.
        deep: Whether models may be run.

    Attributes:
        environ: The environment without what the settings refuse.
        settings: The settings that it makes.
        refused: The variables that the settings refuse, and why.
        deep: Whether models may be run.
        store: BentoML's home, where the bundles lie.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ, *, deep: bool = False) -> None:
        self.environ = dict(environ)
        self.refused: dict[str, str] = {}
        self.deep = deep
        self.settings = self._read_settings()
        home = self.settings.home.resolve() / "bentoml"
        self.store = Path(self.environ.setdefault("BENTOML_HOME", str(home))).expanduser()

    def _read_settings(self) -> Settings:
        """Reads the settings; a variable that they refuse is set aside, and the next one may be refused."""
        while (error := _refusal(self.environ)) is not None:
            ours = [name for name in self.environ if name.startswith("ROLLOUT_")]
            changing = (name for name in ours if _refusal(_without(self.environ, name)) != error)
            culprit = next(changing, ours[0])  # several may be refused in the same words
            self.environ = _without(self.environ, culprit)
            self.refused[culprit] = error
        return load_settings(self.environ)

    @cached_property
    def tags(self) -> list[str]:
        """The bundles that lie here; without a store, none, and none is made."""
        if not (self.store / "models").is_dir():
            return []
        from rollout.bundle.store import bundle_tags  # noqa: PLC0415  the store imports BentoML

        return bundle_tags()

    @cached_property
    def redis_url(self) -> str:
        """Where Redis is to be: as the settings say, or the embedded one where it runs; it is not started."""
        if self.settings.redis_url:
            return self.settings.redis_url
        folder = self.settings.home.resolve() / "valkey"
        if not folder.is_dir():
            return ""
        server = ValkeyServer(folder)
        return server.url if server.is_there() else ""

    @cached_property
    def redis_trouble(self) -> str:
        """Why Redis cannot be asked; empty if it can."""
        if not self.redis_url:
            return "no embedded Valkey runs"

        async def nothing(_: Redis) -> None:
            pass

        try:
            self.ask(nothing)
        except RolloutError as error:
            return error.detail
        return ""

    def ask(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        """Runs something on Redis that changes nothing.

        Raises:
            StoreUnavailableError: If it does not answer, or is too old.
            ConfigError: If its URL names a file that is not there.
        """

        async def run() -> T:
            async with aclosing(await connect(self.redis_url)) as redis:
                return await work(redis)

        return asyncio.run(run())

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The split of each model; without Redis, as they were last seen here."""
        if self.redis_trouble:
            return cached_splits(self.settings.home)

        async def read(redis: Redis) -> dict[str, Split]:
            found = {}
            for model in await read_models(redis):
                try:
                    split = await read_split(redis, model)
                except StoredValueError as error:  # which hides no other model
                    report_left_out(error)
                else:
                    if split is not None:
                        found[model] = split
            return found

        return self.ask(read)


def _without(environ: Mapping[str, str], name: str) -> dict[str, str]:
    return {other: value for other, value in environ.items() if other != name}


def _refusal(environ: Mapping[str, str]) -> str | None:
    """Says why the settings refuse an environment; they show no secrets."""
    try:
        load_settings(environ)
    except ConfigError as error:
        return error.detail
    except Exception as error:  # such as a home of a user that there is not
        return f"{type(error).__name__}: {error}"
    return None
