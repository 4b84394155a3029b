"""Move a target after each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from scvi_sctab.module import BYOLModule


class UpdateMovingAverage(Callback):
    """Move the target of a :class:`~scvi_sctab.module.BYOLModule` after each training batch."""

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the target."""
        cast("BYOLModule", pl_module.module).update_target()
