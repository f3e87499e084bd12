"""``rollout explain``: what the parts of one input do to an answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from rollout.cli.completion import tag_argument
from rollout.cli.output import Table, Text, make_console, make_table, print_json
from rollout.cli.shared import call_for, json_option, trust_option
from rollout.cli.termination import end_on_ctrl_c
from rollout.config import load_settings
from rollout.errors import NO_JSON, BundleError, ConfigError
from rollout.explain.explanation import MOST_SEED, Explanation, Question, require_extra

if TYPE_CHECKING:
    from rollout.bundle.schema import Arrays, InputSchema, SentInputs
    from rollout.review.item import ReviewItem
    from rollout.store import Redis

SHOWN = 20
MOST_BYTES = 256 * 1024 * 1024


@click.command()
@tag_argument
@click.argument("inputs", required=False)
@click.option("--item", help="Explain the review item of this ID, in the place of INPUTS.")
@click.option("--label", default="", help="Explain the number of this label; by default, of the one decided.")
@click.option("--head", default="", help="Explain this head, of several.")
@click.option("--variant", help="Ask this variant; by default, the first that may serve.")
@click.option(
    "--seed",
    type=click.IntRange(0, MOST_SEED),
    default=0,
    show_default=True,
    help="Of the orders of Shapley values.",
)
@click.option("--picture", type=click.Path(path_type=Path), help="Draw it there, as a PNG.")
@trust_option
@json_option
def explain(
    tag: str,
    inputs: str | None,
    item: str | None,
    label: str,
    head: str,
    variant: str | None,
    seed: int,
    picture: Path | None,
    *,
    trust: bool,
    as_json: bool,
) -> None:
    """Explain what the bundle TAG, such as digits:v2, answers to one row.

    INPUTS is a file, such as an image for a model that takes one, or JSON, in a file or as it is: the inputs by
    name, or a whole instance. Parts of images are covered, words left out, and features get Shapley values. With
    --item, TAG may leave the version out: it is the one that answered.
    """
    from rollout.bundle.schema import InputSchema  # noqa: PLC0415
    from rollout.bundle.store import open_bundle  # noqa: PLC0415  the store imports BentoML
    from rollout.bundle.verify import servable  # noqa: PLC0415

    require_extra()
    if (inputs is None) == (item is None):
        raise ConfigError("say what to explain: INPUTS, a file or JSON, or --item with the ID of a review item")
    settings = load_settings(trust=trust or None)
    sent: SentInputs | None = None
    if item is not None:
        tag, sent = _of_item(tag, item)
    folder, manifest = open_bundle(tag, settings.public_key)
    schema = InputSchema(manifest.inputs)
    row = _decode(schema, _read(inputs, schema) if sent is None else sent)

    from rollout.explain.explainer import explain as explain_row  # noqa: PLC0415  Captum takes seconds to import

    end_on_ctrl_c()
    explanation = explain_row(
        folder,
        manifest,
        variant or servable(manifest, settings.variants())[0],
        row,
        Question(label=label, head=head, seed=seed),
        is_trusted=settings.trusts_bundles,
    )
    if picture is not None:
        from rollout.explain.picture import draw  # noqa: PLC0415

        try:
            picture.write_bytes(draw(explanation, manifest.inputs, row))
        except OSError as error:
            raise ConfigError(f"cannot write {picture}: {error.strerror}") from None
    if as_json:
        print_json(explanation)
    else:
        _show(explanation)


def _of_item(tag: str, item_id: str) -> tuple[str, SentInputs]:
    """Returns the bundle that answered a review item, or the one that is named, and the item's inputs."""
    from rollout.bundle.machine import user_name  # noqa: PLC0415
    from rollout.cli.review_export import ROLE  # noqa: PLC0415
    from rollout.review.access_log import record_access  # noqa: PLC0415
    from rollout.review.queue import read_one  # noqa: PLC0415

    name, _, version = tag.partition(":")

    async def read(redis: Redis) -> ReviewItem | None:
        found = await read_one(redis, name, item_id)
        await record_access(redis, name, user_name(), ROLE, "explain", [] if found is None else [found[0].id])
        return None if found is None else found[0]

    item = call_for(name, read)
    if item is None:
        raise ConfigError(f"{name} has no review item {item_id!r}; its client may have been forgotten")
    if not item.has_inputs:
        raise ConfigError(f"the inputs of {item_id} are not kept any more: there is nothing to explain")
    return f"{name}:{version or item.version}", item.sent


def _read(said: str | None, schema: InputSchema) -> SentInputs:
    """Reads the inputs from a file or from JSON."""
    text = (said or "").encode()
    if not text.lstrip().startswith(b"{"):
        try:
            with Path(said or "").open("rb") as file:
                text = file.read(MOST_BYTES)
        except OSError as error:
            raise ConfigError(f"cannot read {said}: {error.strerror}") from None
        if schema.file_field is not None and not text.lstrip().startswith(b"{"):
            return {schema.file_field: text}
    try:
        found: dict[str, Any] = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        if "inputs" in found and "inputs" not in schema.fields:
            found = msgspec.json.decode(found["inputs"], type=dict[str, msgspec.Raw])
    except NO_JSON as error:
        raise ConfigError(f"the inputs are not JSON: {error}; write the inputs by name, in an object") from None
    return found


def _decode(schema: InputSchema, sent: SentInputs) -> Arrays:
    from rollout.bundle.schema import InvalidInputsError  # noqa: PLC0415

    try:
        return schema.decode_row(sent)
    except InvalidInputsError as error:
        raise BundleError(f"the inputs do not fit: {error}") from None


def _show(explanation: Explanation) -> None:
    console = make_console()
    console.print(
        Text(
            f"{explanation.model}:{explanation.version} ({explanation.variant}): {explanation.explained} is "
            f"{explanation.value:.6g}",
            style="bold",
        )
    )
    ordered = sorted(explanation.attributions, key=lambda one: -abs(one.attribution))
    table = make_table(f"the {min(SHOWN, len(ordered))} largest of {len(ordered)} attributions")
    for column in ("input", "part", "value"):
        table.add_column(column, overflow="fold")
    table.add_column("attribution", justify="right")
    for one in ordered[:SHOWN]:
        table.add_row(Text(one.field), Text(one.part), Text(one.value), Text(f"{one.attribution:+.4g}"))
    console.print(table)
    grid = Table.grid(padding=(0, 2))
    for each in explanation.passes:
        orders = "" if each.orders is None else f", {each.orders} orders of seed {explanation.seed}"
        rows = f", {each.background_rows} background rows" if each.background_rows else ""
        grid.add_row(
            Text(each.method, style="dim"),
            Text(
                f"{', '.join(each.fields)}: {each.base_value:.6g} without them, and attributions of "
                f"{each.sum:+.4g} in all; {each.evaluations:,} rows scored{orders}{rows}"
            ),
        )
    console.print(grid)
    console.print(Text(explanation.meaning, style="dim"))
