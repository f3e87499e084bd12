"""Lineage: the environment, the code and the command that a bundle comes from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rollout.__about__ import __version__
from rollout.bundle.columns import content
from rollout.bundle.machine import gpu_name, user_name
from rollout.bundle.schema import Labelled
from rollout.errors import BundleError

RECORDED_PACKAGES = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "numpy",
    "pillow",
    "scikit-learn",
    "pytorch-lightning",
)
LOCK = Path("constraints.txt")
# What a version comes from, each head with the entries of the lineage that belong to it.
HEADS = {
    "environment": ("environment",),
    "code": ("code", "seeds", "hyperparameters", "training", "teacher", "again", "artefact"),
    "data": ("data",),
}
Changes = dict[str, tuple[Any, Any]]
# The characters of all names together, each with those that it lies within: many may lie within a long one.
MOST_CHARACTERS = 1024 * 1024


def describe_surroundings() -> dict[str, Any]:
    """Returns environment, code, command and who ran it, as they are now."""
    return {
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": gpu_name() or "cpu",
            "packages": {package: _version(package) for package in RECORDED_PACKAGES},
            "lock": hashlib.sha256(LOCK.read_bytes()).hexdigest() if LOCK.exists() else None,
            "rollout": __version__,
        },
        "code": {"commit": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain"))},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "by": user_name(),
    }


def hash_rows(*parts: Labelled) -> str:
    """Returns the SHA-256 of all inputs and targets, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        for name, array in part.inputs.items():
            digest.update(name.encode())
            digest.update(content(array))
        for own in part.targets.dtype.names or ("",):  # of several heads, those of each by its name
            column = part.targets[own] if own else part.targets
            digest.update(own.encode())
            digest.update(np.ascontiguousarray(column.astype(np.float64)).tobytes())
    return digest.hexdigest()


def part_of(lineage: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Returns a mapping within a lineage, each name within the one before; empty where there is none.

    A bundle from elsewhere may have anything in its place.
    """
    for name in names:
        part = lineage.get(name)
        lineage = part if isinstance(part, Mapping) else {}
    return lineage


def by_head(lineage: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns what a lineage says under the heads environment, code and data, by dotted name.

    Raises:
        BundleError: If these names are too long together.
    """
    return {
        head: _flat({entry: lineage[entry] for entry in entries if entry in lineage})
        for head, entries in HEADS.items()
    }


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Changes]:
    """Compares two lineages under the heads environment, code and data.

    Returns:
        For each head, what differs by its dotted name, before and after; ``None`` where there is none.
    """
    then, now = by_head(before), by_head(after)
    return {
        head: {
            name: (then[head].get(name), now[head].get(name))
            for name in sorted(then[head].keys() | now[head].keys())
            if then[head].get(name) != now[head].get(name)
        }
        for head in HEADS
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def _flat(mapping: Mapping[str, Any]) -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    characters = 0
    waiting: list[tuple[str, Any]] = [("", mapping)]
    while waiting:
        name, value = waiting.pop()
        if not isinstance(value, Mapping):
            leaves[name] = value
            continue
        prefix = f"{name}." if name else ""
        characters += sum(len(prefix) + len(key) for key in value)
        if characters > MOST_CHARACTERS:
            raise BundleError(f"the names in its lineage have more than {MOST_CHARACTERS:,} characters together")
        waiting += reversed([(f"{prefix}{key}", part) for key, part in value.items()])
    return leaves
