"""``rollout improve``: from reviewed labels to the next version on trial."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rollout.bundle.machine import user_name
from rollout.cli.completion import model_argument
from rollout.cli.examples import examples
from rollout.cli.output import print_json, say
from rollout.cli.shared import call, json_option
from rollout.cli.split import POLICY, share
from rollout.cli.termination import end_on_sigterm
from rollout.config import load_settings
from rollout.embedded import running_redis
from rollout.errors import StorageError, StoreUnavailableError
from rollout.judge.policy import Policy
from rollout.keys import Keys
from rollout.lease import Lease
from rollout.routing.improvement import Attempt, read_improvement

if TYPE_CHECKING:
    from rollout.improvement.steps import Settings

STOPPED, LATER = os.EX_SOFTWARE, os.EX_TEMPFAIL
# Who was killed holds the lock for so long; who lives renews it several times meanwhile.
LEASE_S = 10.0
RENEW_S = 2.0


class _BusyError(Exception):
    """Another run makes the next version."""


@click.command(epilog=examples("rollout improve digits --least 200", "rollout improve digits --show"))
@model_argument
@click.option(
    "--least", type=click.IntRange(min=1), default=100, show_default=True, help="Fewest labels that are new."
)
@click.option("--again", is_flag=True, help="Begin whatever is new, also after a version was refused.")
@click.option("--recipe", "of", help="The version of the recipe to train; the champion's by default.")
@click.option(
    "--seeds", type=click.IntRange(min=6), default=8, show_default=True, help="Most seeds that the gate trains."
)
@click.option("--margin", type=float, help="The gate's: largest loss that counts as not worse.")
@click.option("--shadow", type=share, help="Begin in shadow, scoring so much of the requests unseen.")
@click.option("--policy", type=POLICY, help="JSON file: what decides the trial; as the last one by default.")
@click.option("--bundles", help="Where replicas fetch bundles from: s3://bucket/path or a folder.")
@click.option("--sign", type=click.Path(path_type=Path), help="Private key to sign the bundle with.")
@click.option("--models", type=click.Path(path_type=Path), default=Path("models"), help="Folder of the recipes.")
@click.option(
    "--watch",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Go on, and look again after so many seconds.",
)
@click.option("--show", is_flag=True, help="Show what became of the last attempt, and do nothing.")
@json_option
def improve(
    model: str,
    least: int,
    of: str | None,
    seeds: int,
    margin: float | None,
    shadow: float | None,
    policy: Policy | None,
    bundles: str | None,
    sign: Path | None,
    models: Path,
    watch: float | None,
    *,
    again: bool,
    show: bool,
    as_json: bool,
) -> None:
    """Make the next version of MODEL from the labels since the last one, and put it on trial if the gate lets it.

    Exports the labels, checks them, trains and packs the champion's version again on them, compares it with the
    champion over several seeds, and puts it on trial. Every step is done once: after a kill the next run goes on.
    With too few labels, or while a trial is running, nothing happens.

    Exit code 70 says that a version was refused or could not be made, and leaves a report; 75 that something was
    away, or that another run is at it.
    """
    end_if_asked = end_on_sigterm(128 + signal.SIGTERM)
    if show:
        _show(model, as_json=as_json)
        return
    from rollout.improvement.steps import Settings  # noqa: PLC0415  imports torch
    from rollout.improvement.trial import Wanted  # noqa: PLC0415

    own = load_settings()
    settings = Settings(
        model=model,
        models=models,
        home=own.home,
        least=least,
        again=again,
        of=of,
        seeds=seeds,
        margin=margin,
        bundles=bundles,
        sign=sign,
        public_key=own.public_key,
        wanted=Wanted(policy, shadow),
        by=user_name(),
    )
    said = ""
    with running_redis(own) as url:
        while True:
            code, words = _once(url, settings, as_json=as_json, quiet=said)
            if watch is None:
                sys.exit(code)
            settings, said = settings._replace(again=False), words
            end_if_asked()
            time.sleep(watch)


def _once(url: str, settings: Settings, *, as_json: bool, quiet: str = "") -> tuple[int, str]:
    """Runs once, and returns the exit code and what it ended with; what is in ``quiet`` was said before."""
    from rollout.improvement.report import describe, write_report  # noqa: PLC0415
    from rollout.improvement.steps import Improving, NothingToDoError, TakenOverError  # noqa: PLC0415

    def tell(line: str) -> None:
        say(line, err=as_json)

    attempt: Attempt | None = None
    try:
        with _alone(url, settings.model) as owner:
            attempt = Improving(settings, lambda work: call(work, url), owner, tell).run()
    except NothingToDoError as nothing:
        code, words = 0, str(nothing)
    except _BusyError:
        code, words = LATER, f"another run makes the next version of {settings.model}: nothing is done here"
    except TakenOverError:
        code, words = LATER, f"another run of `rollout improve {settings.model}` has taken over: this one ends"
    except (StoreUnavailableError, StorageError) as error:
        code, words = LATER, f"{error.detail}; the next run goes on"
    else:
        code = 0 if attempt.outcome == "on trial" else STOPPED
        file = write_report(settings.home, settings.model, attempt)
        words = "\n".join([*describe(settings.model, attempt), f"  report   {file}"])
    if as_json:
        print_json(
            {"outcome": "nothing" if attempt is None else attempt.outcome, "why": words, "attempt": attempt}
        )
    elif words != quiet:
        say(*words.split("\n"), err=code != 0)
    return code, words


def _show(model: str, *, as_json: bool) -> None:
    found = call(lambda redis: read_improvement(redis, model))
    if as_json:
        print_json(found)
        return
    from rollout.improvement.report import describe  # noqa: PLC0415

    if not found.attempts:
        say(f"no version of {model} was made from labels yet")
    for attempt in found.attempts[-1:]:
        say(*describe(model, attempt))


@contextmanager
def _alone(url: str, model: str) -> Iterator[str]:
    """Holds the lock of a model, and yields who does.

    Raises:
        _BusyError: If somebody else holds it and lives.
    """
    ending, held = threading.Event(), threading.Event()
    owner: list[str] = []

    async def keep() -> None:
        from rollout.store import connect  # noqa: PLC0415

        redis = await connect(url)
        lease = Lease(redis, Keys(model).improvement_lock, LEASE_S)
        owner.append(lease.owner)
        patience = time.monotonic() + LEASE_S + RENEW_S
        try:
            while not ending.is_set():
                with suppress(StoreUnavailableError):
                    if await lease.hold():
                        held.set()
                    elif held.is_set() or time.monotonic() > patience:
                        return
                await asyncio.to_thread(ending.wait, RENEW_S if held.is_set() else RENEW_S / 4)
            if held.is_set():
                with suppress(StoreUnavailableError):
                    await lease.release()
        finally:
            await redis.aclose()

    keeper = threading.Thread(target=_quietly(keep), daemon=True)
    keeper.start()
    try:
        while not held.wait(0.05):
            if not keeper.is_alive() and not held.is_set():
                raise _BusyError
        yield owner[0]
    finally:
        ending.set()
        keeper.join()


def _quietly(work: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        with suppress(StoreUnavailableError):
            asyncio.run(work())  # type: ignore[arg-type]

    return run
