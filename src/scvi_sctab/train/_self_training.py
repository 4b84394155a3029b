"""Self-training: training on the labels that are predicted with the highest probability."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from numpy.typing import NDArray


def select_confident(
    probabilities: NDArray[np.floating], share: float, floor: float = 0.0
) -> NDArray[np.int64]:
    """Label the cells with the highest probabilities of each predicted label.

    A share of each label, not of all cells, is taken, so that labels that are rare or predicted
    with lower probabilities are included.

    Parameters
    ----------
    probabilities
        ``(n_cells, n_labels)``.
    share
        Share of the cells predicted as a label that get it, rounded up.
    floor
        Probability below which no cell gets a label.

    Returns
    -------
    Code per cell, ``(n_cells,)``; ``n_labels`` for cells that get no label.

    Examples
    --------
    >>> select_confident(np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]]), share=0.5).tolist()
    [0, 2, 1]
    """
    n_labels = probabilities.shape[1]
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    codes = np.full(len(probabilities), n_labels, dtype=np.int64)
    for label in np.unique(predicted):
        cells = np.flatnonzero(predicted == label)
        surest = cells[np.argsort(-confidence[cells], kind="stable")]
        taken = surest[: int(np.ceil(share * len(cells)))]
        codes[taken[confidence[taken] >= floor]] = label
    return codes


class SelfTraining(Callback):
    """Callback that gives cells new labels at the start of each round.

    Parameters
    ----------
    relabel
        Function that predicts the cells and writes labels to the arrays that the loader reads.
    every_n_epochs
        Length of a round in epochs.
    """

    def __init__(self, relabel: Callable[[], None], every_n_epochs: int):
        super().__init__()
        self.relabel, self.every_n_epochs = relabel, every_n_epochs

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give new labels in the first epoch of a round."""
        if trainer.current_epoch % self.every_n_epochs == 0:
            self.relabel()
