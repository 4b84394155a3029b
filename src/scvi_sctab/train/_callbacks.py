"""Keep the best weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import torch
from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from torch import nn


class RestoreBestWeights(Callback):
    """Put back the weights of the epoch that validated best.

    Parameters
    ----------
    monitor
        Logged quantity that decides.
    mode
        Whether it is best at its ``"max"`` or its ``"min"``. Of equals the later epoch wins.
    from_epoch
        First epoch whose weights may be kept. Early in a one-cycle schedule neither the learning
        rate nor the running statistics of batch norm have settled, and a good score is luck.
    """

    def __init__(self, monitor: str, mode: Literal["min", "max"], from_epoch: int = 0):
        super().__init__()
        self.from_epoch = from_epoch
        self.monitor = monitor
        self.sign = 1 if mode == "max" else -1
        self.best_score = -float("inf")
        self.best_epoch: int | None = None
        self._weights: dict[str, torch.Tensor] = {}
        # Of an early epoch, for a training that is broken off before a later one.
        self._is_early = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the weights if they are the best so far."""
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or value is None or not torch.isfinite(value):
            return
        score, is_early = self.sign * float(value), trainer.current_epoch < self.from_epoch
        if score >= self.best_score or (self._is_early and not is_early):
            self._is_early = is_early
            self.best_score, self.best_epoch = score, trainer.current_epoch
            self._weights = {
                name: tensor.detach().clone()
                for name, tensor in _network(pl_module).state_dict().items()
            }

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the best weights back."""
        if not self._is_early:
            self.restore(pl_module)

    def restore(self, pl_module: pl.LightningModule) -> bool:
        """Put back the best weights so far, of early epochs too; return whether there are any."""
        if not self._weights:
            return False
        _network(pl_module).load_state_dict(self._weights)
        self._weights = {}
        return True


def _network(plan: pl.LightningModule) -> nn.Module:
    """Return the module that a plan trains."""
    return cast("nn.Module", plan.module)
