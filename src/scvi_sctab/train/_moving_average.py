"""Callback that updates the target of BYOL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    import lightning.pytorch as pl


class UpdateMovingAverage(Callback):
    """Callback that updates the target of :class:`~scvi_sctab.module.BYOLModule` at each step."""

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Update the target."""
        module: Any = pl_module.module
        module.update_target()
