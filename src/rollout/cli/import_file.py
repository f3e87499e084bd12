"""``rollout import``: pack a model that comes as a file."""

from __future__ import annotations

from pathlib import Path

import click

from rollout.cli.build import Steps, show_packed
from rollout.cli.output import make_console, working
from rollout.errors import ConfigError
from rollout.heads import Classification, Head, Regression


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The model.")
@click.option("--version", required=True, help="This version of it.")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Rows that the model was not trained on, with their targets: .npz, .csv or .parquet.",
)
@click.option("--target", default="target", show_default=True, help="The column or array of the targets.")
@click.option("--labels", help="The labels of a classifier, in the order of its outputs: a,b,c.")
@click.option("--regression", is_flag=True, help="It answers with a number.")
@click.option("--risk", type=float, default=0.02, show_default=True, help="Largest error wanted without review.")
@click.option("--coverage", type=float, default=0.9, show_default=True, help="Share of targets inside intervals.")
@click.option("--flip-rate", type=float, default=0.002, show_default=True, help="Share of rows that may differ.")
@click.option("--trust-pickle", is_flag=True, help="Read a pickle, which runs whatever code is in it.")
def import_file(
    file: Path,
    name: str,
    version: str,
    data: Path,
    target: str,
    labels: str | None,
    regression: bool,  # noqa: FBT001  a flag
    risk: float,
    coverage: float,
    flip_rate: float,
    trust_pickle: bool,  # noqa: FBT001
) -> None:
    """Pack the model in FILE: ONNX, TorchScript, torch.export, XGBoost, LightGBM, scikit-learn.

    Its suffix says what it is: .onnx; .pt; .pt2; .json or .ubj; .txt; .joblib or .pkl. Take files that you made
    or whose maker you trust: reading TorchScript, a package of torch.export or a pickle can run code that is in
    it. A pickle is read with --trust-pickle only.

    The columns of a .csv or .parquet become its inputs, and so do the arrays of an .npz; every other row
    calibrates, the rest evaluates. Where that is not right, write a recipe whose train returns the file's path.
    """
    from rollout.bundle.pack import pack  # noqa: PLC0415  it imports torch
    from rollout.training.importing import SPLIT, derive  # noqa: PLC0415

    if (labels is None) == (not regression):
        raise ConfigError("say what it answers: --labels a,b,c for a classifier, or --regression")
    task: Head = (
        Regression(coverage=coverage)
        if labels is None
        else Classification(labels=[label.strip() for label in labels.split(",")], risk=risk)
    )
    console, tag = make_console(), f"{name}:{version}"
    with working(console, tag) as say_now:
        steps = Steps(console, tag, say_now)
        derived = derive(file, data, task, target=target, trust_pickle=trust_pickle)
        for field, kind in derived.inputs.items():
            console.print(f"  {field}: {kind.expected}", soft_wrap=True)
        rows = len(derived.calibration.targets), len(derived.evaluation.targets)
        console.print(f"  {rows[0]:,} rows calibrate and {rows[1]:,} evaluate: {SPLIT}", soft_wrap=True)
        manifest = pack(
            artefact=file,
            trust_pickle=trust_pickle,
            name=name,
            version=version,
            inputs=derived.inputs,
            task=task,
            calibration=derived.calibration,
            evaluation=derived.evaluation,
            lineage=derived.lineage,
            flip_rate=flip_rate,
            on_step=steps,
            on_progress=steps.packing,
        )
    console.print(f"{tag} is compared and packed")
    show_packed(console, manifest)
