"""Which models are served: those that have bundles here, and a split."""

from __future__ import annotations

import logging

from rollout.bundle.store import bundle_names
from rollout.config import Settings
from rollout.errors import BundleError, StoredValueError, StoreUnavailableError
from rollout.routing.split import Split
from rollout.routing.split_cache import cached_splits
from rollout.routing.splits import read_split
from rollout.store import Redis, require_supported

logger = logging.getLogger(__name__)


async def read_served(redis: Redis, settings: Settings) -> dict[str, Split]:
    """Returns the split of every model that has bundles and a split; without Redis, those last seen here.

    Raises:
        BundleError: If there is none.
        StoreUnavailableError: If Redis does not answer, and none was ever seen here.
    """
    names = sorted(bundle_names())
    try:
        await require_supported(redis)
        found = {name: await _read_or_recall(redis, settings, name) for name in names}
        splits = {name: split for name, split in found.items() if split is not None}
    except StoreUnavailableError as error:
        splits = {name: split for name, split in cached_splits(settings.home).items() if name in names}
        if not splits:
            raise
        logger.warning("%s; the splits that were last seen here hold", error.detail)
    if not splits:
        raise BundleError(
            f"there is nothing to serve; models with bundles: {', '.join(names) or 'none'}; with a split: none; "
            "`rollout build` makes bundles, `rollout split set MODEL --champion VERSION` makes a split"
        )
    return splits


async def _read_or_recall(redis: Redis, settings: Settings, name: str) -> Split | None:
    """Returns a model's split; where what Redis has is none, that last seen here, if any."""
    try:
        return await read_split(redis, name)
    except StoredValueError as error:
        split = cached_splits(settings.home).get(name)
        so = "it is not served" if split is None else "the split that was last seen here holds"
        logger.error("%s: %s; %s", name, error.detail, so)
        return split
