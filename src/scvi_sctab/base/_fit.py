"""Training of a model by the trainer of scvi-tools, whatever ends it."""

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
from scvi_sctab.data import check_arguments
from scvi_sctab.sparse import sleeping_threads
from scvi_sctab.train import RestoreBestWeights

if TYPE_CHECKING:
    from scvi.train import TrainRunner

    from scvi_sctab.base._host import HostModel
    from scvi_sctab.data import CellSplitter

# What users of other packages look for, and where it is here.
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
    """Stop at a number of epochs that trains nothing.

    Parameters
    ----------
    max_epochs
        What ``train`` was given; ``None`` is the default of the model.

    Raises
    ------
    ValueError
        If it is no whole number of at least 1.
    """
    if max_epochs is None:
        return
    if not isinstance(max_epochs, Integral) or isinstance(max_epochs, bool) or max_epochs < 1:
        raise ValueError(f"{max_epochs=}: train for at least one epoch, a whole number.")


def check_trainer_arguments(given: dict[str, Any], verb: str) -> None:
    """Stop at arguments that no trainer has, before anything is trained.

    Parameters
    ----------
    given
        Further arguments of ``train``.
    verb
        Name of the method, for the message.

    Raises
    ------
    TypeError
        If there is no such argument; the message has the one that is meant.
    ValueError
        If no step would be taken.
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
    **trainer_kwargs: Any,
) -> bool:
    """Train a model to the end, up to Ctrl-C, or not at all.

    Parameters
    ----------
    model
        Model whose module is trained. Its ``_start`` prepares what depends on the cells to train
        on, before the first step. If training fails, weights and statements are as before.
    plan
        Training plan of the module.
    splitter
        Cells to train on and to hold out.
    max_epochs
        Epochs.
    accelerator, devices
        Where to train; a GPU if there is one.
    **trainer_kwargs
        Further arguments of :class:`~scvi.train.Trainer`.

    Returns
    -------
    Whether Ctrl-C ended the training after at least one epoch. The best weights so far are then in
    place, if held-out cells tell which those are, and the model counts as trained.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C came before an epoch had ended.
    """
    with quiet_trainer():
        runner = model._train_runner_cls(
            model,
            training_plan=plan,
            data_splitter=splitter,
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            **{"log_every_n_steps": 1, "enable_progress_bar": shows_progress(), **trainer_kwargs},
        )
    with all_or_nothing(model):
        model._start(splitter.train_idx)
        # The host would add to the history of a trained model; an imported one has none yet.
        model.is_trained_ = model.history_ is not None
        # Loading and predicting leave the module in eval mode, in which Lightning would train.
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
    """Add to the arguments of a trainer how often to validate, when to stop and what to keep.

    Parameters
    ----------
    trainer_kwargs
        Arguments; what they say of validation and stopping is left as it is.
    monitor, mode
        Logged quantity that tells the best epoch, and whether it is best at its highest or lowest.
    early_stopping
        Whether to stop when ``monitor`` no longer gets better.
    patience
        Validations without progress before that.
    every_n_epochs
        Epochs from one validation to the next.
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
    """Put a model back as it was, weights and statements, if the block fails or is broken off.

    Parameters
    ----------
    model
        A model of this package.
    """
    weights = {name: t.detach().clone() for name, t in model.module.state_dict().items()}
    before = dict(vars(model))
    # The host patches the history in place; all other state is replaced.
    model.history_ = deepcopy(model.history_)
    try:
        yield
    except BaseException:
        model.__dict__.clear()
        model.__dict__.update(before)
        model.module.load_state_dict(weights)
        model.module.eval()
        raise


def run(model: HostModel, runner: TrainRunner) -> bool:
    """Run a trainer.

    Parameters
    ----------
    model
        Whose weights are trained.
    runner
        The host's runner.

    Returns
    -------
    Whether Ctrl-C ended it after at least one epoch. The best weights so far are then in place,
    if held-out cells tell which those are, and the model counts as trained.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C came before an epoch had ended.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main_thread else None
    try:
        with quiet_trainer(), sleeping_threads():
            runner()
    except BaseException as error:
        # Lightning turns Ctrl-C into an exit of the whole process.
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
    """Put the best weights in place; say whether an epoch has ended at all."""
    for callback in runner.trainer.callbacks:
        if hasattr(callback, "restore"):
            return bool(callback.restore(runner.training_plan))
    return runner.trainer.current_epoch > 0
