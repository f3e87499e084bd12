"""Tracking: a run told to every tracker that is configured, of which none can delay or end it."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import secrets
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rollout.bundle.evidence import GateResult
from rollout.bundle.lineage import by_head, describe_surroundings, part_of
from rollout.bundle.manifest import FILE_NAME, SIGNATURE, Manifest
from rollout.bundle.report import describe
from rollout.bundle.report_page import render
from rollout.bundle.store import bundle_path
from rollout.training.runs import CURVES, Checks
from rollout.training.tracker import Outcome, Told, Tracker
from rollout.whole_file import write_whole

KEY = "run.txt"
LINEAGE = "tracking"
PICTURES = (".svg", ".png")
# What a run was told to do, and not where and on what.
SETTINGS = ("hyperparameters.", "training.", "seeds.")
LONGEST_WHY = 300
LONGEST_ENTRY = 2000
USER_AND_PASSWORD = re.compile(r"(?<=://)[^/\s]+@")
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "WANDB_API_KEY")

logger = logging.getLogger(__name__)


class Tracking:
    """One run, told to several trackers.

    Args:
        trackers: Where it is told.

    Attributes:
        lineage: What the lineage of its bundle says of it, by tracker.
    """

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.lineage: dict[str, dict[str, str]] = {}
        self._trackers = list(trackers)
        self._late: set[Tracker] = set()
        self._missed: list[Path] = []

    def start(self, told: Told) -> None:
        """Opens it everywhere; a tracker that cannot is told nothing any more."""

        def start(tracker: Tracker) -> None:
            if entry := tracker.start(told):
                if sum(map(len, entry.values())) > LONGEST_ENTRY:  # which the manifest has, too
                    raise ValueError(f"what it calls the run has more than {LONGEST_ENTRY:,} characters")
                self.lineage[tracker.name] = entry

        started = [tracker for tracker in self._trackers if _done(tracker, start, "the run is not tracked there")]
        self._trackers = started

    def check(self, checks: Checks) -> None:
        """Tells all checks until now; where that fails, the next call tells those that are missing."""
        for tracker in self._trackers:
            try:
                tracker.check(checks)
            except Exception as error:
                if tracker not in self._late:
                    self._late.add(tracker)
                    _say(tracker, error, "the curves follow when it answers")

    def trained(self, checks: Checks, figures: Mapping[str, Any], folder: Path | None) -> None:
        """Tells what came of the training, and shows the pictures in its folder."""
        pictures = [] if folder is None else sorted(folder.glob("*.png"))

        def tell(tracker: Tracker) -> None:
            tracker.check(checks)
            tracker.tell(_of_fit(figures), pictures)

        for tracker in self._trackers:
            if not _done(tracker, tell, "what came of the training is told with the bundle"):
                self._missed = pictures

    def packed(self, manifest: Manifest) -> None:
        """Tells of the bundle that it led to, with which it is over."""
        figures = _of_fit(part_of(manifest.lineage, "fit")) | manifest.metrics

        def finish(tracker: Tracker) -> None:
            place = bundle_path(manifest.tag)
            pictures = [place / name for name in manifest.hashes if name.endswith(PICTURES)]
            tracker.pack(manifest)
            with tempfile.TemporaryDirectory(prefix="rollout-report-") as temporary:
                page = Path(temporary, "report.html")
                is_signed = (place / SIGNATURE).exists()
                page.write_text(render(describe(manifest, is_signed=is_signed), place), "utf-8")
                tracker.tell(figures, [page, place / FILE_NAME, *pictures, *self._missed])
            tracker.end("FINISHED")

        for tracker in self._trackers:
            _done(tracker, finish, "the next `rollout build` of this version tells there how the run ended")
        self._trackers = []

    def complete(self, manifest: Manifest) -> None:
        """Tells the end of the run of a bundle, if a kill or a tracker that was away kept it from being told."""
        entries = part_of(manifest.lineage, LINEAGE)
        waiting = []

        def look(tracker: Tracker) -> None:
            if tracker.name in entries and tracker.reopen(entries[tracker.name]):
                waiting.append(tracker)

        for tracker in self._trackers:
            _done(tracker, look, "whether it knows how the run ended cannot be seen")
        self._trackers = waiting
        if waiting:
            self.packed(manifest)

    def gated(self, manifest: Manifest, gate: GateResult) -> None:
        """Tells how a bundle compared with the champion, where its run is."""
        entries = part_of(manifest.lineage, LINEAGE)
        figures = {
            "gate.seeds": float(gate.seeds),
            "gate.candidate": gate.candidate.mean,
            "gate.candidate_deviation": gate.candidate.deviation,
            "gate.champion": gate.champion.mean,
            "gate.champion_deviation": gate.champion.deviation,
        }
        tags = {"rollout.gate": gate.decision, "rollout.gate_against": gate.against}

        def add(tracker: Tracker) -> None:
            if tracker.name in entries:
                tracker.add(entries[tracker.name], figures, tags)

        for tracker in self._trackers:
            _done(tracker, add, "the gate is not told there")

    def end(self, outcome: Outcome, why: str = "") -> None:
        """Tells how it ended, where there is no bundle."""
        for tracker in self._trackers:
            _done(tracker, lambda each: each.end(outcome, why), "how the run ended is not told there")
        self._trackers = []

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.end("FAILED" if isinstance(error, Exception) else "KILLED", _in_a_line(error))


def make_trackers(folder: Path | None) -> list[Tracker]:
    """Returns where runs are told: TensorBoard files in the folder of a run, and what the environment names."""
    trackers: list[Tracker] = []
    if folder is not None and importlib.util.find_spec("tensorboard") is not None:
        from rollout.training.tensorboard_tracker import TensorBoardTracker  # noqa: PLC0415  imports TensorBoard

        trackers.append(TensorBoardTracker(folder / CURVES))
    if os.environ.get("MLFLOW_TRACKING_URI"):
        from rollout.training.mlflow_tracker import MlflowTracker  # noqa: PLC0415  changes its settings

        trackers.append(MlflowTracker())
    if os.environ.get("WANDB_PROJECT"):
        from rollout.training.wandb_tracker import WandbTracker  # noqa: PLC0415

        trackers.append(WandbTracker(folder))
    return trackers


def describe_run(model: str, version: str, lineage: Mapping[str, Any], folder: Path | None) -> Told:
    """Returns what is known of the training of a version before it starts.

    Args:
        model: The model.
        version: The version.
        lineage: Its seeds, data and hyperparameters.
        folder: Where the training is kept, and with it what its run is found by.
    """
    surroundings = describe_surroundings()
    facts = {"command": shlex.join(surroundings["command"]), "by": surroundings["by"]}
    for head in by_head({**surroundings, **lineage}).values():
        facts |= {name: value for name, value in head.items() if value is not None}
    settings = {name: facts.pop(name) for name in list(facts) if name.startswith(SETTINGS)}
    return Told(_key(folder), model, version, settings, facts)


def _key(folder: Path | None) -> str:
    """Returns the key of the run of a folder: written before anybody knows of it, it is never another one."""
    if folder is None:
        return secrets.token_hex(16)
    file = folder / KEY
    if not file.is_file():
        write_whole(file, secrets.token_hex(16).encode())
    return file.read_text()


def _of_fit(figures: Mapping[str, Any]) -> dict[str, float]:
    return {f"fit.{name}": float(each) for name, each in figures.items() if isinstance(each, int | float)}


def _done(tracker: Tracker, call: Callable[[Tracker], object], otherwise: str) -> bool:
    """Calls a tracker, and says in a line what it raises; returns whether it raised nothing."""
    try:
        call(tracker)
    except Exception as error:
        _say(tracker, error, otherwise)
        return False
    return True


def _say(tracker: Tracker, error: Exception, outcome: str) -> None:
    remedy = f"; {tracker.remedy}" if tracker.remedy else ""
    logger.warning("%s: %s: %s%s", tracker.name, outcome, _in_a_line(error), remedy)


def _in_a_line(error: BaseException) -> str:
    """Returns what an error says, without what it must not tell."""
    text = USER_AND_PASSWORD.sub("", str(error) or type(error).__name__)
    for name in SECRETS:
        if secret := os.environ.get(name):
            text = text.replace(secret, "…")
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_WHY else f"{text[: LONGEST_WHY // 2]} … {text[-LONGEST_WHY // 2 :]}"
