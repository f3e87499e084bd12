"""What the shell completes, and the scripts that have it do so."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.commands import rollout


def completed(tmp_path: Path, words: str, **environment: str) -> list[str]:
    """Returns what is offered for the last word of a line, as bash asks for it."""
    asked = {
        "_ROLLOUT_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = rollout(environment=os.environ | {"ROLLOUT_HOME": str(tmp_path)} | asked | environment)
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_commands_options_models_and_versions_are_completed(bundles: str, tmp_path: Path) -> None:
    assert completed(tmp_path, "rollout ver") == ["verdict", "verify"]
    assert completed(tmp_path, "rollout gc --s") == ["--signed"]
    assert completed(tmp_path, "rollout split r") == ["ramp", "remove", "rollback"]
    models = completed(tmp_path, "rollout split show di")  # others pack theirs into this store
    assert "digits" in models
    assert all(one.startswith("di") for one in models)
    assert {"digits:v1", "digits:v2"} <= {*completed(tmp_path, "rollout verify digits:")}
    assert completed(tmp_path, "rollout diff digits:v1 digits:v2") == ["digits:v2"]


def test_settings_that_are_wrong_complete_nothing_and_say_nothing(tmp_path: Path) -> None:
    assert completed(tmp_path, "rollout verify d", BENTOML_HOME="", ROLLOUT_NONSENSE="1") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(shell: str) -> None:
    done = rollout("completion", shell)
    assert done.returncode == 0, done.stderr
    assert "_ROLLOUT_COMPLETE" in done.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)
