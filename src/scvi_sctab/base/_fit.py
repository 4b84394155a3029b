"""Training of a model by the trainer of scvi-tools, also if it fails or is interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from inspect import signature
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
from scvi.train import Trainer

from scvi_sctab._logging import logger, quiet_trainer, shows_progress
from scvi_sctab.base._devices import (
    check_processes,
    count_processes,
    divided_threads,
    for_processes,
    share_history,
    without_warning_of_ddp,
)
from scvi_sctab.base._host import keep_history
from scvi_sctab.base._training_state import Checkpoints, KeepTraining
from scvi_sctab.data import check_arguments
from scvi_sctab.sparse import sleeping_threads
from scvi_sctab.train import RestoreBestWeights, SyncProcesses

if TYPE_CHECKING:
    from scvi.train import TrainRunner

    from scvi_sctab.base._host import HostModel
    from scvi_sctab.data import CellSplitter

# Arguments of other packages, and their counterparts here.
_TRAINER_CURES = {
    **dict.fromkeys(
        ("lr", "learning_rate", "weight_decay", "n_epochs_kl_warmup", "optimizer"),
        "arguments of the optimiser go into `plan_kwargs`, e.g. `plan_kwargs={'lr': 1e-3}`",
    ),
    **dict.fromkeys(("use_gpu", "gpu", "gpus", "cuda", "device"), "`accelerator='gpu'`"),
    **dict.fromkeys(("epochs", "n_epochs", "num_epochs", "max_epoch"), "`max_epochs=`"),
    **dict.fromkeys(("patience", "n_epochs_patience"), "`early_stopping_patience=`"),
    **dict.fromkeys(("verbose", "progress", "show_progress"), "`enable_progress_bar=`"),
    **dict.fromkeys(("seed", "random_state"), "`scvi.settings.seed = 0` before the model is made"),
    **dict.fromkeys(
        ("num_workers", "n_workers", "n_jobs"), "`datasplitter_kwargs={'num_workers': ...}`"
    ),
    **dict.fromkeys(("validation_split", "val_size", "test_size"), "`validation_size=`"),
    **dict.fromkeys(("layer", "labels_key", "batch_key"), "it belongs to `setup_anndata`"),
}


def check_epochs(max_epochs: int | None) -> None:
    """Refuse a number of epochs that is not a whole number of at least 1.

    Parameters
    ----------
    max_epochs
        Argument of ``train``; ``None`` is the default of the model.

    Raises
    ------
    ValueError
        If it is not a whole number of at least 1.
    """
    if max_epochs is None:
        return
    if not isinstance(max_epochs, Integral) or isinstance(max_epochs, bool) or max_epochs < 1:
        raise ValueError(f"{max_epochs=}: train for at least one epoch, a whole number.")


def check_trainer_arguments(given: dict[str, Any], verb: str) -> None:
    """Refuse arguments that the trainer does not have, before training.

    Parameters
    ----------
    given
        Further arguments of ``train``.
    verb
        Name of the method, for the message.

    Raises
    ------
    TypeError
        If there is no such argument; the message suggests the right one.
    ValueError
        If there would be no training step.
    """
    known = {*signature(Trainer).parameters, *signature(pl.Trainer).parameters}
    known |= {"trainer_config", "ckpt_path", "early_stopping_warmup_epochs"}
    known -= {"kwargs", "model", "max_epochs"}
    check_arguments(given, sorted(known), verb, _TRAINER_CURES)
    for name in ("max_steps", "limit_train_batches"):
        if given.get(name) == 0:
            raise ValueError(f"{name}=0 trains nothing.")


def fit(
    model: HostModel,
    plan: pl.LightningModule,
    splitter: CellSplitter,
    max_epochs: int,
    *,
    accelerator: str = "auto",
    devices: int | list[int] | str = "auto",
    checkpoints: Checkpoints | None = None,
    **trainer_kwargs: Any,
) -> bool:
    """Train a model to the end or up to Ctrl-C; after an error it is as before.

    Parameters
    ----------
    model
        Model whose module is trained. Its ``_start`` initialises what depends on the training
        cells, before the first step. If training fails, weights and calibration are restored.
    plan
        Training plan of the module.
    splitter
        Data module of training and held-out cells.
    max_epochs
        Number of epochs.
    accelerator, devices
        Device for training; a GPU if there is one. On several, each has a process of its own,
        which afterwards has the same model as the others.
    checkpoints
        Where and how often to write the state of the training, and whether to continue from it.
    **trainer_kwargs
        Further arguments of :class:`~scvi.train.Trainer`.

    Returns
    -------
    Whether Ctrl-C ended the training after at least one epoch. The model then has the best weights
    so far, by held-out cells if there are any, and counts as trained.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C came before the end of the first epoch.
    """
    where: dict[str, Any] = {"accelerator": accelerator, "devices": devices}
    if count_processes(**where, **trainer_kwargs) > 1 or "strategy" in trainer_kwargs:
        trainer_kwargs = for_processes(trainer_kwargs)
    defaults = {
        "log_every_n_steps": 1,
        "enable_progress_bar": shows_progress(),
        # The loaders of this package divide cells themselves, in whole batches.
        "use_distributed_sampler": False,
    }
    with quiet_trainer(), without_warning_of_ddp():
        runner = model._train_runner_cls(
            model,
            training_plan=plan,
            data_splitter=splitter,
            max_epochs=max_epochs,
            **where,
            **{**defaults, **keep_history(trainer_kwargs)},
        )
    trainer = runner.trainer
    if trainer.world_size > 1:
        check_processes(trainer)
        trainer.callbacks.insert(0, SyncProcesses())
    if checkpoints is not None:
        keeper = KeepTraining.start(checkpoints, model, plan, splitter, trainer)
        trainer.callbacks.insert(0, keeper)
    with all_or_nothing(model):
        model._start(splitter.train_idx)
        # scvi-tools appends to the history of a trained model; an imported one has none yet.
        model.is_trained_ = model.history_ is not None
        # After loading and predicting the module is in evaluation mode, which Lightning keeps.
        model.module.train()
        return run(model, runner)


def watch_validation(
    trainer_kwargs: dict[str, Any],
    monitor: str,
    mode: Literal["max", "min"],
    *,
    early_stopping: bool,
    patience: int,
    every_n_epochs: int = 1,
    keep_best: bool = True,
    keep_best_from: int = 0,
) -> dict[str, Any]:
    """Add validation, early stopping and the choice of weights to the arguments of a trainer.

    Parameters
    ----------
    trainer_kwargs
        Arguments of the trainer; those on validation and stopping are kept.
    monitor, mode
        Logged score, and whether it is best at its maximum or minimum.
    early_stopping
        Whether to stop when the score no longer improves.
    patience
        Number of validations without improvement before that.
    every_n_epochs
        Number of epochs between validations.
    keep_best
        Whether to keep the weights of the best epoch, not of the last one.
    keep_best_from
        First epoch whose weights may be kept.
    """
    callbacks = [*trainer_kwargs.get("callbacks", ())]
    if keep_best:
        callbacks.append(RestoreBestWeights(monitor, mode, keep_best_from))
    return {
        "check_val_every_n_epoch": every_n_epochs,
        "early_stopping": early_stopping,
        "early_stopping_monitor": monitor,
        "early_stopping_mode": mode,
        "early_stopping_patience": patience,
        **trainer_kwargs,
        "callbacks": callbacks,
    }


@contextmanager
def all_or_nothing(model: HostModel) -> Iterator[None]:
    """Restore weights and attributes of a model if the block fails or is interrupted.

    Parameters
    ----------
    model
        A model of this package.
    """
    weights = {name: t.detach().clone() for name, t in model.module.state_dict().items()}
    before, device = dict(vars(model)), model.device
    # scvi-tools changes the history in place; all other state is replaced.
    model.history_ = deepcopy(model.history_)
    try:
        yield
    except BaseException:
        attributes = model.__dict__
        attributes.update(before)
        for name in attributes.keys() - before.keys():
            del attributes[name]
        model.module.load_state_dict(weights)
        # The trainer leaves a module on the CPU when it fails.
        model.to_device(device)
        model.module.eval()
        raise


def run(model: HostModel, runner: TrainRunner) -> bool:
    """Run a trainer.

    Parameters
    ----------
    model
        Model whose weights are trained.
    runner
        Training run of scvi-tools.

    Returns
    -------
    Whether Ctrl-C ended it after at least one epoch. The model then has the best weights so far,
    by held-out cells if there are any, and counts as trained.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C came before the end of the first epoch.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main_thread else None
    try:
        with quiet_trainer(), divided_threads(runner.trainer), sleeping_threads():
            runner()
        share_history(model, runner.trainer)
    except BaseException as error:
        # On Ctrl-C, Lightning would exit the process.
        if not _is_interrupt(error):
            raise
        if not _keep_best(runner):
            raise KeyboardInterrupt from None
        model._finish(runner)
    else:
        return False
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
    epoch = runner.trainer.current_epoch
    logger.warning(
        f"Training was stopped by Ctrl-C in epoch {epoch + 1} of {runner.trainer.max_epochs}; the "
        "best weights so far are kept."
    )
    return True


def _is_interrupt(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _keep_best(runner: TrainRunner) -> bool:
    """Restore the best weights; return whether an epoch has ended."""
    for callback in runner.trainer.callbacks:
        if hasattr(callback, "restore"):
            return bool(callback.restore(runner.training_plan))
    return runner.trainer.current_epoch > 0
