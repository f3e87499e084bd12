"""What is counted of an arm: the answers of one version under one revision of the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, get_args

from rollout import metrics
from rollout.inference.row_sample import RowSample
from rollout.inference.rows import Fallback
from rollout.inference.version import LoadedVersion
from rollout.routing.assignment import Arm
from rollout.routing.groups import group_of

Outcome = Literal["agreed", "disagreed", "failed", "dropped"]
TRAFFIC_NAMES: dict[Outcome, str] = {
    "agreed": "agreed",
    "disagreed": "disagreed",
    "failed": "shadow_failed",
    "dropped": "shadow_dropped",
}
MOST_CLIENTS = 100_000
NO_VARIANT = "-"


class ArmCounters:
    """Counts the answers to the clients of an arm.

    Args:
        arm: The arm.
        version: The version that the arm names; the challenger's may be missing.
        champion: The version that answers in its place.
        challenger: The version that scores unseen, if any.
        revision: Revision of the split.
        budget_s: Seconds over which an answer counts as late, if anybody asks.

    Attributes:
        clients: Whom the hash put there, since they were last looked at.
        loaded: The version that the arm names, if it is in memory.
        sample: Rows that it answered lately, one of each request; ``None`` where nothing is known that they could
            be compared with.
    """

    def __init__(
        self,
        arm: Arm,
        version: str,
        champion: LoadedVersion,
        challenger: LoadedVersion | None,
        revision: int,
        budget_s: float | None = None,
    ) -> None:
        self.budget_s = budget_s
        self.arm = arm
        self.version = version
        model = champion.model
        loaded = next((one for one in (champion, challenger) if one is not None and one.version == version), None)
        variant = NO_VARIANT if loaded is None else loaded.variant
        where = (model, version, arm, revision)
        self._answered = metrics.Count(metrics.PREDICTIONS.labels(model, version, variant, arm, revision))
        self.failures = metrics.Count(metrics.FAILURES.labels(*where))
        self._seconds = metrics.Tally(metrics.SECONDS.labels(*where))
        self._confidence = metrics.Tally(metrics.CONFIDENCE.labels(*where))
        self.clients: set[str] = set()
        self.loaded = loaded
        self.sample = None if loaded is None or loaded.baseline is None else RowSample()
        self._revision = revision
        self._requests = self._failures = 0
        self._groups: Counter[str] = Counter()
        self._fallbacks: dict[Fallback, metrics.Count] = {}
        self.shadow: dict[Outcome, metrics.Count] = {}
        if arm == "challenger":
            self._fallen_back = metrics.Count(
                metrics.PREDICTIONS.labels(model, champion.version, champion.variant, arm, revision)
            )
            self._fallbacks = {
                why: metrics.Count(metrics.FALLBACKS.labels(model, version, revision, why))
                for why in get_args(Fallback)
            }
        elif challenger is not None:
            unseen = (model, challenger.version, arm, revision)
            self.shadow = {
                outcome: metrics.Count(metrics.SHADOW.labels(*unseen, outcome)) for outcome in get_args(Outcome)
            }
            self.distance = metrics.Tally(metrics.SHADOW_DISTANCE.labels(*unseen))
            self.shadow_seconds = metrics.Tally(metrics.SHADOW_SECONDS.labels(*unseen))

    def record_clients(self, client_ids: Iterable[str]) -> None:
        """Remembers clients, up to ``MOST_CLIENTS``: more only come together while Redis is away."""
        if len(self.clients) < MOST_CLIENTS:
            self.clients.update(client_ids)

    def record_evidence(self, client_id: str, attempts: int, *, failed: bool) -> None:
        """Takes a request as evidence, unless the arm's version was late: the arms do not have the same time.

        Its rows are not independent of each other, so it is one failure at most.

        Args:
            client_id: The client of its first row.
            attempts: Rows that the version attempted in time.
            failed: Whether it failed on one of them, by an error of its own.
        """
        if attempts:
            self._requests += 1
            self._failures += failed
            group = group_of(client_id)
            self._groups[f"failures|{group}|n"] += 1
            if failed:
                self._groups[f"failures|{group}|y"] += 1

    def record_times(self, client_ids: Iterable[str], seconds: float) -> None:
        """Takes how long the rows of clients took, where there is a budget."""
        if self.budget_s is None:
            return
        for client_id in client_ids:
            group = group_of(client_id)
            self._groups[f"late|{group}|n"] += 1
            if seconds > self.budget_s:
                self._groups[f"late|{group}|y"] += 1

    def record_fallbacks(self, rows: Iterable[tuple[str, Fallback | None]]) -> None:
        """Takes which rows of the challenger's clients the champion answered.

        Args:
            rows: For each its client, and why the champion answered it, if it did; an error is a failure.
        """
        for client_id, why in rows:
            group = group_of(client_id)
            self._groups[f"fallbacks|{group}|n"] += 1
            if why is not None and why != "error":
                self._groups[f"fallbacks|{group}|y"] += 1

    def count(
        self,
        rows: int,
        confidences: Sequence[float],
        fallbacks: Sequence[Fallback],
        seconds: float,
        requests: int = 1,
    ) -> None:
        """Counts the answer to a request, or to several that were answered together.

        Args:
            rows: How many rows they have.
            confidences: Of each row; empty where the answers have none.
            fallbacks: For those that the champion answered in the challenger's place, why.
            seconds: How long it took.
            requests: How many they are.
        """
        self._seconds.observe_all([seconds] * requests)
        if fallbacks:
            self._answered.inc(rows - len(fallbacks))
            self._fallen_back.inc(len(fallbacks))
            for why in fallbacks:
                self._fallbacks[why].inc()
        else:
            self._answered.inc(rows)
        self._confidence.observe_all(confidences)

    def take(self) -> Iterator[tuple[tuple[Arm, str, str], int]]:
        """Yields what was counted since the last time, in the terms of ``add_traffic``."""
        answered = self._answered.take()
        if self.arm == "challenger":
            answered += self._fallen_back.take()
        counts = {"predictions": answered, "failures": self.failures.take()}
        fallbacks = {why: count.take() for why, count in self._fallbacks.items()}
        late = sum(count for why, count in fallbacks.items() if why != "error")
        evidence = {"rows": answered, "requests": self._requests, "failures": self._failures, "late": late}
        self._requests = self._failures = 0
        evidence |= self._groups
        self._groups.clear()
        shadow = {outcome: count.take() for outcome, count in self.shadow.items()}
        evidence["unscored"] = shadow.get("failed", 0)
        evidence["disagreed"] = shadow.get("disagreed", 0)
        evidence["shadowed"] = shadow.get("agreed", 0) + evidence["disagreed"]
        counts |= {f"evidence.{self._revision}.{name}": count for name, count in evidence.items()}
        counts |= {f"fallbacks.{why}": count for why, count in fallbacks.items()}
        counts |= {f"seconds.{bucket}": count for bucket, count in self._seconds.take().items()}
        counts |= {f"confidence.{bucket}": count for bucket, count in self._confidence.take().items()}
        counts |= {TRAFFIC_NAMES[outcome]: count for outcome, count in shadow.items()}
        for name, count in counts.items():
            if count:
                yield (self.arm, self.version, name), count
