"""Training on several devices, each with a process of its own, of one model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

if TYPE_CHECKING:
    import lightning.pytorch as pl


class SyncProcesses(Callback):
    """Callback for training on several devices, each with a process of its own.

    Lightning averages gradients. This callback averages the running statistics of batch norm,
    before each validation and at the end: every process has those of its cells. It also gives
    processes different random numbers in training, so that they do not drop out the same.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw a seed for each process; stop torch from copying statistics at every step."""
        wrapper: Any = trainer.strategy.model
        # Otherwise the statistics of the first process replace those of the others.
        wrapper.broadcast_buffers = False
        seed = trainer.strategy.broadcast(int(torch.randint(2**31, ())))
        torch.manual_seed(seed + trainer.global_rank)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Average the running statistics."""
        average_statistics(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Average the running statistics, and give processes the same random state again."""
        average_statistics(trainer, pl_module)
        torch.set_rng_state(trainer.strategy.broadcast(torch.get_rng_state()))


class CellMeans:
    """Means over the cells of an epoch, of all processes.

    Lightning rounds the mean number of cells of the processes down to a whole number.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all cells."""
        self._sums: dict[str, Tensor] = {}
        self._n_cells = 0

    def add(self, means: Mapping[str, Tensor], n_cells: int) -> None:
        """Add the means of a batch.

        Parameters
        ----------
        means
            Means over its cells, by name.
        n_cells
            Number of its cells.
        """
        self._n_cells += n_cells
        for name, mean in means.items():
            self._sums[name] = self._sums.get(name, 0) + mean.detach() * n_cells

    def compute(self, trainer: pl.Trainer) -> dict[str, Tensor]:
        """Return the means, the same in all processes, and forget the cells.

        Parameters
        ----------
        trainer
            Trainer of the processes.
        """
        sums, n_cells = self._sums, torch.tensor(float(self._n_cells))
        self.reset()
        if trainer.world_size > 1:
            strategy = trainer.strategy
            n_cells = strategy.reduce(n_cells.to(strategy.root_device), reduce_op="sum")
            sums = {name: strategy.reduce(s.clone(), reduce_op="sum") for name, s in sums.items()}
        return {name: s / n_cells.to(s.device) for name, s in sums.items()}


def average_statistics(trainer: pl.Trainer, module: nn.Module) -> None:
    """Average the running statistics of batch norm over all processes.

    Parameters
    ----------
    trainer
        Trainer; with one process nothing changes.
    module
        Module with layers of batch norm.
    """
    if trainer.world_size == 1:
        return
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats:
            for statistic in (layer.running_mean, layer.running_var):
                if statistic is not None:
                    statistic.copy_(trainer.strategy.reduce(statistic.clone(), reduce_op="mean"))
