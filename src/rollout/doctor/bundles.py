"""The bundles: are they whole, do their models answer as before, and are those here that splits name?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from rollout.doctor.finding import Finding, fault, ok, warning
from rollout.doctor.setup import Setup
from rollout.errors import BundleError, RolloutError

# Of one bundle.
VERIFY_S = 300


def whole(setup: Setup) -> Iterator[Finding]:
    """Do all files match their hashes, and the signatures the key, as serving has it?"""
    if not setup.tags:
        yield warning(
            f"there are no bundles in {setup.store}",
            "`rollout build FOLDER` makes some, `rollout pull URL` fetches some",
        )
        return
    from rollout.bundle.store import bundle_bytes, open_bundle, removal  # noqa: PLC0415  the store imports BentoML

    size, good = 0, 0
    for tag in setup.tags:
        try:
            open_bundle(tag, setup.settings.public_key)
        except BundleError as error:
            yield fault(error.detail, f"fetch, build or sign {tag} again, or remove it: {removal(tag)}")
        except RolloutError as error:  # the key, which is the same for all
            yield fault(error.detail, "correct ROLLOUT_PUBLIC_KEY")
            return
        else:
            size, good = size + bundle_bytes(tag), good + 1
    if not good:
        return
    signed = " and are signed" if setup.settings.public_key else ""
    yield ok(f"{good} of {len(setup.tags)} bundles match their hashes{signed}, {size / 1e6:,.1f} MB")


def answer(setup: Setup) -> Iterator[Finding]:
    """Do the models answer as when they were packed? Where they may be run, each in a process of its own."""
    if not setup.deep:
        return
    for tag in setup.tags:
        # -P: nothing is imported from the folder that the command was started in.
        command = [sys.executable, "-P", "-c", "from rollout.cli import main; main()", "verify", tag]
        try:
            done = subprocess.run(
                command, env=setup.environ, capture_output=True, text=True, timeout=VERIFY_S, check=False
            )
        except subprocess.TimeoutExpired:
            yield fault(f"{tag} did not answer its examples within {VERIFY_S} s", f"see `rollout verify {tag}`")
            continue
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            why = said[-1].removeprefix("rollout: ") if said else f"exit code {done.returncode}"
            what = why if tag in why else f"{tag}: {why}"
            yield fault(what, f"see `rollout verify {tag}`; fetch or build it again")
        else:
            yield ok(f"{tag} answers its examples as when it was packed")


def splits(setup: Setup) -> Iterator[Finding]:
    """Is each bundle here that a split names, and is it the one that was put there?"""
    whence = "as last seen here, since Redis cannot be asked" if setup.redis_trouble else "in Redis"
    if not setup.splits and setup.redis_trouble:
        yield ok(f"not known: {setup.redis_trouble}, and no split was seen here before")
        return
    if not setup.splits:
        yield warning(
            "no model has a split: there is nothing to serve",
            "`rollout split set MODEL --champion VERSION` makes one",
        )
        return
    good = []
    for model, split in setup.splits.items():
        troubles = 0
        for version in split.kept:
            tag = f"{model}:{version}"
            if tag not in setup.tags:
                say = fault if version == split.champion else warning
                troubles += 1
                yield say(
                    f"{tag} is in the split, and there is no such bundle here", "`rollout pull` or build it"
                )
            elif _is_another(tag, split.digests.get(version)):
                troubles += 1
                yield fault(
                    f"{tag} is another bundle than the one that was put into the split",
                    f"fetch that one again, or put this one there: `rollout split set {model} …`",
                )
        if not troubles:
            good.append(model)
    if good:
        yield ok(f"all bundles are here for {', '.join(good)} ({whence})")


def _is_another(tag: str, wanted: str | None) -> bool:
    from rollout.bundle.manifest import digest, read_manifest  # noqa: PLC0415  they import BentoML and NumPy
    from rollout.bundle.store import bundle_path  # noqa: PLC0415

    try:
        return wanted is not None and digest(read_manifest(bundle_path(tag))) != wanted
    except BundleError:  # which is said where the bundles are looked at
        return False
