"""What there is to know about a model, read from Redis; what the engine knows where that does not answer."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollout.errors import StoreUnavailableError
from rollout.inference.served_model import ServedModel
from rollout.routing.assignment import CHALLENGER_START, Arm, describe
from rollout.routing.drift import read_drift
from rollout.routing.improvement import Attempt, read_improvement
from rollout.routing.split import Split
from rollout.routing.splits import Quarantined, read_history, read_quarantine, read_split
from rollout.routing.traffic import TICK_S, ArmTraffic, Worker, read_traffic, read_workers
from rollout.store import Redis
from service.console import phrases
from service.console.charts import Histogram, histograms
from service.console.drift import DriftPanel, panel
from service.console.trial import TrialView, read_trial_view

WINDOW_S = 300
SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class ArmView:
    """One arm, as a column of the table.

    Attributes:
        arm: Its name.
        version: The version that it gets.
        share: Its share of the clients, before rules.
        traffic: What it answered lately.
        histogram: With which confidences.
    """

    arm: Arm
    version: str
    share: float
    traffic: ArmTraffic
    histogram: Histogram


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """What there is to know about a model.

    Attributes:
        model: Its name.
        split: Its split: of Redis, or the one that this worker serves.
        at: When this was read, as a time of day in UTC.
        window_s: Over how many seconds traffic is added up.
        traffic: What was answered lately, by arm and version.
        workers: Who serves it.
        quarantine: Versions that were rolled back.
        history: The latest changes, newest first.
        ungated: The challenger, if no gate was run on it.
        trial: What is known of the trial, if there is one.
        attempt: The last attempt to make a version of labels, if there was one.
        drift: What the last look at live rows found.
        online: Whether Redis answered.
    """

    model: str
    split: Split
    at: str
    window_s: float = WINDOW_S
    traffic: Sequence[ArmTraffic] = ()
    workers: Sequence[Worker] = ()
    quarantine: Sequence[Quarantined] = ()
    history: Sequence[phrases.Entry] = ()
    ungated: str | None = None
    trial: TrialView | None = None
    attempt: Attempt | None = None
    drift: DriftPanel | None = None
    online: bool = True

    @property
    def arms(self) -> list[ArmView]:
        """The arms of the split, each with its traffic."""
        split = self.split
        arms: list[tuple[Arm, str, float]] = [("champion", split.champion, 1 - 2 * split.share)]
        if split.challenger is not None:
            arms.append(("control", split.champion, split.share))
            arms.append(("challenger", split.challenger, split.share))
        known = {(one.arm, one.version): one for one in self.traffic}
        traffic = [known.get((arm, version)) or ArmTraffic(arm=arm, version=version) for arm, version, _ in arms]
        return [
            ArmView(arm=arm, version=version, share=round(share, 9), traffic=one, histogram=histogram)
            for (arm, version, share), one, histogram in zip(arms, traffic, histograms(traffic), strict=True)
        ]

    @property
    def former(self) -> list[ArmTraffic]:
        """Traffic of versions that an arm had until lately."""
        current = {(arm.arm, arm.version) for arm in self.arms}
        return [one for one in self.traffic if (one.arm, one.version) not in current and one.predictions]

    @property
    def predictions(self) -> int:
        """Rows answered lately, on all arms."""
        return sum(one.predictions for one in self.traffic)

    @property
    def shadow(self) -> ArmTraffic:
        """What became of the others' rows that the challenger scored unseen."""
        total = ArmTraffic(arm="challenger", version=self.split.challenger or "")
        for one in self.traffic:
            if one.arm == "challenger" or one.version != self.split.champion:
                continue
            total.agreed += one.agreed
            total.disagreed += one.disagreed
            total.shadow_failed += one.shadow_failed
            total.shadow_dropped += one.shadow_dropped
        return total

    @property
    def ranges(self) -> list[tuple[Arm, float, float]]:
        """Where on the line from 0 to 1 control and challenger lie: start and width."""
        if self.split.challenger is None:
            return []
        return [("control", 0, self.split.share), ("challenger", CHALLENGER_START, self.split.share)]

    @property
    def current(self) -> int:
        """How many workers follow this revision."""
        return sum(worker.revision == self.split.revision for worker in self.workers)

    @property
    def following(self) -> str:
        """How many workers follow, in words."""
        return phrases.following(self.workers, self.split.revision)

    @property
    def troubles(self) -> list[tuple[Worker, str]]:
        """The workers that something is wrong with, and what."""
        found = ((worker, phrases.trouble(worker, self.split.revision)) for worker in self.workers)
        return [(worker, trouble) for worker, trouble in found if trouble]

    @property
    def rules(self) -> list[str]:
        """The rules in words."""
        return [describe(rule) for rule in self.split.rules]


async def read_dashboard(redis: Redis, served: ServedModel) -> Dashboard:
    """Reads what there is to know about a model.

    Args:
        redis: Connection.
        served: The model as this worker serves it, which is what is shown while Redis is away.
    """
    now = time.time()
    at = f"{datetime.datetime.fromtimestamp(now, datetime.UTC):%H:%M:%S}"
    name = served.name
    try:
        split = await read_split(redis, name) or served.split
        return Dashboard(
            model=name,
            split=split,
            trial=await read_trial_view(redis, name, split),
            drift=panel(await read_drift(redis, name)),
            at=at,
            window_s=WINDOW_S + now % TICK_S,
            traffic=await read_traffic(redis, name, WINDOW_S),
            workers=await read_workers(redis, name),
            quarantine=by_time(await read_quarantine(redis, name)),
            history=(await read_entries(redis, name, SHOWN)),
            ungated=_ungated(served),
            attempt=next(reversed((await read_improvement(redis, name)).attempts), None),
        )
    except StoreUnavailableError:
        return Dashboard(model=name, split=served.split, at=at, ungated=_ungated(served), online=False)


async def read_entries(redis: Redis, model: str, limit: int) -> list[phrases.Entry]:
    """Returns the latest changes of a split in words, newest first.

    Raises:
        StoreUnavailableError: If Redis does not answer.
    """
    splits = await read_history(redis, model, limit + 1)
    return phrases.history(splits, first_is_known=len(splits) <= limit)


def _ungated(served: ServedModel) -> str | None:
    """Returns the challenger that this worker serves, if no gate was run on it."""
    challenger = served.snapshot.challenger
    return challenger.version if challenger is not None and challenger.manifest.gate is None else None


def by_time(quarantine: Mapping[str, Quarantined]) -> list[Quarantined]:
    """Returns what is in quarantine, the latest first."""
    return sorted(quarantine.values(), key=lambda record: record.at, reverse=True)
