"""Fitting: a module trained by Lightning, as its `Fit` says, and looked at before, meanwhile and afterwards."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.tuner.tuning import Tuner
from pytorch_lightning.utilities.model_helpers import is_overridden

from rollout.bundle.evidence import Finding
from rollout.bundle.fields import Field
from rollout.bundle.schema import InputSchema, Labelled
from rollout.errors import BundleError, ConfigError
from rollout.heads import Head
from rollout.heads.structured import joined
from rollout.training.augmentation import in_turn
from rollout.training.batches import SYNTHETIC, Batches, seed_all, set_aside
from rollout.training.distilling import Teacher, student_loss, taught_by
from rollout.training.fit import FIND, Fit
from rollout.training.loop import Steps, Watch
from rollout.training.losses import loss_of
from rollout.training.runs import CURVES, Checks, Fitted, Run
from rollout.training.symptoms import Watched, judge_training, judge_validation, overfits
from rollout.whole_file import write_whole

FOUND_IN = 100  # steps in which the learning rate is looked for
BELOW_LOWEST = 10
AVERAGED = 9
BEST = 3
LAST, DONE, RATE, RATE_PLOT = "last.ckpt", "done.json", "learning_rate.json", "learning_rate.png"


class _Done(msgspec.Struct, frozen=True, kw_only=True):
    """What the folder of a finished training says.

    Attributes:
        best: The file of the best checkpoint.
        findings: See ``Fitted``.
        figures: See ``Fitted``.
        checks: See ``Fitted``.
    """

    best: str
    findings: list[Finding]
    figures: dict[str, Any]
    checks: Checks = []


def fit_module(
    fit: Fit,
    task: Head,
    fields: Mapping[str, Field],
    part: Labelled,
    hyperparameters: Mapping[str, Any],
    seed: int,
    run: Run,
    teacher: Teacher | None = None,
) -> Fitted:
    """Trains a module, or goes on where a training of the same folder was interrupted.

    Args:
        fit: The module and how it is trained.
        task: What it answers.
        fields: The input schema, in the order of ``forward``'s arguments.
        part: The training part.
        hyperparameters: Those of the version; what is a setting of ``fit`` takes the place of that.
        seed: Decides on everything that is random.
        run: Where and how it runs.
        teacher: Whose student it is, if anybody's.

    Raises:
        ConfigError: If there is no loss for the task, or no row for validation.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_hushed())
        folder = run.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rollout-fit-")))
        folder.mkdir(parents=True, exist_ok=True)
        fit = fit.with_hyperparameters(hyperparameters)
        return _Training(fit, task, fields, part, seed, run, folder, teacher).fitted(hyperparameters)


