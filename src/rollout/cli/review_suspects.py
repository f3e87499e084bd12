"""``rollout review suspects``: labels that look wrong, and into the queue with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rollout.cli.completion import tag_argument
from rollout.cli.output import Text, make_console, make_progress, make_table, print_json, say
from rollout.cli.shared import call_for, json_option
from rollout.config import load_settings

if TYPE_CHECKING:
    from rollout.bundle.fields import Field
    from rollout.review.suspects import Doubted, Queued
    from rollout.training.suspects import Looked, Suspect

MOST = 1000


@click.command()
@tag_argument
@click.option("--train", is_flag=True, help="Look at the training part: the version is trained once a fold.")
@click.option("--folds", type=click.IntRange(2, 50), default=5, show_default=True, help="Of the training part.")
@click.option("--top", type=click.IntRange(1, MOST), default=50, show_default=True, help="How many, at most.")
@click.option("--queue", is_flag=True, help="Put them into the review queue, as suspect_label.")
@click.option(
    "--labels",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Reviewed labels to look at as well, JSON lines as exported; may be given several times.",
)
@click.option("--models", type=click.Path(path_type=Path), default=Path("models"), help="Folder of the recipes.")
@json_option
def suspects(
    tag: str,
    folds: int,
    top: int,
    labels: tuple[Path, ...],
    models: Path,
    *,
    train: bool,
    queue: bool,
    as_json: bool,
) -> None:
    """Find labels that look wrong to TAG, such as digits:v2.

    Without --train, those of the calibration and the evaluation part, which TAG did not learn from. What people
    decide on queued ones comes back with `rollout review export`; a version that learns from reviewed labels
    then has their label in the place of the one that looked wrong.
    """
    from rollout.bundle.store import open_bundle  # noqa: PLC0415  the store imports BentoML
    from rollout.training.labels import name_exports  # noqa: PLC0415
    from rollout.training.recipe import load_recipe  # noqa: PLC0415
    from rollout.training.suspects import held_out_suspects, training_suspects  # noqa: PLC0415

    exports = name_exports(labels)
    model, _, version = tag.partition(":")
    recipe = load_recipe(models / model)
    if train:
        with make_progress(make_console(), transient=True) as progress:
            task = progress.add_task("training", total=folds)
            looked = [
                training_suspects(
                    recipe,
                    version,
                    exports,
                    folds,
                    lambda step: progress.update(task, advance=1, description=step),
                )
            ]
    else:
        looked = held_out_suspects(*open_bundle(tag), recipe, exports)
    ranked = sorted((one for part in looked for one in part.suspects), key=lambda one: one.quality)
    chosen = ranked[:top]
    queued = _queue(model, version, looked, chosen, recipe.inputs) if queue else None
    if as_json:
        rows = {part.answered.name: len(part.answered.rows.targets) for part in looked}
        print_json({"rows": rows, "found": len(ranked), "suspects": chosen, "queued": queued})
        return
    _show(tag, looked, ranked, chosen)
    if queued is not None:
        said = (
            f"{queued.queued:,} queued, {queued.already_there:,} there already, {queued.kept_out:,} without room"
        )
        reviewed = sum(one.part == "reviewed" for one in chosen)
        say(said + (f"; {reviewed:,} are reviewed rows, which are not queued again" if reviewed else ""))
    elif chosen:
        say("--queue puts them into the review queue")


def _queue(
    model: str, version: str, looked: list[Looked], chosen: list[Suspect], inputs: Mapping[str, Field]
) -> Queued:
    from rollout.review.queue import Budget  # noqa: PLC0415
    from rollout.review.suspects import Doubted, queue_suspects  # noqa: PLC0415
    from rollout.training.suspects import REVIEWED, as_sent  # noqa: PLC0415

    settings = load_settings()
    rows: list[Doubted] = []
    for part in looked:
        for one in chosen:
            if one.part == part.answered.name != REVIEWED:
                numbers = part.head.numbers(part.answered.scores[one.row : one.row + 1])
                answer = part.head.answer(numbers[0].tolist())._asdict()
                rows.append(Doubted(part=one.part, key=one.key, inputs=as_sent(part, one, inputs), answer=answer))
    return call_for(
        model,
        lambda redis: queue_suspects(
            redis,
            model,
            version,
            looked[0].variant,
            looked[0].head,
            rows,
            fields=inputs,
            limit=settings.max_reviews,
            budget=Budget(settings.max_review_bytes, settings.max_client_review_bytes),
            secret=settings.hash_secret(),
        ),
    )


def _show(tag: str, looked: list[Looked], ranked: list[Suspect], chosen: list[Suspect]) -> None:
    rows = ", ".join(f"{len(part.answered.rows.targets):,} of {part.answered.name}" for part in looked)
    say(f"{len(ranked):,} labels look wrong to {tag}, of {rows}")
    if not chosen:
        return
    table = make_table(f"The {len(chosen):,} that look most wrong")
    for column in ("part", "row", "label", "the model says", "label quality"):
        table.add_column(
            column, justify="right" if column in ("row", "label quality") else "left", overflow="fold"
        )
    for one in chosen:
        label = f"{one.label} (look at {one.head})" if one.head else one.label
        table.add_row(one.part, str(one.row), *map(Text, (label, one.answer)), f"{one.quality:.4f}")
    make_console().print(table)
