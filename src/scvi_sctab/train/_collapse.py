"""Notice that all cells are embedded alike."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    import lightning.pytorch as pl

# Where the spread is logged; that of held-out cells, without dropout, if there are any.
_MONITORS = ("validation_embedding_spread", "train_embedding_spread")
_MIN_SPREAD = 0.05


class WarnCollapse(Callback):
    """Warn once if the encoder embeds all cells alike, which a loss of views may reward.

    Parameters
    ----------
    min_spread
        Lowest :func:`~scvi_sctab.nn.embedding_spread` that passes.
    patience
        How many epochs in a row it must be below.
    """

    def __init__(self, min_spread: float = _MIN_SPREAD, patience: int = 3):
        super().__init__()
        self.min_spread, self.patience = min_spread, patience
        self._n_below, self._warned = 0, False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the training before."""
        self._n_below, self._warned = 0, False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at what the epoch logged."""
        logged = [trainer.callback_metrics[m] for m in _MONITORS if m in trainer.callback_metrics]
        if not logged:
            return
        spread = float(logged[0])
        # A spread that is not a number is none, either.
        self._n_below = 0 if spread >= self.min_spread else self._n_below + 1
        if self._n_below >= self.patience and not self._warned:
            self._warned = True
            warnings.warn(
                f"All cells are embedded alike: for {self.patience} epochs the spread of their "
                f"embeddings has been below {self.min_spread}, now {spread:.2g}, where 1 is the "
                "most. The encoder has collapsed and is of no use. Lower the learning rate, "
                "change the views less (`mask_rate`, `noise`, `dropout`), or, with BYOL, raise "
                "`decay`; Barlow Twins collapses less easily.",
                UserWarning,
                stacklevel=2,
            )
