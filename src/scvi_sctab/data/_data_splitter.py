"""Data module that loads labelled cells for the trainer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS

from scvi_sctab._constants import DONOR_KEY
from scvi_sctab.data._cell_splitter import CellSplitter
from scvi_sctab.data._cells import CellDataset
from scvi_sctab.data._indices import check_indices
from scvi_sctab.data._reader import read_counts
from scvi_sctab.data._splits import split_cells

if TYPE_CHECKING:
    import pandas as pd
    from scipy import sparse
    from scvi.data import AnnDataManager


class LabeledDataSplitter(CellSplitter):
    """Data module that splits the labelled cells of a registered AnnData.

    Unlabelled cells are in no part, since a classifier alone does not learn from them.

    Parameters
    ----------
    adata_manager
        Manager of the registered AnnData.
    n_labels
        Number of labels; cells with this code or a larger one are unlabelled.
    train_size
        Share of labelled cells for training.
    validation_size
        Share for validation; all that are not for training if not given.
    batch_size
        Cells per batch.
    external_indexing
        Positions for training, validation and test instead of a split drawn here.
    shuffle_set_split
        Whether cells or donors are held out at random; otherwise the last cells of each label.
    seed
        Seed of the split.
    require_labels
        Whether some of the training cells must have a label.
    **loader_kwargs
        Passed to :class:`CellSplitter`.

    Raises
    ------
    ValueError
        If the sizes are inconsistent, or ``external_indexing`` has no training cells or duplicated
        cells.
    """

    def __init__(
        self,
        adata_manager: AnnDataManager,
        n_labels: int,
        *,
        train_size: float,
        validation_size: float | None = None,
        batch_size: int = 256,
        external_indexing: list[NDArray[np.intp]] | None = None,
        shuffle_set_split: bool = True,
        seed: int = 0,
        require_labels: bool = True,
        **loader_kwargs: Any,
    ):
        self.adata_manager = adata_manager
        self.labels = self._codes(REGISTRY_KEYS.LABELS_KEY)
        if external_indexing is not None:
            parts = _check_indexing(external_indexing, adata_manager.adata.obs_names)
        else:
            labelled = np.flatnonzero(self.labels < n_labels)
            if not len(labelled):
                raise ValueError("No cell of this AnnData has a label that the model knows.")
            donors = self.donors
            parts = [
                labelled[positions]
                for positions in split_cells(
                    self.labels[labelled],
                    None if donors is None else donors[labelled],
                    train_size,
                    validation_size,
                    seed,
                    shuffle=shuffle_set_split,
                )
            ]
        if require_labels and not (self.labels[parts[0]] < n_labels).any():
            raise ValueError("None of the cells to train on has a label.")
        # Shared memory, so that labels written in training reach the worker processes.
        labels = torch.from_numpy(self.labels.copy()).share_memory_().numpy()
        cells = CellDataset.from_manager(adata_manager, labels)
        super().__init__(cells, parts, batch_size=batch_size, **loader_kwargs)

    @property
    def donors(self) -> NDArray[np.int64] | None:
        """Code of the donor of every cell, or ``None`` without a donor key."""
        return self._codes(DONOR_KEY) if DONOR_KEY in self.adata_manager.data_registry else None

    def read(self, cells: NDArray[np.intp]) -> Iterator[sparse.csr_matrix]:
        """Read raw counts of some cells, a block at a time.

        Parameters
        ----------
        cells
            Positions, ``(n_cells,)``.
        """
        layer = self.adata_manager.registry["setup_args"]["layer"]
        return read_counts(self.adata_manager.adata, layer, cells)

    def assign(self, cells: NDArray[np.intp], codes: NDArray[np.int64] | int) -> None:
        """Train cells on other labels from now on; :attr:`labels` stays as it is.

        Parameters
        ----------
        cells
            Positions, ``(n_cells,)``.
        codes
            Codes of labels.
        """
        self.assigned()[cells] = codes

    def assigned(self) -> NDArray[np.int64]:
        """Return the codes of the labels that are trained on, ``(n_cells,)``."""
        labels: NDArray[np.int64] = self.cells.labels
        return labels

    def _codes(self, key: str) -> NDArray[np.int64]:
        return np.asarray(self.adata_manager.get_from_registry(key)).ravel().astype(np.int64)


def _check_indexing(indexing: list[NDArray[np.intp]], names: pd.Index) -> list[NDArray[np.intp]]:
    parts = [check_indices([] if part is None else part, len(names), names) for part in indexing]
    parts += [np.zeros(0, dtype=np.intp)] * (3 - len(parts))
    together = np.concatenate(parts)
    if len(parts) > 3 or not len(parts[0]):
        raise ValueError("external_indexing is [train, validation, test] with cells to train on.")
    if len(np.unique(together)) < len(together):
        raise ValueError("external_indexing lists a cell more than once.")
    return parts
