"""Large jobs on Ray Data: the rows of a Dataset, answered as the service would answer them.

- **The same answers.** One bundle is pinned on the machine that starts the job, by its digest and its variant,
  and lies in Ray's object store. Each actor of the pool unpacks it, unless another one on that machine did,
  compares every file with the digest, and runs its golden examples before it answers the first row. Of a bundle
  that was neither packed where the job was started nor signed, only ONNX is loaded.
- **The same review.** ``needs_review``, ``reason`` and ``pi`` follow from the same hash as in the service.

What becomes of the Dataset is Ray's: ``write_parquet`` writes it, and a job that is stopped begins anew.
Every node needs the same release of Rollout. GPUs are given out by Ray: ``num_gpus`` is what an actor takes.
"""

from __future__ import annotations

from typing import Any, Unpack

from rollout.job.plan import Options, Plan, prepare


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


class _Actor:
    """What an actor of the pool runs.

    Args:
        plan: The plan of the job.
        archive: The bundle's archive, in Ray's object store.
    """

    def __init__(self, plan: Plan, archive: Any) -> None:
        import ray  # noqa: PLC0415

        from rollout.job.scorer import open_scorer  # noqa: PLC0415

        self._scorer = open_scorer(plan, lambda: bytes(ray.get(archive)))

    def __call__(self, table: Any) -> Any:
        return self._scorer(table)
