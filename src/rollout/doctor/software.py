"""Python and the packages: against what Rollout needs, and what is locked."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from rollout.__about__ import __version__
from rollout.doctor.finding import Finding, fault, ok, warning
from rollout.doctor.setup import Setup

LOCK = Path("constraints.txt")
LOCKED = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", re.MULTILINE)
OLDEST_PYTHON = (3, 11)
# What each extra is for.
EXTRAS = {
    "audio": "sounds as inputs",
    "batch": "Parquet in `rollout predict` and `rollout review export`",
    "client": "asking a service from Python",
    "demo": "the data of the demo's models",
    "explain": "why an answer came out",
    "grpc": "the Open Inference Protocol over gRPC",
    "import": "fitted estimators as artefacts",
    "labels": "labels that look wrong",
    "mlflow": "runs and versions in MLflow",
    "otel": "traces and metrics by OTLP",
    "pack": "packing and verifying what needs torch",
    "ray": "large jobs on Ray",
    "s3": "bundles in a bucket",
    "spark": "large jobs on Spark",
    "train": "training a `Fit`, and the search",
    "wandb": "runs in Weights & Biases",
}


def python(_: Setup) -> Iterator[Finding]:
    """Is Python new enough?"""
    found = f"Rollout {__version__} on Python {platform.python_version()}, {platform.platform()}"
    if sys.version_info < OLDEST_PYTHON:
        yield fault(found, "install Python 3.11 or later")
    else:
        yield ok(found)


def packages(_: Setup) -> Iterator[Finding]:
    """Is what Rollout needs there, in versions that fit, and in those that are locked?"""
    needed = _requirements("")
    troubles = [trouble for one in needed if (trouble := _trouble(one))]
    for trouble in troubles:
        yield fault(trouble, "install Rollout again: `pip install -c constraints.txt .`")
    if not troubles:
        yield ok(f"{len(needed)} packages that Rollout needs are there")
    if not LOCK.is_file():
        return
    locked = dict(LOCKED.findall(LOCK.read_text()))
    others = [
        f"{name} {found} (locked: {version})"
        for name, version in locked.items()
        if (found := _version(name)) and found.partition("+")[0] != version.partition("+")[0]
    ]
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        yield warning(
            f"other versions than {LOCK} locks: {', '.join(others[:5])}{more}",
            f"`pip install -r {LOCK}` installs them",
        )
    else:
        yield ok(f"all packages have the versions that {LOCK} locks")


def torch_build(setup: Setup) -> Iterator[Finding]:
    """Is torch the build that the device needs?"""
    version = _version("torch")
    for_gpus = version is not None and sys.platform == "linux" and "+cpu" not in version
    if setup.settings.device == "cuda" and not for_gpus and not _version("onnxruntime-gpu"):
        yield fault(
            "ROLLOUT_DEVICE is cuda, and neither onnxruntime nor torch is a build for GPUs",
            "install onnxruntime-gpu or torch for CUDA, or unset ROLLOUT_DEVICE",
        )
    elif version is None:
        yield ok("no torch: variants in ONNX can be served, nothing can be packed")
    elif for_gpus and setup.settings.device == "cpu":
        yield warning(
            f"torch {version} may be the build for GPUs, which takes gigabytes more",
            "install that for CPUs: `pip install torch --index-url https://download.pytorch.org/whl/cpu`",
        )
    else:
        yield ok(f"torch {version}")


def extras(_: Setup) -> Iterator[Finding]:
    """Which extras are installed?"""
    there, absent = [], []
    for extra, purpose in EXTRAS.items():
        missing = [one.name for one in _requirements(extra) if _version(one.name) is None]
        wrong = [trouble for one in _requirements(extra) if _version(one.name) and (trouble := _trouble(one))]
        if missing:
            absent.append(f"{extra} ({purpose})")
        elif wrong:
            yield warning(f"the extra {extra}: {'; '.join(wrong)}", f"`pip install 'rollout[{extra}]'`")
        else:
            there.append(extra)
    yield ok(f"installed: {', '.join(there) or 'none'}")
    if absent:
        yield ok(f"not installed: {', '.join(absent)}; `pip install 'rollout[EXTRA]'` adds one")


def _requirements(extra: str) -> list[Requirement]:
    """Returns what an extra needs on this platform; without one, what Rollout itself needs."""
    every = map(Requirement, importlib.metadata.requires("rollout") or ())
    return [
        one
        for one in every
        if ("extra" in str(one.marker)) == bool(extra)
        and (one.marker is None or one.marker.evaluate({"extra": extra}))
    ]


def _trouble(needed: Requirement) -> str:
    """Says what is wrong with a package that is needed; nothing if it fits."""
    found = _version(needed.name)
    if found is None:
        return f"{needed.name} is missing"
    if not needed.specifier.contains(found, prereleases=True):
        return f"{needed.name} {found} does not fit {needed.specifier}"
    return ""


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
