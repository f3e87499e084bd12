"""What a job on Spark or Ray is to do, pinned on the machine that starts it and carried to all others."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import msgspec

from rollout.__about__ import __version__
from rollout.bundle.golden import read_golden
from rollout.bundle.manifest import Manifest, digest
from rollout.bundle.schema import InputSchema
from rollout.bundle.store import export_bundle, open_bundle, was_packed_here
from rollout.bundle.verify import choose_variant, servable
from rollout.config import load_settings
from rollout.errors import NO_JSON, ConfigError
from rollout.job.arrow import answer_columns
from rollout.job.row import Columns
from rollout.review.policy import DEFAULT, ReviewPolicy

# Where a job writes down what makes its answers different: a name that readers of Parquet take for no data.
PLAN = "_rollout.json"
# A row that does not go to review has neither reason nor pi.
BEFORE = ("version", "variant")
AFTER = ("needs_review", "reason", "pi", "error")
# What a job that is started again must have in common with the one before.
SAME = ("rollout", "tag", "digest", "client_id", "key", "keep", "audit", "parts")


class Options(TypedDict, total=False):
    """What may be said of a job.

    Attributes:
        client_id: The column of client IDs; ``client_id`` by default.
        key: The column of your own keys, which need not be there; ``key`` by default.
        keep: Further columns that stand beside the answers as they came.
        audit: Share of the predictions that nothing else sends to review and that are flagged all the same, from
            0 to 1; by default that of a policy which nobody set, 0.005.
        on_error: What becomes of a row that cannot be scored: a sentence in its column ``error``, by default, or
            with ``fail`` the end of the job.
        variant: The variant that scores; by default, the fastest here of those that may serve.
        batch_size: Most rows that the model scores at once; 256 by default.
    """

    client_id: str
    key: str
    keep: Sequence[str]
    audit: float
    on_error: Literal["column", "fail"]
    variant: str
    batch_size: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What every process of a job does. The same plan makes the same answers of the same rows.

    Attributes:
        tag: Name and version of the bundle.
        digest: What exactly it is: the SHA-256 of its manifest.
        variant: The variant that scores.
        device: ``cpu`` or ``cuda``.
        threads: Threads that one batch may use.
        is_trusted: Whether its origin may run code, as the machine says that started the job.
        client_id: The column of client IDs.
        key: The column of keys.
        keep: The columns of the input that stand beside the answers.
        audit: Share of the other predictions that is flagged for review.
        on_error: What becomes of a row that cannot be scored.
        batch_size: Most rows that the model scores at once.
        parts: The column that says in which part of the output a row is; empty where there is none.
        rollout: The release of Rollout.
    """

    tag: str
    digest: str
    variant: str
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    is_trusted: bool = False
    client_id: str = "client_id"
    key: str = "key"
    keep: tuple[str, ...] = ()
    audit: float = DEFAULT.audit
    on_error: Literal["column", "fail"] = "column"
    batch_size: int = 256
    parts: str = ""
    rollout: str = __version__

    @property
    def policy(self) -> ReviewPolicy:
        """How predictions enter the review; nothing bounds how many in a minute."""
        return ReviewPolicy(audit=self.audit, rates={})


class Job(NamedTuple):
    """A plan, and what is carried beside it.

    Attributes:
        plan: The plan.
        archive: The bundle as one file.
        manifest: What it promises.
        reads: The columns of the input that are looked at.
    """

    plan: Plan
    archive: Path
    manifest: Manifest
    reads: list[str]


