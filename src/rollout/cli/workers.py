"""The worker processes of ``rollout serve``: forked from one in which the imports are done.

It has no threads and answers nobody. A worker starts in a fifth of the time, the one in the place of another,
too, and what is imported is in memory once.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import uvicorn._subprocess

from rollout.config import Settings

# Elsewhere, what is imported may not be forked: https://docs.python.org/3/library/multiprocessing.html
_context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
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
    """
    with ProcessPoolExecutor(1, _context) as pool:  # which has imported the store of bundles already
        pool.submit(_check_bundles, settings, url).result()


def _check_bundles(settings: Settings, url: str) -> None:
    asyncio.run(_open_champions(settings, url))


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
