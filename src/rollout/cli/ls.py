"""``rollout ls``: which models and versions there are, and which of them serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import click
import msgspec

from rollout.cli.completion import complete_models
from rollout.cli.examples import examples
from rollout.cli.output import NOTHING, as_size, make_console, make_table, print_json, say
from rollout.cli.shared import call, json_option
from rollout.errors import BundleError, MissingBundleError, RolloutError
from rollout.routing.named import ModelState, read_states

UNKNOWN = ModelState()


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A version as it is listed.

    Attributes:
        model: The model.
        version: Its version.
        bytes: What it takes on disk.
        packed_at: When it was packed, ISO 8601 in UTC.
        variants: The variants that passed.
        signed: Whether it has a signature.
        serves: What the split has it for: champion, challenger or previous.
        workers: How many workers have it in memory.
        quarantined: Whether it was rolled back.
        trouble: What is wrong with the bundle; empty if nothing is.
    """

    model: str
    version: str
    bytes: int = 0
    packed_at: str = ""
    variants: tuple[str, ...] = ()
    signed: bool = False
    serves: str = ""
    workers: int = 0
    quarantined: bool = False
    trouble: str = ""


class Known(NamedTuple):
    """What Redis says about the models, and why it says nothing."""

    states: Mapping[str, ModelState]
    trouble: str


@click.command(epilog=examples("rollout ls", "rollout ls digits --json"))
@click.argument("model", required=False, shell_complete=complete_models)
@json_option
def ls(model: str | None, *, as_json: bool) -> None:
    """List the versions of MODEL, or of all models: their bundles here, and what the split has them for."""
    known = ask_redis()
    versions = list_versions(known.states)
    if model is not None:
        versions = [one for one in versions if one.model == model]
        if not versions:
            raise MissingBundleError(f"there is no version of {model}; `rollout ls` lists what there is")
    if as_json:
        print_json({"versions": versions, "redis": known.trouble or "ok"})
        return
    if known.trouble:
        say(f"What serves is not known: {known.trouble}", err=True)
    if not versions:
        say("There are no bundles here. `rollout build FOLDER` makes some; `rollout pull URL` fetches some.")
        return
    show(versions)


def ask_redis() -> Known:
    """Returns what Redis knows; where it is away, why it is not known."""
    try:
        states = call(read_states)
    except RolloutError as error:
        return Known({}, error.detail)
    return Known(states, "; ".join(state.trouble for state in states.values() if state.trouble))


def list_versions(states: Mapping[str, ModelState]) -> list[Listed]:
    """Returns all versions that lie in the store or that a split names."""
    from rollout.bundle.store import bundle_tags  # noqa: PLC0415  the store imports BentoML

    tags = [tag.split(":") for tag in bundle_tags()]
    named = [[model, version] for model, state in states.items() for version in state.roles()]
    every = sorted({(model, version) for model, version in tags + named})
    return [_listed(model, version, states.get(model, UNKNOWN)) for model, version in every]


def show(versions: list[Listed]) -> None:
    """Prints versions as a table, and under it what is wrong with any."""
    table = make_table("")
    for column in ("model", "version", "size", "packed", "variants", "signed", "serves"):
        table.add_column(column, justify="right" if column == "size" else "left")
    for one in versions:
        workers = f"{one.workers} worker{'s' * (one.workers > 1)}" if one.workers else ""
        table.add_row(
            one.model,
            one.version,
            as_size(one.bytes) if one.bytes else NOTHING,
            one.packed_at[:10] or NOTHING,
            " ".join(one.variants) or NOTHING,
            "yes" if one.signed else "no",
            ", ".join(filter(None, (one.serves, workers, "quarantined" * one.quarantined))) or NOTHING,
        )
    make_console().print(table)
    for one in versions:
        if one.trouble:
            say(f"{one.model}:{one.version}: {one.trouble}")


def _listed(model: str, version: str, state: ModelState) -> Listed:
    from rollout.bundle.manifest import digest, read_manifest  # noqa: PLC0415  they import NumPy
    from rollout.bundle.store import bundle_bytes, bundle_path, is_signed  # noqa: PLC0415

    tag = f"{model}:{version}"
    listed = Listed(
        model=model, version=version, serves=state.roles().get(version, ""), workers=state.loaded(version)
    )
    try:
        manifest = read_manifest(bundle_path(tag))
    except MissingBundleError:
        return msgspec.structs.replace(listed, trouble="missing: the split names it, and there is no bundle here")
    except BundleError as error:
        return msgspec.structs.replace(listed, bytes=bundle_bytes(tag), trouble=error.detail)
    return msgspec.structs.replace(
        listed,
        bytes=bundle_bytes(tag),
        packed_at=manifest.created_at,
        variants=tuple(manifest.variants),
        signed=is_signed(tag),
        quarantined=digest(manifest) in state.quarantine,
    )
