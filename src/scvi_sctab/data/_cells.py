"""Torch dataset of the cells of a registered AnnData."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from torch.utils.data import Dataset

from scvi_sctab._constants import CONDITIONS_KEY
from scvi_sctab.data._conditions import condition_codes, registered_conditions
from scvi_sctab.data._reader import counts_source, get_matrix, row_readable, take_rows
from scvi_sctab.sparse import as_float32, in_order, silence_torch, to_tensor

if TYPE_CHECKING:
    from scvi.data import AnnDataManager


class CellDataset(Dataset[dict[str, torch.Tensor]]):
    """Dataset of raw counts, with labels and conditions.

    Parameters
    ----------
    counts
        Matrix whose rows can be read, ``(n_cells, n_genes)``.
    labels
        Code per cell, ``(n_cells,)``.
    conditions
        Codes of batch and covariates per cell, ``(n_cells, n_conditions)``.
    cells
        Positions of the cells to load; all if not given.
    arrays
        Further arrays of cells by their key in a minibatch, each ``(n_cells, ...)``.
    dense
        Whether minibatches of counts are dense, not CSR tensors. Torch takes ten times as long as
        scipy to make them dense.
    """

    def __init__(
        self,
        counts: Any,
        labels: NDArray[np.int64],
        conditions: NDArray[np.int64],
        cells: NDArray[np.intp] | None = None,
        arrays: Mapping[str, NDArray[Any]] | None = None,
        dense: bool = False,
    ):
        self.dense = dense
        self.counts, self.labels, self.conditions = counts, labels, conditions
        self.arrays = dict(arrays or {})
        self.cells = np.arange(len(labels)) if cells is None else cells
        # This process rebuilds the tensors of worker processes, for which torch would warn.
        silence_torch()

    @classmethod
    def from_manager(
        cls,
        manager: AnnDataManager,
        labels: NDArray[np.int64],
        arrays: Mapping[str, NDArray[Any]] | None = None,
        dense: bool = False,
    ) -> CellDataset:
        """Build the dataset of a registered AnnData; a CSC matrix is converted to CSR once."""
        layer = manager.data_registry[REGISTRY_KEYS.X_KEY].attr_key
        matrix = get_matrix(manager.adata, layer)
        conditions = condition_codes(registered_conditions(manager.registry), manager.adata.obs)
        counts = row_readable(matrix, counts_source(layer))
        return cls(counts, labels, conditions, arrays=arrays, dense=dense)

    def create_torch_dataset(self, indices: NDArray[np.intp], **_: Any) -> CellDataset:
        """Restrict to some cells; :class:`~scvi.dataloaders.AnnDataLoader` calls this method."""
        cells = self.cells[indices]
        return CellDataset(
            self.counts, self.labels, self.conditions, cells, self.arrays, self.dense
        )

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, positions: list[int]) -> dict[str, torch.Tensor]:
        cells = self.cells[positions]
        rows = as_float32(take_rows(self.counts, cells))
        counts = torch.from_numpy(rows.toarray()) if self.dense else to_tensor(in_order(rows))
        return {
            REGISTRY_KEYS.X_KEY: counts,
            REGISTRY_KEYS.LABELS_KEY: torch.from_numpy(self.labels[cells, None]),
            CONDITIONS_KEY: torch.from_numpy(self.conditions[cells]),
            **{name: torch.from_numpy(array[cells]) for name, array in self.arrays.items()},
        }
