"""Move a target after each step."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    import lightning.pytorch as pl


class UpdateMovingAverage(Callback):
    """Move the target of a :class:`~scvi_sctab.module.BYOLModule` after each training batch.

    Parameters
    ----------
    ramp
        Whether its decay rises to 1 over the training, see :func:`~scvi_sctab.nn.ramped_decay`.
        Without a number of epochs or steps it stays.
    """

    def __init__(self, ramp: bool = False):
        super().__init__()
        self.ramp = ramp

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the target."""
        total = trainer.estimated_stepping_batches if self.ramp else float("inf")
        progress = trainer.global_step / total if isfinite(total) else 0.0
        pl_module.module.update_target(min(progress, 1.0))
