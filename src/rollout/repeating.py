"""What a worker does again and again, for as long as it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from rollout.errors import StoreUnavailableError
from rollout.store import is_cancelled, report

logger = logging.getLogger(__name__)


async def repeat(step: Callable[[], Awaitable[object]], every_s: float, failed: str) -> None:
    """Does a step until the task is cancelled; what one step fails at, the next one tries again.

    Args:
        step: The step.
        every_s: Seconds from the end of one to the next.
        failed: What is not done where one fails, for the log; that Redis is away is said by itself.
    """
    while True:
        try:
            await step()
        except StoreUnavailableError as error:
            report(error)
        except Exception:
            logger.exception("%s; trying again", failed)
        if is_cancelled():  # redis-py may have caught that
            return
        await asyncio.sleep(every_s)
