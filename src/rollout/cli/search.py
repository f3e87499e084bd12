"""``rollout search``: hyperparameters by trial, and the best of them as a version."""

from __future__ import annotations

from pathlib import Path

import click

from rollout.cli.build import Steps, labels_option
from rollout.cli.output import make_console, working
from rollout.config import load_settings
from rollout.errors import ConfigError


@click.command()
@click.argument("model")
@click.argument("version")
@click.option("--trials", type=click.IntRange(min=1), required=True, help="Finished trials of the whole study.")
@click.option("--name", help="What the best one is called as a version; VERSION-searched by default.")
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True, help="Trials at a time.")
@click.option("--storage", help="URL of Optuna's storage, to share it; a file under ROLLOUT_HOME by default.")
@click.option("--models", type=click.Path(path_type=Path), default=Path("models"), help="Folder of the recipes.")
@labels_option
def search(
    model: str,
    version: str,
    trials: int,
    name: str | None,
    processes: int,
    storage: str | None,
    models: Path,
    labels: tuple[Path, ...],
) -> None:
    """Search hyperparameters of VERSION of MODEL on its training part, and make the best ones a version.

    Interrupted, it goes on with the study that is there. Neither the calibration nor the evaluation part is seen.
    """
    try:
        from rollout.training import search as searching  # noqa: PLC0415  imports Optuna
    except ModuleNotFoundError as error:
        raise ConfigError(f"a search needs {error.name}: pip install 'rollout[train]'") from None
    from rollout.home import prepare_home  # noqa: PLC0415
    from rollout.training.labels import name_exports  # noqa: PLC0415
    from rollout.training.recipe import load_recipe  # noqa: PLC0415

    console, tag, winner = make_console(), f"{model}:{version}", name or f"{version}-searched"
    if storage is None:
        home = load_settings().home.resolve()
        prepare_home(home)
        (home / "search").mkdir(exist_ok=True)
        storage = f"sqlite:///{home / 'search' / f'{model}.db'}"
    folder = models / model
    with working(console, tag) as say_now:
        study = searching.search(
            folder,
            version,
            trials,
            storage,
            processes=processes,
            labels=name_exports(labels),
            on_step=Steps(console, tag, say_now),
        )
    found = searching.keep_winner(load_recipe(folder), version, study, folder, winner)
    settings = ", ".join(f"{setting}={value}" for setting, value in found.hyperparameters.items())
    console.print(
        f"{tag}: trial {found.trial} is the best of {found.trials}, with a validation loss of "
        f"{found.validation_loss:.5g}: {settings}",
        soft_wrap=True,
    )
    console.print(f"  `rollout build {folder} {winner}` packs it as {model}:{winner}", soft_wrap=True)
