"""Warning about collapsed embeddings, which a loss between two views may reward."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch.callbacks import Callback

from scvi_sctab._messages import warn

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from torch import Tensor

# With a projector with batch norm, projections may collapse while embeddings hardly change.
_SPREADS = ("embedding_spread", "projection_spread")
# Measured with BYOL without a predictor: 0.003 to 0.09, and decreasing. BYOL with a predictor, and
# Barlow Twins: 0.7 to 0.95. An untrained MLP of eight layers: 0.18.
_MIN_SPREAD = 0.1


class WarnCollapse(Callback):
    """Callback that warns once if embeddings or projections collapse to one direction.

    It reads the logged ``embedding_spread`` and ``projection_spread`` of validation cells, with
    the prefix ``validation_``, or else of training cells, with the prefix ``train_``.

    Parameters
    ----------
    min_spread
        Smallest :func:`~scvi_sctab.nn.embedding_spread` without a warning.
    patience
        Number of consecutive epochs below ``min_spread`` before the warning.
    """

    def __init__(self, min_spread: float = _MIN_SPREAD, patience: int = 3):
        super().__init__()
        self.min_spread, self.patience = min_spread, patience
        self._n_below, self._warned = 0, False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the count of epochs."""
        self._n_below, self._warned = 0, False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the spreads that the epoch logged."""
        logged = trainer.callback_metrics
        spreads: dict[str, Tensor | None] = {}
        for name in _SPREADS:
            for mode in ("train", "validation"):
                spreads[name] = logged.get(f"{mode}_{name}", spreads.get(name))
        # NaN counts as below, too.
        below = {
            name: float(spread)
            for name, spread in spreads.items()
            if spread is not None and not spread >= self.min_spread
        }
        self._n_below = self._n_below + 1 if below else 0
        if self._n_below >= self.patience and not self._warned:
            self._warned = True
            values = " and ".join(f"{name} is {spread:.2g}" for name, spread in below.items())
            warn(
                f"All cells look alike to the loss: {values}, below {self.min_spread} for "
                f"{self.patience} epochs, where 1 is the most. Training has collapsed, and the "
                "encoder learns nothing from here. Lower the learning rate, "
                "`plan_kwargs={'lr': ...}`, change the views less (`mask_rate`, `noise`, "
                "`dropout`), or, with BYOL, raise `decay` of its module; Barlow Twins collapses "
                "less easily."
            )
