"""A Dockerfile, read: its stages, each with its steps and what it says about the process that it starts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from dockerfile_parse import DockerfileParser  # type: ignore[import-untyped]
from dockerfile_parse.util import extract_key_values  # type: ignore[import-untyped]

# What an image has in its environment before anything is said.
PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
FLAG = re.compile(r"\s*--(\w+)=(\S+)")


@dataclass(frozen=True)
class Step:
    """One instruction.

    Attributes:
        name: In capitals, such as ``COPY``.
        text: What follows its flags.
        flags: Such as ``("from", "build")``, in their order.
    """

    name: str
    text: str
    flags: tuple[tuple[str, str], ...] = ()

    def flag(self, name: str) -> str:
        """Returns the flag's value, or an empty text."""
        return dict(self.flags).get(name, "")


@dataclass
class Stage:
    """One stage; what it does not say itself, it has from the stage that it starts from.

    Attributes:
        name: After ``AS``.
        base: The stage or image that it starts from.
        steps: Its instructions after ``FROM``.
        parent: The stage that it starts from; none for one that starts from an image.
    """

    name: str
    base: str
    steps: list[Step] = field(default_factory=list)
    parent: Stage | None = None

    @property
    def lineage(self) -> list[Step]:
        """All steps that lead to it, those of its parents first."""
        return [*(self.parent.lineage if self.parent else ()), *self.steps]

    def last(self, name: str) -> str:
        """Returns what the last such instruction says, or an empty text."""
        return next((step.text for step in reversed(self.lineage) if step.name == name), "")

    def words(self, name: str) -> list[str]:
        """Returns the words of the last such instruction, which must be in exec form."""
        return [str(word) for word in json.loads(self.last(name))]

    @property
    def user(self) -> int:
        """Whom its processes belong to: root unless it says another."""
        return int(self.last("USER").partition(":")[0] or 0)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that its processes get."""
        variables = {"PATH": PATH}
        for step in self.lineage:
            if step.name == "ENV":
                pairs = extract_key_values(
                    env_replace=True, args={}, envs=dict(variables), instruction_value=step.text
                )
                variables.update(pairs)
        return variables

    @property
    def labels(self) -> dict[str, str]:
        """What it says about itself."""
        found: dict[str, str] = {}
        for step in self.lineage:
            if step.name == "LABEL":
                found.update(extract_key_values(env_replace=False, args={}, envs={}, instruction_value=step.text))
        return found

    @property
    def inputs(self) -> list[str]:
        """The stages and images that it needs: its base, and what it copies from."""
        return [self.base, *filter(None, (step.flag("from") for step in self.steps))]


def read_stages(path: Path) -> dict[str, Stage]:
    """Reads the stages of a Dockerfile by their names, in their order."""
    stages: dict[str, Stage] = {}
    stage = None
    for entry in DockerfileParser(str(path)).structure:
        name, text = entry["instruction"], entry["value"]
        if name == "FROM":
            base, _, alias = re.split(r"\s+(AS)\s+", text, flags=re.IGNORECASE)
            stage = stages[alias] = Stage(alias, base, parent=stages.get(base))
        elif name != "COMMENT":
            assert stage is not None, "an instruction before the first FROM"
            flags = []
            while found := FLAG.match(text):
                flags.append((found[1], found[2]))
                text = text[found.end() :]
            stage.steps.append(Step(name, text.strip(), tuple(flags)))
    return stages
