"""``rollout split``: see and change which version serves whom."""

from __future__ import annotations

import asyncio
import getpass

import click
import msgspec

from rollout.config import load_settings
from rollout.embedded import running_redis
from rollout.errors import ConfigError
from rollout.routing.split import Split
from rollout.routing.splits import read_split, write_split
from rollout.store import connect


@click.group()
def split() -> None:
    """See and change which version serves whom."""


@split.command()
@click.argument("model")
def show(model: str) -> None:
    """Print the split of MODEL as JSON."""
    with running_redis(load_settings()) as url:
        found = asyncio.run(_read(url, model))
    if found is None:
        raise ConfigError(f"{model} has no split; `rollout split set {model} --champion VERSION` makes one")
    click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())


@split.command("set")
@click.argument("model")
@click.option("--champion", required=True, help="The version that serves by default.")
@click.option("--challenger", help="The version on trial.")
@click.option("--share", type=float, default=0.0, show_default=True, help="Challenger's share, 0 to 0.5.")
@click.option("--experiment", help="Hash seed of the trial; MODEL-CHAMPION-CHALLENGER by default.")
@click.option("--why", default="", help="What for; the history keeps it.")
def set_(
    model: str, champion: str, challenger: str | None, share: float, experiment: str | None, why: str
) -> None:
    """Replace the split of MODEL. Running workers follow within two seconds."""
    wanted = make_split(model, champion, challenger, share, experiment, why)
    with running_redis(load_settings()) as url:
        stored = asyncio.run(put_split(url, model, wanted))
    click.echo(f"{model} is at revision {stored.revision}")


def make_split(
    model: str, champion: str, challenger: str | None, share: float, experiment: str | None, why: str
) -> Split:
    """Makes a split of versions that exist, are whole, and can stand in for each other.

    Raises:
        BundleError: If they do not.
        ConfigError: If the parts do not make a split.
    """
    from rollout.bundle.manifest import require_interchangeable  # noqa: PLC0415
    from rollout.bundle.store import open_bundle  # noqa: PLC0415  the store imports BentoML

    if challenger is not None and experiment is None:
        experiment = f"{model}-{champion}-{challenger}"
    wanted = Split(
        champion=champion,
        challenger=challenger,
        share=share,
        experiment=experiment or "",
        by=getpass.getuser(),
        why=why,
    )
    champion_manifest, *others = (open_bundle(f"{model}:{version}")[1] for version in wanted.versions)
    for other in others:
        require_interchangeable(champion_manifest, other)
        if other.gate is None:
            click.echo(
                f"{other.tag} goes on trial without a gate: `rollout gate {other.tag} --against {champion}` "
                "compares it over several seeds",
                err=True,
            )
    return wanted


async def put_split(url: str, model: str, wanted: Split, *, replace: bool = True) -> Split:
    """Stores a split after the one that is there; without ``replace``, keeps the one that is there."""
    redis = await connect(url)
    try:
        current = await read_split(redis, model)
        if current is not None and not replace:
            return current
        revision = 0 if current is None else current.revision
        return await write_split(redis, model, msgspec.structs.replace(wanted, revision=revision))
    finally:
        await redis.aclose()


async def _read(url: str, model: str) -> Split | None:
    redis = await connect(url)
    try:
        return await read_split(redis, model)
    finally:
        await redis.aclose()
