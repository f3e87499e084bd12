"""A version in memory: its bundle checked, its variant loaded and warmed up, its rows batched."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np

from rollout import metrics
from rollout.bundle.baseline import features_of, read_baseline
from rollout.bundle.golden import Golden, golden_of
from rollout.bundle.manifest import digest
from rollout.bundle.parity import count
from rollout.bundle.schema import Arrays, InputSchema
from rollout.bundle.store import open_bundle
from rollout.bundle.variants import VARIANTS
from rollout.bundle.verify import check_golden, choose_variant, load_variant, servable
from rollout.config import Settings
from rollout.cores import usable_cores
from rollout.heads import Scores
from rollout.inference.batcher import Batcher, BatchReport, Left
from rollout.inference.decisions import Decisions, decide
from rollout.inference.profile import measure
from rollout.inference.threads import COSTLY, Threads
from rollout.inference.variant_choice import share_choice
from rollout.judge.baseline import NAMED, Baseline

logger = logging.getLogger(__name__)


class LoadedVersion:
    """One version, ready to score rows.

    Args:
        model: The model.
        version: The version of it.
        settings: Variants, threads, and how long work may wait.

    Raises:
        BundleError: If the bundle does not hold what it promises on this machine.
    """

    def __init__(self, model: str, version: str, settings: Settings) -> None:
        self.folder, self.manifest = open_bundle(f"{model}:{version}", settings.public_key)
        self.digest = digest(self.manifest)
        self.model = model
        self.version = version
        self.schema = InputSchema(self.manifest.inputs)
        names = servable(self.manifest, settings.variants(), settings.device)
        golden = golden_of(self.folder, self.manifest)
        self.baseline = self._baseline(golden.inputs)
        self.choice = choose_variant(
            self.folder,
            self.manifest,
            golden,
            names,
            settings.intra_op_threads or 1,
            settings.device,
            lambda fastest: share_choice(settings.home, self.digest, names, fastest),
            is_trusted=settings.trusts_bundles,
        )
        self.variant, self._runtime = self.choice.name, self.choice.variant
        self.threads = settings.intra_op_threads or 1
        cores = max(1, usable_cores() // settings.processes // self.threads)
        self.profile = measure(self.score, golden.inputs, cores)
        if cores > 1 and not settings.intra_op_threads and settings.device == "cpu":
            self._try_threads(golden, cores, is_trusted=settings.trusts_bundles)
        self._executor = ThreadPoolExecutor(self.profile.in_flight, thread_name_prefix=self.manifest.tag)
        self.batcher = Batcher(
            self.score,
            self.profile,
            longest_wait=settings.timeout_ms / 1000,
            executor=self._executor,
            on_batch=self._count_batch,
        )
        metrics.VARIANT.labels(model, version, self.variant).set(1)
        self._batches = {
            left: metrics.Count(metrics.BATCHES.labels(model, version, left)) for left in get_args(Left)
        }
        self._batch_rows = metrics.Tally(metrics.BATCH_ROWS.labels(model, version))
        self._queue_seconds = metrics.Tally(metrics.QUEUE_SECONDS.labels(model, version))
        self._log()

    def _baseline(self, inputs: Arrays) -> Baseline | None:
        """Returns the bundle's baseline, if what it looks at is what these rows have."""
        baseline, task = read_baseline(self.folder), self.manifest.task
        if baseline is None:
            return None
        unknown = np.full((count(inputs), task.columns), np.nan)
        gone = baseline.features.keys() - features_of(self.schema.fields, task, inputs, unknown).keys()
        if not gone:
            return baseline
        logger.warning(
            "the baseline of %s is of %s, which its rows do not have: its drift is not looked at; pack it anew",
            self.manifest.tag,
            ", ".join(sorted(gone)[:NAMED]),
        )
        return None

    def _try_threads(self, golden: Golden, cores: int, *, is_trusted: bool) -> None:
        """Has all cores compute a batch, where a row is costly and batches at a time are not clearly better.

        Not of what torch runs: its threads are those of the process, whatever else is loaded.
        """
        alone = self._runtime
        if self.profile.seconds[1] < COSTLY or VARIANTS[self.variant].needs_torch:
            return
        self._runtime = load_variant(self.folder, self.manifest, self.variant, cores, is_trusted=is_trusted)
        check_golden(golden, self.manifest, self.variant, self._runtime)
        measured = Threads(cores, self.profile, measure(self.score, golden.inputs, 1))
        self.threads, self.profile = measured.in_a_batch, measured.profile
        if self.threads == 1:
            self._runtime = alone

    def close(self) -> None:
        """Ends the threads that run the batches, as soon as these have ended."""
        self._executor.shutdown(wait=False)

    def score(self, arrays: Arrays) -> Decisions:
        """Scores a batch and decides on each row; those that are not finite numbers fail alone."""
        return self.decide(self._runtime.run(arrays))

    def decide(self, scores: Scores) -> Decisions:
        """Turns scores of shape ``(rows, head.outputs)`` into decisions."""
        return decide(self.manifest.task, scores)

    def _count_batch(self, batch: BatchReport) -> None:
        self._batches[batch.left].inc()
        self._batch_rows.observe(batch.rows)
        self._queue_seconds.observe(batch.waited)

    def _log(self) -> None:
        profile = self.profile
        logger.info(
            "%s is loaded: variant %s agrees with its golden examples and serves (%s); batches of up to "
            "%d rows in %.2f ms, %d at a time, threads in each: %d",
            self.manifest.tag,
            self.variant,
            ", ".join(f"{name} {taken * 1000:.2f} ms" for name, taken in self.choice.seconds.items()),
            profile.max_batch,
            profile.seconds[-1] * 1000,
            profile.in_flight,
            self.threads,
        )
        if self.choice.parity.ties:
            logger.warning(
                "%s decides golden examples otherwise than its source, by how it rounds: %s",
                self.manifest.tag,
                self.choice.parity,
            )
        for name, why in self.choice.refused.items():
            logger.info("%s does not use %s: %s", self.manifest.tag, name, why)
