"""``rollout pull``: fetch bundles from where they are kept for all."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from rollout.cli.examples import examples
from rollout.cli.output import say
from rollout.cli.shared import trust_option
from rollout.cli.termination import end_on_sigterm
from rollout.config import load_settings
from rollout.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from rollout.bundle.exchange import Pull

LEFT_OUT = 3


@click.command(epilog=examples("rollout pull s3://models/rollout", "rollout pull /mnt/bundles --every 60"))
@click.argument("url")
@click.option(
    "--every",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Go on until SIGTERM, and look again after so many seconds.",
)
@trust_option
def pull(url: str, every: float | None, *, trust: bool) -> None:
    """Fetch the bundles under URL, s3://bucket/path or a folder, that the store does not have.

    Each appears in the store whole, and only if its hashes hold, its variants agree with its golden examples and,
    with ROLLOUT_PUBLIC_KEY, it is signed. Of one that nobody signed, only ONNX is run. What does not pass is left
    out, and the exit code is 3; it is 1 if some could not be fetched and may come the next time.
    """
    # Python leaves SIGTERM to the system, which does not give it to the first process of a container.
    end_if_asked = end_on_sigterm(0 if every else 128 + signal.SIGTERM)
    from rollout.bundle.exchange import Pull  # noqa: PLC0415  the store imports BentoML

    settings = load_settings(trust=trust or None)
    work = Pull(url, settings.public_key, is_trusted=settings.trust)
    if every is None:
        _pull_once(work, url)
    else:
        _follow(work, url, every, end_if_asked)


def _pull_once(work: Pull, url: str) -> None:
    from rollout.bundle.store import bundle_names  # noqa: PLC0415

    found = work.look()
    for line in work.take(found):
        say(line)
    if not found and not bundle_names():
        raise ConfigError(_nothing(url))
    summary = _summary(work, url, len(found))
    if not work.is_settled:
        raise StorageError(f"{summary}, not all of them for good: try again")
    say(summary)
    if work.left_out:
        sys.exit(LEFT_OUT)


def _follow(work: Pull, url: str, every: float, end_if_asked: Callable[[], None]) -> None:
    """Looks again and again, and says only what is another than the last time."""
    said, is_away = "", False
    while True:
        try:
            found = work.look()
        except StorageError as error:
            if not is_away:
                say(f"{error.detail}; trying again every {every:g} s")
            is_away = True
        else:
            if is_away:
                say(f"{url} answers again")
            is_away = False
            for line in work.take(found):
                say(line)
            summary = _summary(work, url, len(found))
            if summary != said:
                say(f"{summary}; looking every {every:g} s")
            said = summary
        end_if_asked()
        time.sleep(every)


def _summary(work: Pull, url: str, found: int) -> str:
    if not found:
        return _nothing(url)
    left_out = f", {len(work.left_out)} left out" if work.left_out else ""
    return f"{found - len(work.left_out)} of {found} bundles under {url} are here{left_out}"


def _nothing(url: str) -> str:
    return f"there is no bundle under {url}: `rollout push NAME:VERSION {url}` puts one there"
