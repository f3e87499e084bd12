"""A version in memory: its bundle checked, its variant loaded and warmed up, its rows batched."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np

from rollout import metrics
from rollout.bundle.golden import read_golden
from rollout.bundle.manifest import digest
from rollout.bundle.schema import Arrays, InputSchema
from rollout.bundle.store import open_bundle
from rollout.bundle.task import Classification, Scores
from rollout.bundle.verify import choose_variant, servable
from rollout.config import Settings
from rollout.cores import usable_cores
from rollout.errors import PredictionFailedError
from rollout.inference.batcher import Batcher, BatchReport, Left
from rollout.inference.decisions import Decisions
from rollout.inference.profile import measure
from rollout.inference.variant_choice import share_choice

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
        folder, self.manifest = open_bundle(f"{model}:{version}", settings.public_key)
        self.digest = digest(self.manifest)
        self.model = model
        self.version = version
        self.schema = InputSchema(self.manifest.inputs)
        names = servable(self.manifest, settings.variants())
        golden = read_golden(folder)
        self.choice = choose_variant(
            folder,
            self.manifest,
            golden,
            names,
            settings.intra_op_threads,
            settings.device,
            lambda fastest: share_choice(settings.home, self.digest, names, fastest),
            is_trusted=settings.trusts_bundles,
        )
        self.variant, self._runtime = self.choice.name, self.choice.variant
        cores = max(1, usable_cores() // settings.processes // settings.intra_op_threads)
        self.profile = measure(self.score, golden.inputs, cores)
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

    def close(self) -> None:
        """Ends the threads that run the batches, as soon as these have ended."""
        self._executor.shutdown(wait=False)

    def score(self, arrays: Arrays) -> Decisions:
        """Scores a batch and decides on each row; those that are not finite numbers fail alone."""
        return self.decide(self._runtime.run(arrays))

    def decide(self, scores: Scores) -> Decisions:
        """Turns scores of shape ``(rows, task.outputs)`` into decisions.

        Whether it needs review is decided on the exact scores; those that go out are rounded to six decimals,
        which is what single precision can vouch for.
        """
        task = self.manifest.task
        if scores.shape[1:] != (task.outputs,):
            raise ValueError(f"scores of shape {scores.shape} for {task.outputs} outputs")
        if isinstance(task, Classification):
            best = scores.argmax(-1)
            numbers = scores.astype(np.float64)
        else:
            best = np.zeros(len(scores), np.int64)
            value, half_width = scores.astype(np.float64).T
            numbers = np.stack([value, value - half_width, value + half_width], axis=1)
        decisions = Decisions(best, numbers.round(6), task.needs_review(scores))
        is_finite = np.isfinite(scores)
        if not is_finite.all():
            error = PredictionFailedError("the model's scores for this input are not finite numbers")
            decisions.errors = dict.fromkeys(np.flatnonzero(~is_finite.all(-1)).tolist(), error)
        return decisions

    def _count_batch(self, batch: BatchReport) -> None:
        self._batches[batch.left].inc()
        self._batch_rows.observe(batch.rows)
        self._queue_seconds.observe(batch.waited)

    def _log(self) -> None:
        profile = self.profile
        logger.info(
            "%s is loaded: variant %s agrees with its golden examples and serves (%s); batches of up to "
            "%d rows in %.2f ms, %d at a time",
            self.manifest.tag,
            self.variant,
            ", ".join(f"{name} {taken * 1000:.2f} ms" for name, taken in self.choice.seconds.items()),
            profile.max_batch,
            profile.seconds[-1] * 1000,
            profile.in_flight,
        )
        for name, why in self.choice.refused.items():
            logger.info("%s does not use %s: %s", self.manifest.tag, name, why)