def prepare(
    tag: str,
    there: Collection[str],
    options: Mapping[str, Any],
    device: Literal["cpu", "cuda"] = "cpu",
    parts: str = "",
) -> Job:
    """Checks a job before anything runs, and pins the bundle and its variant.

    Args:
        tag: Name and version of the bundle, which the store of this machine has.
        there: The columns of the input.
        options: See ``Options``.
        device: Where the variant runs. On a GPU, which this machine need not have, no variant is measured: the
            one that is preferred is taken.
        parts: The column that says in which part of the output a row is.

    Raises:
        BundleError: If there is no such bundle, or it does not hold what it promises on this machine.
        ConfigError: If an option is unknown, or a column is missing or has the name of an answer's.
    """
    settings = load_settings()
    folder, manifest = open_bundle(tag, settings.public_key)
    said = {**options, "keep": tuple(options.get("keep", ()))}
    if unknown := sorted(said.keys() - Options.__annotations__.keys()):
        raise ConfigError(f"{unknown[0]} is no option; there are {', '.join(Options.__annotations__)}")
    is_trusted = settings.trusts_bundles or was_packed_here(manifest)
    names = servable(manifest, (said["variant"],) if said.get("variant") else settings.variants())
    if device == "cpu":
        golden = read_golden(folder)
        names = (choose_variant(folder, manifest, golden, names, is_trusted=is_trusted).name,)
    plan = Plan(
        tag=tag,
        digest=digest(manifest),
        device=device,
        threads=settings.intra_op_threads,
        is_trusted=is_trusted,
        parts=parts,
        **{**said, "variant": names[0]},
    )
    if not 0 <= plan.audit <= 1 or plan.batch_size < 1 or plan.on_error not in ("column", "fail"):
        raise ConfigError("audit is a share from 0 to 1, batch_size at least 1, and on_error column or fail")
    return Job(plan, _archive(tag, plan.digest), manifest, _columns(plan, manifest, there))


def goes_on(plan: Plan, before: bytes | None) -> Plan:
    """Returns the plan by which a job goes on whose output was begun: with the variant that it began with.

    Args:
        plan: The plan of now.
        before: The plan that the output was begun with, JSON; ``None`` where it was not.

    Raises:
        ConfigError: If that one makes other answers.
    """
    if before is None:
        return plan
    try:
        begun = msgspec.json.decode(before, type=Plan)
    except NO_JSON as error:
        raise ConfigError(f"the output was begun by another release of Rollout: {error}") from None
    for name in SAME:
        if getattr(begun, name) != getattr(plan, name):
            raise ConfigError(
                f"the output was begun with {name} {getattr(begun, name)!r}, and now it is "
                f"{getattr(plan, name)!r}: go on with the former, or write to another place"
            )
    return msgspec.structs.replace(plan, variant=begun.variant)


def schema_of(plan: Plan, manifest: Manifest, given: Mapping[str, Any]) -> Any:
    """Returns the Arrow schema of the output.

    Args:
        plan: The plan.
        manifest: The manifest of its bundle.
        given: The Arrow types of the columns of the input.
    """
    import pyarrow  # noqa: PLC0415

    text = pyarrow.string()
    types = {name: given[name] for name in kept(plan, given)} | dict.fromkeys(BEFORE, text)
    types |= answer_columns(manifest.task).types
    types |= {"needs_review": pyarrow.bool_(), "reason": text, "pi": pyarrow.float64(), "error": text}
    return pyarrow.schema(list(types.items()))


def kept(plan: Plan, there: Collection[str]) -> list[str]:
    """Returns the columns of the input that stand in the output, in the order there."""
    return [name for name in dict.fromkeys((plan.client_id, plan.key, *plan.keep)) if name in there]


def _columns(plan: Plan, manifest: Manifest, there: Collection[str]) -> list[str]:
    columns = Columns(plan.client_id, plan.key, InputSchema(manifest.inputs).fields)
    columns.require(there, "the table", "client_id=")
    if lacking := [name for name in (*plan.keep, *filter(None, [plan.parts])) if name not in there]:
        raise ConfigError(f"the table has no column {lacking[0]}; it has {', '.join(there)}")
    said = {*BEFORE, *manifest.task.table(), *AFTER}
    if taken := [name for name in kept(plan, there) if name in said]:
        raise ConfigError(f"{taken[0]} is a column of the answers: rename the one of the table")
    wanted = (plan.client_id, plan.key, *plan.keep, *columns.readers)
    return [name for name in dict.fromkeys(wanted) if name in there]


@cache
def _archive(tag: str, known_by: str) -> Path:
    """Packs a bundle up, once a process: its archive would be another file each time."""
    folder = Path(tempfile.mkdtemp(prefix="rollout-job-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / f"rollout-{tag.replace(':', '-')}-{known_by[:12]}.bentomodel"
    export_bundle(tag, file)
    return file
