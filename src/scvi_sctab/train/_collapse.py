"""Notice that all cells look alike to a loss of views."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from torch import Tensor

# Behind a projector with batch norm, projections collapse and embeddings hardly change.
_SPREADS = ("embedding_spread", "projection_spread")
# Measured with BYOL without a predictor: 0.003 to 0.09, and falling. With one, and with Barlow
# Twins: 0.7 to 0.95; an untrained MLP of eight layers has 0.18.
_MIN_SPREAD = 0.1


class WarnCollapse(Callback):
    """Warn once if all cells are embedded or projected alike, which a loss of views may reward.

    Looked at are ``embedding_spread`` and ``projection_spread``, as logged of validation cells, or
    else of training cells, after ``validation_`` or ``train_``.

    Parameters
    ----------
    min_spread
        Lowest :func:`~scvi_sctab.nn.embedding_spread` that passes.
    patience
        How many epochs in a row one of them must be below.
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
        logged = trainer.callback_metrics
        spreads: dict[str, Tensor | None] = {}
        for name in _SPREADS:
            for mode in ("train", "validation"):
                spreads[name] = logged.get(f"{mode}_{name}", spreads.get(name))
        # A spread that is not a number is below, too.
        below = {
            name: float(spread)
            for name, spread in spreads.items()
            if spread is not None and not spread >= self.min_spread
        }
        self._n_below = self._n_below + 1 if below else 0
        if self._n_below >= self.patience and not self._warned:
            self._warned = True
            values = " and ".join(f"{name} is {spread:.2g}" for name, spread in below.items())
            warnings.warn(
                f"All cells look alike to the loss: {values}, below {self.min_spread} for "
                f"{self.patience} epochs, where 1 is the most. Training has collapsed, and the "
                "encoder learns nothing from here. Lower the learning rate, "
                "`plan_kwargs={'lr': ...}`, change the views less (`mask_rate`, `noise`, "
                "`dropout`), or, with BYOL, raise `decay` of its module; Barlow Twins collapses "
                "less easily.",
                UserWarning,
                stacklevel=2,
            )
