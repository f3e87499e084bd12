"""What Lightning calls while it trains: the steps of a module, and what is measured between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger

from rollout.bundle.schema import Labelled
from rollout.heads import Head
from rollout.training.batches import Batch, Batches, seed_all
from rollout.training.fit import Fit, Loss, height
from rollout.training.measuring import measure
from rollout.training.runs import Checks, Progress
from rollout.training.symptoms import Watched, answering_fault, trained, training_fault

FIRST_STEPS = 20  # of which every loss and gradient is kept; later on those of the first step of a virtual epoch
SHOW_EVERY_S = 0.2


class Steps(LightningModule):
    """A module with its loss, its optimizer and its schedule, as Lightning takes them.

    Args:
        module: The module.
        fit: How it is trained.
        loss: What it is trained with; takes what the module returns and the targets of a batch.
        steps: Steps of the schedule.
        learning_rate: Of the first step after the warm-up.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        fit: Fit,
        loss: Callable[[Any, Any], torch.Tensor],
        steps: int,
        learning_rate: float,
    ) -> None:
        super().__init__()
        self.module, self.learning_rate = module, learning_rate
        self._fit, self._steps = fit, steps
        self._losses = (loss,)  # in a tuple, a loss that is a module is no part of this one

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Returns the loss of a batch."""
        return self._losses[0](self.module(*batch.inputs), batch.targets)

    def configure_optimizers(self) -> Any:
        """Makes the optimizer, and the schedule that is stepped after each of its steps."""
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]
        optimizer = self._fit.optimizer(weights, self.learning_rate)
        schedule, warmup = self._fit.schedule, self._fit.warmup
        scheduler = (
            torch.optim.lr_scheduler.LambdaLR(optimizer, height(schedule, warmup, self._steps))
            if isinstance(schedule, str)
            else schedule(optimizer, self._steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Watch(Callback):
    """Sees to it that a virtual epoch follows from its number alone, validates after it, and keeps what was seen.

    Args:
        module: What is validated.
        batches: The batches of an epoch.
        validation: The rows of validation.
        loss: What the module is trained with.
        task: What it answers.
        seed: Decides on all random numbers, with the number of the epoch.
        steps: Steps of the whole training.
        on_progress: Called now and then.
        on_check: Called after each validation with all checks until then.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        batches: Batches,
        validation: Labelled,
        loss: Loss,
        task: Head,
        seed: int,
        steps: int,
        on_progress: Callable[[Progress], None],
        on_check: Callable[[Checks], None],
    ) -> None:
        self.watched = Watched.nothing()
        self._module, self._batches, self._validation = module, batches, validation
        self._loss, self._task, self._seed, self._steps = loss, task, seed, steps
        self._on_progress, self._on_check = on_progress, on_check
        self._shown, self._sum, self._count = 0.0, torch.zeros(()), 0
        self._names = trained(module)

    def state_dict(self) -> dict[str, Any]:
        """Returns what was seen, for a training that goes on."""
        return self.watched._asdict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what was seen before a training was interrupted."""
        self.watched = Watched(**state_dict)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Says in the checkpoint that the virtual epoch is over, after which nothing of it is done again.

        Lightning saves while it calls what ends an epoch, and would call it again.
        """
        loop = checkpoint["loops"]["fit_loop"]
        for count in loop["epoch_progress"].values():
            count["completed"] = count["processed"]
        batches = loop["epoch_loop.batch_progress"]
        batches["is_last_batch"] = False
        for progress in (batches, loop["epoch_loop.scheduler_progress"]):
            progress["current"] = dict.fromkeys(progress["current"], 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends a training that was interrupted after it had come to its end."""
        if self.watched.checks and not np.isfinite(self.watched.checks[-1]["training_loss"]):
            trainer.should_stop = True
        for stopper in trainer.early_stopping_callbacks:
            if stopper.wait_count >= stopper.patience:
                trainer.should_stop = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seeds everything from the number of the virtual epoch."""
        epoch: int = trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        self._batches.epoch = epoch
        seed_all(self._seed, epoch)
        self._sum, self._count = torch.zeros((), device=pl_module.device), 0

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Keeps the size of the gradients of some steps, before they are clipped."""
        if trainer.global_step < FIRST_STEPS or self._count == 0:
            weights = dict(self._module.named_parameters())
            self.watched.gradients.append([_size(weights[name].grad) for name in self._names])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds up the loss; looks at the modes of the layers once."""
        loss = outputs["loss"].detach() if isinstance(outputs, dict) else outputs.detach()
        if self._count == 0 and not self.watched.modes:
            self.watched.modes.append(training_fault(self._module))
        self._sum, self._count = self._sum + loss, self._count + 1
        if trainer.global_step <= FIRST_STEPS:
            self.watched.losses.append(float(loss))
        if (now := time.monotonic()) - self._shown > SHOW_EVERY_S:
            self._shown = now
            before = self.watched.checks[-1]["validation_loss"] if self.watched.checks else float("nan")
            self._on_progress(Progress(trainer.global_step, self._steps, float(loss), before))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validates, and logs what came of it."""
        figures = {"training_loss": float(self._sum) / max(1, self._count)}
        if len(self.watched.modes) == 1:
            self.watched.modes.append(answering_fault(self._module, self._validation))
        measured = measure(self._module, self._validation, self._loss, self._task)
        figures |= {"validation_loss": measured.loss, "validation_error": float(measured.errors.mean())}
        rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
        figures |= {"learning_rate": float(rates[0])}
        for name in ("training_loss", "validation_loss", "validation_error"):
            pl_module.log(name, figures[name], logger=False)
        if isinstance(trainer.logger, TensorBoardLogger):
            trainer.logger.log_metrics(figures, trainer.global_step)
        self.watched.checks.append({"step": float(trainer.global_step), **figures})
        if not np.isfinite(figures["training_loss"]):
            trainer.should_stop = True
        self._on_check(self.watched.checks)


def _size(gradient: torch.Tensor | None) -> float:
    """Returns the root mean square of a gradient; 0 where none came."""
    return 0.0 if gradient is None else float(gradient.detach().float().norm()) / gradient.numel() ** 0.5
