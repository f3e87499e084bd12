"""A version in memory: its bundle checked, its variant loaded and warmed up, its rows batched."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np

from rollout import metrics
from rollout.bundle.golden import read_golden
from rollout.bundle.parity import take
from rollout.bundle.schema import Arrays, InputSchema
from rollout.bundle.store import open_bundle
from rollout.bundle.task import Classification, Scores
from rollout.bundle.verify import choose_variant
from rollout.config import Settings
from rollout.errors import PredictionFailedError
from rollout.inference.batcher import Batcher
from rollout.inference.row import ClassAnswer, Decision, Row, ValueAnswer
from rollout.routing.assignment import Arm

# Below this, a full batch is over before a thread would have handed its result back.
INLINE_BELOW_S = 0.001

logger = logging.getLogger(__name__)


class LoadedVersion:
    """One version, ready to score rows.

    Args:
        model: The model.
        version: The version of it.
        settings: Variant, threads, and the limits of batch and queue.

    Raises:
        BundleError: If the bundle does not hold what it promises on this machine.
    """

    def __init__(self, model: str, version: str, settings: Settings) -> None:
        folder, self.manifest = open_bundle(f"{model}:{version}", settings.public_key)
        self.model = model
        self.version = version
        self.schema = InputSchema(self.manifest.inputs)
        self.choice = choose_variant(folder, self.manifest, settings.variants(), settings.intra_op_threads)
        self.variant, self._runtime = self.choice.name, self.choice.variant
        metrics.VARIANT.labels(model, version, self.variant).set(1)
        seconds = self._warm_up(read_golden(folder).inputs, settings.max_batch)
        inline = seconds < INLINE_BELOW_S
        logger.info(
            "%s is loaded: variant %s agrees with its golden examples and is the fastest (%s), "
            "%d rows in %.2f ms, run %s",
            self.manifest.tag,
            self.variant,
            ", ".join(f"{name} {taken * 1000:.2f} ms" for name, taken in self.choice.seconds.items()),
            settings.max_batch,
            seconds * 1000,
            "on the event loop" if inline else "in a thread",
        )
        for name, why in self.choice.refused.items():
            logger.info("%s does not use %s: %s", self.manifest.tag, name, why)
        self._executor = None if inline else ThreadPoolExecutor(1, thread_name_prefix=self.manifest.tag)
        self.batcher: Batcher[Row, Decision] = Batcher(
            self.score,
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            executor=self._executor,
            on_batch=self._count_batch,
        )
        self._predictions = {
            arm: metrics.PREDICTIONS.labels(model, version, self.variant, arm) for arm in get_args(Arm)
        }
        self._confidence = {
            arm: metrics.Tally(metrics.CONFIDENCE.labels(model, version, arm)) for arm in get_args(Arm)
        }
        self._batch_rows = metrics.Tally(metrics.BATCH_ROWS.labels(model, version))
        self._queue_seconds = metrics.Tally(metrics.QUEUE_SECONDS.labels(model, version))

    def close(self) -> None:
        """Ends the thread that runs the batches, if there is one."""
        if self._executor is not None:
            self._executor.shutdown()

    def score(self, rows: Sequence[Row]) -> list[Decision | PredictionFailedError]:
        """Scores a batch of rows, decides on each, and counts them."""
        arrays = {name: np.stack([row.arrays[name] for row in rows]) for name in self.schema.fields}
        decisions = self.decide(self._runtime.run(arrays))
        arms = Counter(row.assignment.arm for row in rows)
        for arm, count in arms.items():
            self._predictions[arm].inc(count)
        for row, decision in zip(rows, decisions, strict=True):
            if isinstance(decision, Decision) and isinstance(decision.answer, ClassAnswer):
                self._confidence[row.assignment.arm].observe(decision.answer.confidence)
        return decisions

    def decide(self, scores: Scores) -> list[Decision | PredictionFailedError]:
        """Turns scores of shape ``(rows, task.outputs)`` into a decision for each row.

        Whether it needs review is decided on the exact scores; those that go out are rounded to six decimals,
        which is what single precision can vouch for.
        """
        task = self.manifest.task
        if scores.shape[1:] != (task.outputs,):
            raise ValueError(f"scores of shape {scores.shape} for {task.outputs} outputs")
        finite: list[bool] = np.isfinite(scores.sum(-1)).tolist()
        needs_review: list[bool] = task.needs_review(scores).tolist()
        answers: Sequence[ClassAnswer | ValueAnswer] = (
            _classes(task, scores) if isinstance(task, Classification) else _values(scores)
        )
        return [
            Decision(answer, review)
            if sound
            else PredictionFailedError("the model's scores for this input are not finite numbers")
            for answer, review, sound in zip(answers, needs_review, finite, strict=True)
        ]

    def _warm_up(self, examples: Arrays, max_batch: int) -> float:
        """Runs every batch size once and returns the best time of a full batch, in seconds."""
        rows = len(next(iter(examples.values())))
        for size in range(1, max_batch + 1):
            full = take(examples, np.arange(size) % rows)
            self._runtime.run(full)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            self._runtime.run(full)
            times.append(time.perf_counter() - start)
        return min(times)

    def _count_batch(self, size: int, waited: float) -> None:
        self._batch_rows.observe(size)
        self._queue_seconds.observe(waited)


def _classes(task: Classification, scores: Scores) -> list[ClassAnswer]:
    labels = task.labels
    best = scores.argmax(-1).tolist()
    rounded = scores.astype(np.float64).round(6).tolist()
    return [
        ClassAnswer(labels[index], row[index], dict(zip(labels, row, strict=True)))
        for row, index in zip(rounded, best, strict=True)
    ]


def _values(scores: Scores) -> list[ValueAnswer]:
    value, half_width = scores.astype(np.float64).T
    ends = np.stack([value, value - half_width, value + half_width], axis=1).round(6).tolist()
    return [ValueAnswer(middle, (low, high)) for middle, low, high in ends]
