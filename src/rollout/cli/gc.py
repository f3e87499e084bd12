"""``rollout gc``: remove the versions that nobody names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import groupby

import click
import msgspec

from rollout.cli.examples import examples
from rollout.cli.output import Text, as_size, make_console, make_table, print_json, say
from rollout.cli.shared import ask, call, json_option
from rollout.config import load_settings
from rollout.embedded import running_redis
from rollout.errors import BundleError
from rollout.routing.named import ModelState, named, read_states

CHANGES = 10


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that was looked at.

    Attributes:
        tag: Its name and version.
        bytes: What it takes on disk.
        stays: Why it stays; empty where it goes.
    """

    tag: str
    bytes: int
    stays: str


@click.command(epilog=examples("rollout gc", "rollout gc --keep 30 --yes"))
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=CHANGES,
    show_default=True,
    help="Keep what the last N changes of each split named.",
    metavar="N",
)
@click.option("--signed", is_flag=True, help="Remove signed bundles as well.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def gc(keep: int, *, signed: bool, yes: bool, as_json: bool) -> None:
    """Remove the versions that nobody names from the store of this machine.

    What stays: all that the split has, that one of its last N changes named, that a worker has in memory, that
    `rollout improve` is at work on, and what these come from; versions that were packed after the champion, and
    may go on trial; signed bundles; and all of a model that never had a split, or of which Redis
    has something that cannot be read.
    """
    from rollout.bundle.store import remove_bundle  # noqa: PLC0415  the store imports BentoML

    with running_redis(load_settings()) as url:
        looked = look(url, keep, signed=signed)
        going = [one for one in looked if not one.stays]
        if not as_json:
            _show(looked)
        if going and not yes:
            ask(may_ask=sys.stdin.isatty() and not as_json)
        # While somebody was asked, a split may have come to name one.
        now = look(url, keep, signed=signed) if going else looked
        shown = {one.tag for one in going}
        removed = [one for one in now if not one.stays and one.tag in shown]
        for one in removed:
            remove_bundle(one.tag)
    if as_json:
        print_json({"removed": removed, "kept": [one for one in now if one.stays]})
    elif removed:
        say(f"{len(removed)} removed, {as_size(sum(one.bytes for one in removed))} freed")


def look(url: str, keep: int, *, signed: bool) -> list[Looked]:
    """Looks at every bundle of the store: does it stay?

    Args:
        url: Redis, which knows what is named.
        keep: How many of the last changes of a split count.
        signed: Whether signed bundles go, too.

    Raises:
        StoreUnavailableError: If Redis does not answer: then nobody knows what is named.
    """
    from rollout.bundle.store import bundle_bytes, bundle_tags  # noqa: PLC0415  the store imports BentoML

    tags = bundle_tags()  # before Redis is asked: what comes later is not looked at
    states = call(read_states, url)
    looked = []
    for model, own in groupby(tags, lambda tag: tag.partition(":")[0]):
        reasons = _reasons(model, [tag.partition(":")[2] for tag in own], states.get(model), keep, signed=signed)
        for version, why in reasons.items():
            tag = f"{model}:{version}"
            looked.append(Looked(tag=tag, bytes=bundle_bytes(tag), stays=why))
    return looked


def _reasons(
    model: str, versions: Sequence[str], state: ModelState | None, keep: int, *, signed: bool
) -> dict[str, str]:
    """Says why each version of a model stays; of one that goes, nothing."""
    from rollout.bundle.manifest import read_manifest  # noqa: PLC0415  it imports NumPy
    from rollout.bundle.store import bundle_path, changed_lately, is_signed  # noqa: PLC0415

    if state is not None and state.trouble:
        return dict.fromkeys(versions, f"nobody knows what is named: {state.trouble}")
    if state is None or state.split is None:
        return dict.fromkeys(versions, "its model never had a split in this Redis")
    manifests, reasons = {}, {}
    for version in versions:
        try:
            manifests[version] = read_manifest(bundle_path(f"{model}:{version}"))
        except BundleError as error:
            reasons[version] = f"it cannot be judged: {error.detail}"
    reasons |= named(state, manifests, keep)
    champion = manifests.get(state.split.champion)

    def unnamed(version: str) -> str:
        tag = f"{model}:{version}"
        if champion is None:
            return "the champion is not here, so nobody knows whether this was packed after it"
        if manifests[version].created_at > champion.created_at:
            return "it was packed after the champion, and may go on trial"
        if is_signed(tag) and not signed:
            return "it is signed; --signed removes such, too"
        return "it was written to moments ago" if changed_lately(tag) else ""

    return {version: reasons.get(version) or unnamed(version) for version in versions}


def _show(looked: Sequence[Looked]) -> None:
    """Prints on stderr what goes, and why the others stay."""
    console = make_console(stderr=True)
    if looked:
        table = make_table("")
        table.add_column("bundle", no_wrap=True)
        table.add_column("size", justify="right", no_wrap=True)
        table.add_column("")
        for one in looked:
            table.add_row(one.tag, as_size(one.bytes), Text(one.stays) if one.stays else Text("goes", "red"))
        console.print(table)
    if all(one.stays for one in looked):
        say("There is nothing to remove.", err=True)
