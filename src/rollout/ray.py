"""Large jobs on Ray Data: the rows of a Dataset, answered as the service would answer them.

- **The same answers.** One bundle is pinned on the machine that starts the job, by its digest and its variant,
  and lies in Ray's object store. Each actor of the pool unpacks it, unless another one on that machine did,
  compares every file with the digest, and runs its golden examples before it answers the first row. Of a bundle
  that was neither packed where the job was started nor signed, only ONNX is loaded.
- **The same review.** ``needs_review``, ``reason`` and ``pi`` follow from the same hash as in the service.
- **Every row once**, see ``predict_to``. What becomes of the Dataset of ``predict`` is Ray's: ``write_parquet``
  writes it, and a job that is stopped begins anew.

Every node needs the same release of Rollout. GPUs are given out by Ray: ``num_gpus`` is what an actor takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import msgspec

from rollout.errors import ConfigError
from rollout.job.parts import Place, answer_part, columns_of
from rollout.job.plan import PLAN, Job, Options, Plan, goes_on, prepare
from rollout.job.scorer import open_scorer

RETRIES = 3


def predict(
    dataset: Any,
    tag: str,
    *,
    concurrency: int | tuple[int, int] | None = None,
    num_cpus: float | None = None,
    num_gpus: float = 0,
    **options: Unpack[Options],
) -> Any:
    """Answers the rows of a Dataset.

    Nothing is computed before Ray is asked for rows, as usual. It may compute rows again, which gives the same
    answers.

    Args:
        dataset: A column for each input of the model, by its name, or for each part of one that is made of parts,
            and one of client IDs. Files, such as images, are binary.
        tag: Name and version of a bundle in the store of this machine, such as ``digits:v2``.
        concurrency: How many actors score, or from how many to how many; by default Ray begins with one.
        num_cpus: Cores that an actor takes.
        num_gpus: GPUs that an actor takes, or a part of one. With any, the variant runs there.
        options: See ``rollout.job.plan.Options``.

    Returns:
        A Dataset: client ID and key as they came, ``version``, ``variant``, the fields of the answer, and
        ``needs_review``, ``reason``, ``pi`` and ``error``.

    Raises:
        BundleError: If there is no such bundle, or it is refused.
        ConfigError: If an option or a column is wrong.
    """
    import ray  # noqa: PLC0415

    job = prepare(tag, dataset.columns(), options, "cuda" if num_gpus else "cpu")
    return dataset.select_columns(job.reads).map_batches(
        _Actor,
        fn_constructor_args=(job.plan, ray.put(job.archive.read_bytes())),
        batch_format="pyarrow",
        batch_size=job.plan.batch_size,
        concurrency=concurrency,
        num_cpus=num_cpus,
        num_gpus=num_gpus or None,
    )


def predict_to(
    rows: str,
    tag: str,
    path: str,
    *,
    concurrency: int = 1,
    num_cpus: float = 1,
    num_gpus: float = 0,
    **options: Unpack[Options],
) -> None:
    """Answers the rows of Parquet files into Parquet, file by file, and goes on where a job before was stopped.

    A file of rows is answered by one call of one actor, into a file with the same path under ``path``. It is
    written beside, and gets its name when it is whole; one that is there is never written again. So when this has
    returned, whatever was killed before and however often, ``path`` has an answer for every row of ``rows``
    exactly once. As many files are answered at a time as there are actors: cut the rows accordingly. An actor
    that dies is started again, and its file is answered anew, three times at most.

    It takes files and no Dataset: Ray Data cuts and joins the rows of a Dataset as it sees fit, otherwise each
    time, so that nobody could say which of them a file holds.

    That takes three things of the caller: the files have the same rows each time, though more may have come; one
    job at a time writes to ``path``; and all nodes see both places.

    What makes answers different, the bundle and its variant first of all, is written down in
    ``path/_rollout.json``, by which a later call goes on.

    Args:
        rows: A folder of Parquet files and folders of such, or its URL, as pyarrow knows it. Their columns are as
            for ``predict``; what a folder's name says, such as ``day=2026-11-29``, is no column, and stays in the
            path of the answers.
        tag: Name and version of a bundle in the store of this machine.
        path: Where the answers go: a folder or its URL.
        concurrency: How many actors score, at most.
        num_cpus: Cores that an actor takes.
        num_gpus: GPUs that an actor takes, or a part of one. With any, the variant runs there.
        options: See ``rollout.job.plan.Options``.

    Raises:
        BundleError: If there is no such bundle, or it is refused.
        ConfigError: If an option or a column is wrong, there are no such files, or the output was begun by
            another job.
    """
    import ray  # noqa: PLC0415

    source, output = Place(rows), Place(path)
    names = source.parts()
    if not names:
        raise ConfigError(f"there is no file whose name ends in .parquet in {rows}")
    job = prepare(tag, columns_of(source, names[0]), options, "cuda" if num_gpus else "cpu")
    before = output.read(PLAN)
    job = job._replace(plan=goes_on(job.plan, before))
    if before is None:
        with output.whole(PLAN) as file:
            file.write(msgspec.json.encode(job.plan))
    output.clear()
    there = set(output.parts())
    left = [name for name in names if name not in there]
    kind = ray.remote(_Writer).options(
        num_cpus=num_cpus, num_gpus=num_gpus, max_restarts=-1, max_task_retries=RETRIES
    )
    actors = [kind.remote(job, source, output) for _ in range(min(concurrency, len(left)))]
    _hand_out(actors, left, ray.put(job.archive.read_bytes()))
    output.clear()


def _hand_out(actors: list[Any], names: Sequence[str], archive: Any) -> None:
    """Gives each actor a file whenever it has none, until all are answered."""
    import ray  # noqa: PLC0415

    left = list(reversed(names))
    at_work: dict[Any, Any] = {}
    while True:
        while actors and left:
            actor, name = actors.pop(), left.pop()
            at_work[actor.answer.remote(name, [archive])] = actor  # in a list, so that it stays where it is
            del actor
        actors.clear()  # one without a file ends, and its cores are for another that waits for some
        if not at_work:
            return
        (done,), _ = ray.wait(list(at_work), num_returns=1)
        actors.append(at_work.pop(done))
        ray.get(done)


class _Actor:
    """What an actor of the pool runs.

    Args:
        plan: The plan of the job.
        archive: The bundle's archive, in Ray's object store.
    """

    def __init__(self, plan: Plan, archive: Any) -> None:
        import ray  # noqa: PLC0415

        self._scorer = open_scorer(plan, lambda: bytes(ray.get(archive)))

    def __call__(self, table: Any) -> Any:
        return self._scorer(table)


class _Writer:
    """What answers files.

    Args:
        job: The job.
        rows: Where the files lie.
        out: Where the answers go.
    """

    def __init__(self, job: Job, rows: Place, out: Place) -> None:
        self._job, self._rows, self._out = job, rows, out

    def answer(self, name: str, archive: list[Any]) -> None:
        """Answers a file. The bundle is opened here, and not before: so its faults reach who started the job."""
        import ray  # noqa: PLC0415

        plan = self._job.plan
        scorer = open_scorer(plan, lambda: bytes(ray.get(archive[0])))
        answer_part(scorer, plan, self._job.reads, self._rows, self._out, name)
