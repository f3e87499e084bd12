"""``rollout completion``: what the shell completes, and the script that has it do so."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from rollout.cli.output import say
from rollout.config import load_settings
from rollout.errors import ConfigError

VARIABLE = "_ROLLOUT_COMPLETE"  # as click derives it from the name of the program
SHELLS = ("bash", "zsh", "fish")
WHERE = """\b
Where it goes:
  echo 'eval "$(rollout completion bash)"' >> ~/.bashrc
  echo 'eval "$(rollout completion zsh)"' >> ~/.zshrc
  rollout completion fish > ~/.config/fish/completions/rollout.fish
"""


def complete_models(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """Returns the models of the store that begin so."""
    return sorted({tag.partition(":")[0] for tag in _tags_here() if tag.startswith(begun)})


def complete_tags(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """Returns the bundles of the store that begin so."""
    return [tag for tag in _tags_here() if tag.startswith(begun)]


model_argument = click.argument("model", shell_complete=complete_models)
tag_argument = click.argument("tag", shell_complete=complete_tags)


@click.command(epilog=WHERE)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that has SHELL complete commands, options, models and versions."""
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  it is one of those that click has
    root = click.get_current_context().find_root().command
    say(*kind(root, {}, "rollout", VARIABLE).source().splitlines())
    if shell == "bash":
        say("COMP_WORDBREAKS=${COMP_WORDBREAKS//:}  # a version is one word: digits:v2")


def _tags_here() -> list[str]:
    """Returns what the store has by the names of folders alone: BentoML takes long to import."""
    try:
        home = os.environ.get("BENTOML_HOME") or load_settings().home / "bentoml"
    except ConfigError:
        return []
    folders = (file.parent for file in Path(home, "models").glob("*/*/manifest.json"))
    return sorted(f"{folder.parent.name}:{folder.name}" for folder in folders)
