"""Training on several devices, each with a process of its own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from scvi.train._callbacks import LoudEarlyStopping
from scvi.train._logger import SimpleLogger

from scvi_sctab._logging import quiet_trainer
from scvi_sctab.sparse import available_cpus

if TYPE_CHECKING:
    from scvi_sctab.base._host import HostModel

_EARLY_STOPPING = {
    "early_stopping": False,
    "early_stopping_monitor": "validation_loss",
    "early_stopping_min_delta": 0.0,
    "early_stopping_patience": 45,
    "early_stopping_mode": "min",
    "early_stopping_warmup_epochs": 0,
}


def count_processes(
    *,
    accelerator: str = "auto",
    devices: int | list[int] | str = "auto",
    strategy: Any = "auto",
    num_nodes: int = 1,
    **_: Any,
) -> int:
    """Count the processes of a training, before it starts.

    Parameters
    ----------
    accelerator, devices, strategy, num_nodes
        Arguments of the trainer.
    **_
        Further arguments of the trainer.
    """
    # scvi-tools takes one GPU for "auto", and Lightning one process of the CPU.
    if devices in ("auto", 1, "1") and num_nodes == 1:
        return 1
    with quiet_trainer():
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=devices,
            strategy=strategy,
            num_nodes=num_nodes,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    return trainer.world_size


def steps_per_epoch(splitter: Any, trainer_kwargs: dict[str, Any]) -> int:
    """Count the steps of an epoch of training, before it starts.

    Parameters
    ----------
    splitter
        Data module whose batches of one process are counted.
    trainer_kwargs
        Arguments of the trainer.
    """
    return max(1, len(splitter.train_dataloader()) // count_processes(**trainer_kwargs))


def for_processes(trainer_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Adapt the arguments of a trainer to several processes.

    scvi-tools would not stop early, warn of that, and write the history to a file.

    Parameters
    ----------
    trainer_kwargs
        Arguments of :class:`scvi.train.Trainer`.
    """
    adapted = {k: v for k, v in trainer_kwargs.items() if k not in _EARLY_STOPPING}
    given = {k: trainer_kwargs.get(k, default) for k, default in _EARLY_STOPPING.items()}
    if given.pop("early_stopping"):
        stopping = {k.removeprefix("early_stopping_"): v for k, v in given.items()}
        adapted["callbacks"] = [*adapted.get("callbacks", ()), _EarlyStopping(**stopping)]
        adapted.setdefault("check_val_every_n_epoch", 1)
    if adapted.get("logger") is None and not adapted.get("log_save_dir"):
        adapted["logger"] = SimpleLogger()
    return adapted


class _EarlyStopping(LoudEarlyStopping):  # type: ignore[misc]
    """Early stopping that is reported by one process."""

    def teardown(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Print the reason for stopping."""
        if trainer.is_global_zero:
            super().teardown(trainer, *args, **kwargs)


def is_other_process() -> bool:
    """Return whether another process of a training on several devices saves the model."""
    distributed = torch.distributed
    return (
        distributed.is_available() and distributed.is_initialized() and distributed.get_rank() > 0
    )


def check_processes(trainer: pl.Trainer) -> None:
    """Refuse processes that would not run the script of the user.

    Parameters
    ----------
    trainer
        Trainer of several processes.

    Raises
    ------
    ValueError
        If they would be copies of this process, which lose what they learnt besides weights.
    """
    if getattr(trainer.strategy, "_start_method", "popen") != "popen":
        raise ValueError(
            "Several devices need a script, in which every device runs all lines: put these lines "
            "into a file, train with `strategy='ddp'` and start it by `python train.py`."
        )


def share_history(model: HostModel, trainer: pl.Trainer) -> None:
    """Give all processes the history of the first one, which alone logs.

    Parameters
    ----------
    model
        Model after training.
    trainer
        Its trainer.
    """
    model.history_ = trainer.strategy.broadcast(model.history_)


@contextmanager
def divided_threads(trainer: pl.Trainer) -> Iterator[None]:
    """Divide the threads of this machine among the processes of a training on its CPUs.

    Parameters
    ----------
    trainer
        Trainer.
    """
    n_here = max(1, trainer.world_size // trainer.num_nodes)
    if n_here == 1:
        yield
        return
    before, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    number = max(1, min(before, available_cpus() // n_here))
    torch.set_num_threads(number)
    # Read by the other processes, and by Lightning, which would set a number of its own.
    os.environ["OMP_NUM_THREADS"] = str(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if variable is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = variable


@contextmanager
def without_warning_of_ddp() -> Iterator[None]:
    """Hide the warning of scvi-tools that there is no early stopping; there is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "early_stopping was automatically disabled")
        yield
