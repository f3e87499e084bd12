"""The worker processes of ``rollout serve``: forked from one in which the imports are done.

It has no threads and answers nobody. A worker starts in a fifth of the time, the one in the place of another,
too, and what is imported is in memory once.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from multiprocessing.connection import Connection

import uvicorn._subprocess

from rollout.config import Settings
from rollout.errors import ConfigError, RolloutError

# Elsewhere, what is imported may not be forked: https://docs.python.org/3/library/multiprocessing.html
_context = (
    multiprocessing.get_context("forkserver") if sys.platform == "linux" else multiprocessing.get_context("spawn")
)
_context.set_forkserver_preload(["service.preloaded"])


def fork_workers() -> None:
    """Has uvicorn start its workers so, for which it has no setting."""
    uvicorn._subprocess.spawn = _context  # type: ignore[assignment]  # any context does


def check_bundles(settings: Settings, url: str) -> None:
    """Refuses to start without a champion; a worker would only say so in the middle of its start.

    Args:
        settings: What is to be served.
        url: Of Redis.

    Raises:
        BundleError: If there is nothing to serve, or a champion is refused.
        StoreUnavailableError: If Redis does not answer, and no split was ever seen here.
        ConfigError: If they could not be looked at.
    """
    receiver, sender = _context.Pipe(duplex=False)
    # It has imported the store of bundles already.
    looking = _context.Process(target=_check_bundles, args=(settings, url, sender), daemon=True)
    looking.start()
    sender.close()
    try:
        fault: RolloutError | None = receiver.recv()
    except EOFError:
        raise ConfigError("the bundles could not be looked at; the lines before this one say why") from None
    looking.join()
    if fault is not None:
        raise fault


def _check_bundles(settings: Settings, url: str, sender: Connection) -> None:
    try:
        asyncio.run(_open_champions(settings, url))
    except RolloutError as error:
        sender.send(error)
    else:
        sender.send(None)


async def _open_champions(settings: Settings, url: str) -> None:
    from rollout.bundle.store import open_bundle  # noqa: PLC0415  the store imports BentoML
    from rollout.inference.served_splits import read_served  # noqa: PLC0415
    from rollout.store import client_of  # noqa: PLC0415

    redis = client_of(url)
    try:
        for name, split in (await read_served(redis, settings)).items():
            open_bundle(f"{name}:{split.champion}", settings.public_key)
    finally:
        await redis.aclose()