class _Training:
    """One training, in its folder."""

    def __init__(
        self,
        fit: Fit,
        task: Head,
        fields: Mapping[str, Field],
        part: Labelled,
        seed: int,
        run: Run,
        folder: Path,
        teacher: Teacher | None,
    ) -> None:
        self.fit, self.task, self.fields, self.seed, self.run, self.folder = fit, task, fields, seed, run, folder
        self.learnt, self.validation = set_aside(part.only(fields), fields, fit.validation)
        self.loss = loss_of(fit.loss, task, self.learnt.targets)
        self.learnt_loss: Callable[[Any, Any], torch.Tensor] = self.loss
        made = self._synthetic()
        rows = len(made.targets)
        self.steps = fit.total_steps(rows)
        self.soft = None
        if teacher is not None:
            self.soft = taught_by(teacher, made.inputs, folder, run.on_step)
            self.learnt_loss = student_loss(self.loss, task, fit.temperature, fit.soft)
        between = min(self.steps, fit.steps_between_checks(rows))
        self.batches = Batches(made, fit.batch, between, seed, in_turn(fit.augment), self.soft)
        self.synthetic_rows = rows - len(self.learnt.targets)

    def _synthetic(self) -> Labelled:
        """Returns the rows that are learnt from with those that the author's function makes."""
        if self.fit.synthetic is None:
            return self.learnt
        rows = self.fit.synthetic(self.learnt, np.random.default_rng([self.seed, SYNTHETIC]))
        try:
            count = InputSchema(self.fields).check_arrays(rows.inputs)
            self.task.check_targets(rows.targets)
        except BundleError as error:
            raise ConfigError(f"the rows of Fit(synthetic=…) do not fit: {error.detail}") from None
        if count != len(rows.targets):
            raise ConfigError("the rows of Fit(synthetic=…) have other numbers of inputs and of targets")
        inputs = {
            name: np.concatenate([column, rows.inputs[name]]) for name, column in self.learnt.inputs.items()
        }
        return Labelled(inputs, joined(self.learnt.targets, rows.targets))

    def fitted(self, hyperparameters: Mapping[str, Any]) -> Fitted:
        """Trains, unless that was done before."""
        seed_all(self.seed, -1 % 2**32)
        module = self.fit.module(self.learnt, hyperparameters)
        if (self.folder / DONE).is_file():
            done = msgspec.json.decode((self.folder / DONE).read_bytes(), type=_Done)
            self.run.on_step("it was trained before, to the end")
            module = self._with_weights(module, self.folder / done.best)
            return Fitted(module, done.findings, done.figures, done.checks)
        last = self._last()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        findings: list[Finding] = []
        if self.run.checks:
            self.run.on_step("trying whether it learns a few rows by heart")
            findings += overfits(module.to(device), self.learnt, self.fields, self.loss, self.task)
        lightning = self._lightning(module)
        best, watched = self._train(module, lightning, last)
        module = self._with_weights(module, best)
        at = min(watched.checks, key=lambda check: np.nan_to_num(check["validation_loss"], nan=np.inf))
        figures = {
            "steps": int(watched.checks[-1]["step"]),
            "most_steps": self.steps,
            "best_step": int(at["step"]),
            "checks": len(watched.checks),
            "validation_rows": len(self.validation.targets),
            "synthetic_rows": self.synthetic_rows,
            **{name: at[name] for name in ("training_loss", "validation_loss", "validation_error")},
        }
        if isinstance(lightning, Steps):
            figures["learning_rate"] = lightning.learning_rate
        if self.run.checks:
            findings += judge_training(watched, module)
            findings += judge_validation(
                module, self.learnt, self.validation, self.run.baselines, self.loss, self.task
            )
        name = str(best.relative_to(self.folder))
        # JSON has no other numbers than finite ones.
        checks = [{key: each for key, each in check.items() if np.isfinite(each)} for check in watched.checks]
        done = _Done(best=name, findings=findings, figures=figures, checks=checks)
        write_whole(self.folder / DONE, msgspec.json.encode(done))
        return Fitted(module, findings, figures, watched.checks)

    def _lightning(self, module: torch.nn.Module) -> LightningModule:
        if isinstance(module, LightningModule):
            if self.soft is not None:
                raise ConfigError("a LightningModule has its own loss: a student is a module, or has no teacher")
            if self.fit.learning_rate == FIND:
                raise ConfigError(
                    "the learning rate of a LightningModule is its own: leave out Fit(learning_rate='find')"
                )
            return module
        rate = self.fit.learning_rate
        if isinstance(rate, str):
            rate = self._found_rate(module)
        return Steps(module, self.fit, self.learnt_loss, self.steps, rate)

    def _train(
        self, module: torch.nn.Module, lightning: LightningModule, last: Path | None
    ) -> tuple[Path, Watched]:
        watch = Watch(
            module,
            self.batches,
            self.validation,
            self.loss,
            self.task,
            self.seed,
            self.steps,
            self.run.on_progress,
            self.run.on_check,
        )
        best = ModelCheckpoint(
            dirpath=self.folder,
            filename="best-{step}",
            monitor="validation_loss",
            save_top_k=BEST,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        every = ModelCheckpoint(
            dirpath=self.folder,
            filename=LAST.removesuffix(".ckpt"),
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        callbacks: list[Callback] = [watch, best, every]
        if self.fit.patience is not None:
            callbacks.append(
                EarlyStopping("validation_loss", patience=self.fit.patience, check_on_train_epoch_end=True)
            )
        if last is not None:
            self.run.on_step("going on with the training that was interrupted")
        trainer = self._trainer(callbacks, self.steps, self._curves(last))
        own = is_overridden("validation_step", lightning)
        rows = Batches(self.validation, self.fit.batch, -(-len(self.validation.targets) // self.fit.batch), 0)
        trainer.fit(lightning, self.batches, rows if own else None, ckpt_path=last)
        lightning.trainer = None
        if not best.best_model_path:
            return self.folder / LAST, watch.watched
        return Path(best.best_model_path), watch.watched

    def _trainer(self, callbacks: list[Callback], steps: int, logger: TensorBoardLogger | None) -> Trainer:
        on_gpu = torch.cuda.is_available()
        mixed = "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "16-mixed"
        return Trainer(
            accelerator="gpu" if on_gpu else "cpu",
            devices=1,
            precision=self.fit.precision or (mixed if on_gpu else "32-true"),  # type: ignore[arg-type]
            max_steps=steps,
            gradient_clip_val=self.fit.clip,
            deterministic=True,
            callbacks=callbacks,
            logger=logger or False,
            enable_checkpointing=any(isinstance(each, ModelCheckpoint) for each in callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            default_root_dir=self.folder,
        )

    def _curves(self, last: Path | None) -> TensorBoardLogger | None:
        if self.run.folder is None:
            return None
        step = None if last is None else torch.load(last, map_location="cpu")["global_step"] + 1
        return TensorBoardLogger(self.folder, name="", version=CURVES, purge_step=step)

    def _last(self) -> Path | None:
        """Returns the last checkpoint, if there is one that is whole."""
        last = self.folder / LAST
        if not last.is_file():
            return None
        try:
            torch.load(last, map_location="cpu")
        except Exception:  # whatever is wrong with it
            self.run.on_step(f"{last} cannot be read: training starts anew")
            return None
        return last

    def _found_rate(self, module: torch.nn.Module) -> float:
        """Looks for a learning rate: a tenth of the one with the lowest loss.

        The range test is that of Smith, "Cyclical Learning Rates for Training Neural Networks" (2017); the
        steepest descent that Lightning suggests is often noise.
        """
        if (self.folder / RATE).is_file():
            return msgspec.json.decode((self.folder / RATE).read_bytes(), type=float)
        self.run.on_step("looking for a learning rate")
        seed_all(self.seed, 0)
        steps = Steps(copy.deepcopy(module), self.fit, self.learnt_loss, FOUND_IN, 1e-3)
        soft = None if self.soft is None else self.soft[: len(self.learnt.targets)]
        batches = Batches(self.learnt, self.fit.batch, FOUND_IN, self.seed, soft=soft)
        with contextlib.redirect_stderr(io.StringIO()):  # it draws a bar of its own
            finder = Tuner(self._trainer([], FOUND_IN, None)).lr_find(
                steps, batches, num_training=FOUND_IN, min_lr=1e-6, max_lr=1.0
            )
        rate = None if finder is None else lowest(finder.results["lr"], finder.results["loss"])
        if finder is None or rate is None:
            raise ConfigError("no learning rate could be found: give one in Fit(learning_rate=…)")
        rate /= BELOW_LOWEST
        import matplotlib.pyplot as plt  # noqa: PLC0415  takes a second, and is not needed otherwise

        figure = finder.plot()
        if figure is not None:
            figure.axes[0].axvline(rate, color="tab:red", label=f"{rate:.2g}")
            figure.axes[0].legend()
            figure.savefig(self.folder / RATE_PLOT)
            plt.close(figure)
        write_whole(self.folder / RATE, msgspec.json.encode(rate))
        return rate

    def _with_weights(self, module: torch.nn.Module, checkpoint: Path) -> torch.nn.Module:
        weights = torch.load(checkpoint, map_location="cpu")["state_dict"]
        if not isinstance(module, LightningModule):
            weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
        module.load_state_dict(weights)
        return module.cpu().eval()


def lowest(rates: Sequence[float], averages: Sequence[float], beta: float = 0.98) -> float | None:
    """Returns the learning rate at which the loss was lowest; ``None`` where too few losses are known.

    Args:
        rates: Learning rates, rising.
        averages: For each, the loss as Lightning's finder has it: the exponential average over all steps until
            then, which is far behind. It is taken apart, and averaged over a few steps on either side instead.
        beta: The decay of that average.
    """
    sums = np.asarray(averages) * (1 - beta ** np.arange(1, len(averages) + 1))
    losses = np.diff(sums * beta ** -np.arange(len(sums)), prepend=0) * beta ** np.arange(len(sums))
    losses = losses[np.isfinite(losses)]
    if len(losses) < AVERAGED:
        return None
    smooth = np.convolve(losses, np.ones(AVERAGED) / AVERAGED, mode="valid")
    return float(rates[int(smooth.argmin()) + AVERAGED // 2])


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keeps Lightning from saying what it is about to do, and from warning of what is meant here."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric|lightning_utilities")
            warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
