"""Callback that keeps the best weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from torch import nn


class RestoreBestWeights(Callback):
    """Callback that restores the weights of the epoch with the best validation score.

    Parameters
    ----------
    monitor
        Logged score.
    mode
        ``"max"`` if a high score is best, ``"min"`` if a low one. Of equal scores the later epoch
        is kept.
    from_epoch
        First epoch whose weights may be kept. Early in a one-cycle schedule, the learning rate and
        the running statistics of batch norm still change, and a good score is due to chance.
    """

    def __init__(self, monitor: str, mode: Literal["min", "max"], from_epoch: int = 0):
        super().__init__()
        self.from_epoch = from_epoch
        self.monitor = monitor
        self.sign = 1 if mode == "max" else -1
        self.best_score = -float("inf")
        self.best_epoch: int | None = None
        self._weights: dict[str, torch.Tensor] = {}
        # Weights of an early epoch are kept in case training is interrupted before `from_epoch`.
        self._is_early = False

    @property
    def state_key(self) -> str:
        """Name of the state; there may be a callback for each of several scores."""
        return f"{type(self).__name__}({self.monitor})"

    def state_dict(self) -> dict[str, Any]:
        """Return the best weights and their score, to continue a training."""
        return {
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "weights": self._weights,
            "is_early": self._is_early,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the best weights of :meth:`state_dict`."""
        self.best_score, self.best_epoch = state_dict["best_score"], state_dict["best_epoch"]
        self._weights, self._is_early = state_dict["weights"], state_dict["is_early"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Store the weights if they are the best so far."""
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
        """Restore the best weights."""
        if not self._is_early:
            self.restore(pl_module)

    def restore(self, pl_module: pl.LightningModule) -> bool:
        """Restore the best weights, also of early epochs; return whether there are any."""
        if not self._weights:
            return False
        _network(pl_module).load_state_dict(self._weights)
        self._weights = {}
        return True


def _network(plan: pl.LightningModule) -> nn.Module:
    """Return the module that a plan trains."""
    return cast("nn.Module", plan.module)
