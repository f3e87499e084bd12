"""The steps from reviewed labels to a trial: each done once, and the next run goes on where one was killed."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from rollout.bundle.evidence import GateResult
from rollout.bundle.exchange import push_bundle
from rollout.bundle.manifest import SIGNATURE, Manifest, digest
from rollout.bundle.signing import sign_bundle
from rollout.bundle.storage import open_storage
from rollout.bundle.store import bundle_exists, open_bundle, replace_manifest, was_packed_here
from rollout.clock import utc_now
from rollout.errors import (
    BundleError,
    ConfigError,
    RolloutError,
    SplitConflictError,
    StorageError,
    StoreUnavailableError,
)
from rollout.improvement.labels import KeptLabels, export_new, look_at
from rollout.improvement.trial import Wanted, last_policy, put_on_trial, was_on_trial
from rollout.routing.improvement import Attempt, Done, Improvement, Step, read_improvement, write_improvement
from rollout.routing.split import Split
from rollout.routing.splits import read_split
from rollout.store import Redis
from rollout.training.again import declared, knowing, next_name, trained_again
from rollout.training.build import build_version
from rollout.training.gate import run_gate
from rollout.training.kept import keep_trainings, tidy
from rollout.training.labels import add_labels, learnt_from
from rollout.training.recipe import Recipe, load_recipe
from rollout.training.runs import Progress

# A step that was begun so often and never ended is not begun again: it may need more memory than there is.
MOST_TRIES = 5
PASSED = ("better", "not worse")

T = TypeVar("T")


class Settings(NamedTuple):
    """How the next version is made.

    Attributes:
        model: The model.
        models: Folder of the recipes.
        home: ``ROLLOUT_HOME``.
        least: Fewest labels that are new, for an attempt to begin.
        again: Whether one begins whatever is new.
        of: The version of the recipe; without it, that of the champion.
        seeds: Trainings of the gate.
        margin: The gate's.
        bundles: Where replicas fetch bundles from, if they do.
        sign: The private key that signs, if any.
        public_key: The key by which bundles must be signed, if any.
        wanted: How it goes on trial.
        by: Who it is.
    """

    model: str
    models: Path
    home: Path
    least: int
    again: bool
    of: str | None
    seeds: int
    margin: float | None
    bundles: str | None
    sign: Path | None
    public_key: Path | None
    wanted: Wanted
    by: str


class NothingToDoError(Exception):
    """There is nothing to do now, and why."""


class TakenOverError(Exception):
    """Another run has the lock: this one was silent for too long."""


class _EndedError(Exception):
    """An attempt is at its end, and another run on the same labels would come to the same."""

    def __init__(self, outcome: Any, why: str, todo: str) -> None:
        super().__init__(why)
        self.outcome, self.why, self.todo = outcome, why, todo


class Improving:
    """One run. Between its steps everything is in Redis, and a step that was killed is begun again.

    Args:
        settings: How.
        call: Runs something on Redis.
        owner: Who holds the lock; what is written is refused once they do not.
        say: Is told each step in a line.
        on_progress: Is told how far a training is.
    """

    def __init__(
        self,
        settings: Settings,
        call: Callable[[Callable[[Redis], Awaitable[Any]]], Any],
        owner: str,
        say: Callable[[str], None],
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._settings, self._call, self._owner = settings, call, owner
        self._say, self._on_progress = say, on_progress
        self._model = settings.model
        self._trained = settings.home.resolve() / "training" / self._model / "improve"
        self._labels = KeptLabels(
            settings.home, self._model, None if settings.bundles is None else open_storage(settings.bundles)
        )

    def run(self) -> Attempt:
        """Begins an attempt, or goes on with the one that is open, and returns it at its end.

        Raises:
            NothingToDoError: If too few labels are new, or a trial is running.
            StoreUnavailableError: If Redis does not answer; the next run goes on.
            StorageError: If the storage does not answer, likewise.
            TakenOverError: If another run has taken over.
            ConfigError: If there is no split or no recipe.
        """
        split = self._split()
        self._state: Improvement = self._call(lambda redis: read_improvement(redis, self._model))
        attempt = self._state.open
        if attempt is not None and self._call(lambda redis: was_on_trial(redis, self._model, attempt.version)):
            return self._on_trial(attempt)  # killed between the trial and its note
        self._require_idle(split)
        attempt = attempt or self._begin(split)
        try:
            return self._finish(attempt)
        except _EndedError as end:
            return self._end(end.outcome, end.why, end.todo)
        except (StoreUnavailableError, StorageError):
            raise
        except RolloutError as error:
            return self._end("failed", error.detail, self._remedy())
        except (NothingToDoError, TakenOverError):
            raise
        except Exception as error:
            self._note(why=f"{type(error).__name__}: {error}"[:1000], todo=traceback.format_exc()[-4000:])
            raise

    @property
    def _attempt(self) -> Attempt:
        return self._state.attempts[-1]

    def _split(self) -> Split:
        split: Split | None = self._call(lambda redis: read_split(redis, self._model))
        if split is None:
            raise ConfigError(
                f"{self._model} has no split; `rollout split set {self._model} --champion VERSION` makes one"
            )
        return split

    def _begin(self, split: Split) -> Attempt:
        """Exports what is new, and keeps a name for the version: from here on, an attempt is open."""
        champion = open_bundle(f"{self._model}:{split.champion}")[1]
        of = self._settings.of or declared(champion)
        recipe, taught = self._with_champion(self._recipe(), split.champion)
        recipe.version(of)
        found = self._call(lambda redis: export_new(redis, self._model, self._state.cursor, self._settings.by))
        if found.labels < self._settings.least and not self._settings.again:
            raise NothingToDoError(
                f"{found.labels:,} labels are new, and {self._settings.least:,} are wanted: nothing is trained"
            )
        known = [*taught.get(split.champion, {}).values()]  # perhaps given by hand, and not to be forgotten
        exports = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in known}
        exports |= self._state.exports
        if found.content:
            exports |= self._labels.keep(found.content)
        if not exports:
            raise NothingToDoError(f"nobody has decided on any item of {self._model}: nothing is trained")
        taken = {*recipe.versions, *(attempt.version for attempt in self._state.attempts)}
        name = next_name(of, self._state.number + 1, taken)
        while bundle_exists(f"{self._model}:{name}"):
            taken.add(name)
            name = next_name(of, self._state.number + 1, taken)
        attempt = Attempt(
            version=name,
            of=of,
            against=split.champion,
            labels=found.labels,
            exports=exports,
            began=utc_now(),
        )
        self._state = self._state.begin(attempt, found.cursor)
        self._store()
        self._say(f"{name} is {of} trained again, on {found.labels:,} new labels")
        return attempt

    def _finish(self, attempt: Attempt) -> Attempt:
        self._tag = f"{self._model}:{attempt.version}"
        if attempt.tries >= MOST_TRIES:
            ended = f"it was begun {attempt.tries} times and never came to its end"
            raise _EndedError(
                "failed",
                f"{ended}{': ' if attempt.why else ''}{attempt.why}",
                "Look whether the machine has the memory and the time for it, then " + self._again(),
            )
        recipe = trained_again(self._recipe(), attempt.version, attempt.of)
        recipe, champion_exports = self._with_champion(recipe, attempt.against)
        self._trainings = keep_trainings(recipe, self._trained)
        self._exports = {attempt.version: self._labels.find(attempt.exports), **champion_exports}
        if attempt.has_done("training") and not bundle_exists(self._tag):  # another disk than the last time
            self._undo("training", "gate", "bundle")
        elif attempt.has_done("training") and digest(open_bundle(self._tag)[1]) != attempt.digest:
            raise self._built_elsewhere()
        self._step("labels", self._look_at_labels)
        self._step("training", self._train)
        while True:
            split = self._split()
            self._require_idle(split)
            if split.champion != self._attempt.against:
                self._say(f"{split.champion} is champion by now: the gate compares with that one")
                self._follow(split.champion)
            self._step("gate", self._gate)
            self._step("bundle", self._publish)
            try:
                self._begin_trial(split)
            except SplitConflictError:
                continue  # somebody else changed it meanwhile, and that stands
            return self._on_trial(self._attempt)

    def _require_idle(self, split: Split) -> None:
        """Leaves a trial alone that somebody began."""
        if split.challenger is not None:
            open_ = self._state.open
            waits = "" if open_ is None else f"; {open_.version} waits until it is over"
            raise NothingToDoError(f"{split.challenger} is on trial, which is left alone{waits}")

    def _step(self, step: Step, work: Callable[[], str]) -> None:
        """Does a step unless it is done."""
        if self._attempt.has_done(step):
            return
        self._note(tries=self._attempt.tries + 1)
        detail = work()
        done = Done(step=step, at=utc_now(), detail=detail)
        self._note(done=(*self._attempt.done, done), tries=0, why="", todo="")
        self._say(detail)

    def _undo(self, *steps: Step) -> None:
        self._note(done=tuple(done for done in self._attempt.done if done.step not in steps))

    def _look_at_labels(self) -> str:
        name = self._attempt.version
        self._say("looking at the labels")
        plain = self._trainings.load()
        look = look_at(
            self._trainings, name, plain, add_labels(plain, self._trainings, name, self._exports[name])
        )
        self._note(warnings=tuple(look.warnings))
        if look.stop and self._settings.again:  # somebody has looked at them
            self._note(warnings=(*look.warnings, f"{look.stop}."))
        elif look.stop:
            raise _EndedError(
                "failed",
                look.stop,
                f"Correct them in review, or take them back. Whether or not they are wrong, then {self._again()}",
            )
        for warning in look.warnings:
            self._say(warning)
        return f"labels: {look.used}"

    def _train(self) -> str:
        name = self._attempt.version
        if bundle_exists(self._tag):  # killed between the store and its note, if it is that one
            manifest = open_bundle(self._tag)[1]
            known = declared(manifest), learnt_from(manifest)
            if known != (self._attempt.of, self._attempt.exports) or not was_packed_here(manifest):
                raise self._built_elsewhere()
        else:
            manifest = build_version(
                self._trainings,
                name,
                self._say,
                self._exports[name],
                home=self._settings.home,
                on_progress=self._on_progress,
            )
        self._note(digest=digest(manifest))
        return f"{self._tag} is trained and packed: {', '.join(manifest.variants)}"

    def _built_elsewhere(self) -> BundleError:
        """What is wrong with a bundle of this name that may be anybody's, and would be signed here."""
        return BundleError(f"{self._tag} was built by somebody else meanwhile")

    def _gate(self) -> str:
        folder, manifest = open_bundle(self._tag)
        result = manifest.gate
        if result is None or result.against != self._attempt.against:
            (folder / SIGNATURE).unlink(missing_ok=True)  # ours, of another gate
            result = run_gate(
                self._trainings,
                self._attempt.version,
                self._attempt.against,
                seeds=self._settings.seeds,
                margin=self._settings.margin,
                on_step=self._say,
                labels=self._exports,
            )
            replace_manifest(msgspec.structs.replace(manifest, gate=result))
        if result.decision not in PASSED:
            raise _EndedError("refused", f"The gate says {result.decision}. {result.why}", self._remedy(result))
        return f"gate: {result.decision}. {result.why}"

    def _publish(self) -> str:
        """Signs the bundle and puts it where replicas fetch it, before a split names it."""
        folder = open_bundle(self._tag)[0]
        if self._settings.sign is not None and not (folder / SIGNATURE).exists():
            sign_bundle(folder, self._tag, self._settings.sign)
        if self._settings.public_key is not None:
            try:
                open_bundle(self._tag, self._settings.public_key)
            except BundleError as error:
                raise NothingToDoError(
                    f"{self._attempt.version} passed the gate and waits for its signature: {error.detail}"
                ) from None
        if self._settings.bundles is None:
            return f"{self._tag} is in the store of this machine, where it is served from"
        return push_bundle(self._tag, self._settings.bundles, self._settings.public_key)

    def _begin_trial(self, split: Split) -> None:
        self._note(tries=self._attempt.tries + 1)
        policy = self._settings.wanted.policy or self._call(lambda redis: last_policy(redis, self._model))
        why = f"{self._attempt.of} trained again on {self._attempt.labels:,} new labels"
        _, warnings = self._call(
            lambda redis: put_on_trial(
                redis,
                self._model,
                self._attempt.version,
                split,
                self._settings.wanted._replace(policy=policy),
                by=self._settings.by,
                why=why,
                key=self._settings.public_key,
            )
        )
        if warnings:
            self._note(warnings=(*self._attempt.warnings, *warnings))

    def _on_trial(self, attempt: Attempt) -> Attempt:
        if not attempt.has_done("trial"):
            detail = f"{attempt.version} is on trial: `rollout verdict {self._model}` says how it fares"
            done = Done(step="trial", at=utc_now(), detail=detail)
            self._note(done=(*attempt.done, done), tries=0)
            self._say(detail)
        return self._end("on trial", "", f"Watch it: `rollout split show {self._model}`, or the console.")

    def _end(self, outcome: Any, why: str, todo: str) -> Attempt:
        self._note(outcome=outcome, why=why, todo=todo, ended=utc_now())
        with suppress(RolloutError):  # of a recipe that is not there any more
            tidy(self._trained, self._attempt.version, self._recipe().seed)
        return self._attempt

    def _follow(self, champion: str) -> None:
        self._note(against=champion)
        self._undo("gate", "bundle")
        recipe, exports = self._with_champion(
            trained_again(self._recipe(), self._attempt.version, self._attempt.of), champion
        )
        self._trainings = keep_trainings(recipe, self._trained)
        self._exports |= exports

    def _with_champion(self, recipe: Recipe, champion: str) -> tuple[Recipe, Mapping[str, Mapping[str, Path]]]:
        """Adds the champion to a recipe that does not declare it, and finds the labels that it learnt from."""
        manifest: Manifest = open_bundle(f"{self._model}:{champion}")[1]
        known = knowing(recipe, manifest)
        needs_labels = known.version(champion).needs_labels
        return known, {champion: self._labels.find(learnt_from(manifest))} if needs_labels else {}

    def _recipe(self) -> Recipe:
        return load_recipe(self._settings.models / self._model)

    def _note(self, **changes: Any) -> None:
        self._state = self._state.with_last(msgspec.structs.replace(self._attempt, **changes))
        self._store()

    def _store(self) -> None:
        if not self._call(lambda redis: write_improvement(redis, self._model, self._state, self._owner)):
            raise TakenOverError

    def _again(self) -> str:
        return f"`rollout improve {self._model} --again`."

    def _remedy(self, gate: GateResult | None = None) -> str:
        if gate is None:
            return f"Once the reason is gone, {self._again()}"
        return (
            f"Nothing is on trial. `rollout report {self._tag}` shows the figures; look at the labels and the "
            f"warnings. More labels begin another attempt by themselves, and so does {self._again()}"
        )
