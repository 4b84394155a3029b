"""Read cells for the network, one block at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from tqdm.auto import tqdm

from scvi_sctab._constants import CONDITIONS_KEY, MIN_GENE_OVERLAP, READ_BLOCK_CELLS
from scvi_sctab._logging import shows_progress
from scvi_sctab.data import (
    CellSelection,
    align_genes,
    check_anndata,
    check_indices,
    choose_layer,
    condition_codes,
    describe_empty_cells,
    describe_unknown,
    empty_cells,
    read_counts,
    slice_rows,
    to_tensor,
)
from scvi_sctab.nn import single_precision
from scvi_sctab.sparse import sleeping_threads

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import Tensor

T = TypeVar("T")

_BATCH_SIZE = 2048
# Shorter work needs no progress bar.
_PROGRESS_FROM_N_CELLS = 20_000


class CellsMixin:
    """From an AnnData to batches on the model's device."""

    def _require_trained(self) -> None:
        self._check_if_trained(
            warn=False, message="This model is not trained: call `model.train()` first."
        )

    def _select(
        self,
        adata: AnnData | None,
        indices: Sequence[int] | None = None,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> CellSelection:
        """Resolve which AnnData, which of its cells, and where their counts are."""
        adata = self.adata if adata is None else check_anndata(self._cells_of(adata))
        if adata is None:
            raise ValueError("This model has no AnnData of its own; say which cells: `adata=`.")
        if indices is None:
            positions = np.arange(adata.n_obs)
        else:
            positions = check_indices(indices, adata.n_obs, adata.obs_names)
        if getattr(self, "surgery_", None) is not None and adata is not self.adata:
            self._warn_of_unknown_conditions(adata, positions)
        layer = choose_layer(adata, layer, self.layer)
        return CellSelection(adata, positions, layer, min_gene_overlap)

    def _cells_of(self, adata: AnnData) -> AnnData:
        """Take what the model reads of what a verb was given."""
        return adata

    def _warn_of_unknown_conditions(self, adata: AnnData, cells: NDArray[np.intp]) -> None:
        """Say where a model of a query cannot tell that cells are of its batches."""
        if self.module.needs_batch:
            return  # `_conditions_of` stops
        unknown = describe_unknown(self.conditions, adata.obs.iloc[cells])
        if unknown:
            warnings.warn(
                "This model was adapted to batches of a query, which it cannot tell of these "
                f"cells, and answers as if it were not adapted: {' '.join(unknown)}",
                UserWarning,
                stacklevel=4,
            )

    def _map_cells(
        self,
        function: Callable[[dict[str, Tensor]], T],
        cells: CellSelection,
        batch_size: int | None,
    ) -> Iterator[T]:
        """Apply ``function`` to batches of raw counts and conditions on the model's device.

        Holds one block of cells at a time, whatever the number of cells.
        """
        self.module.eval()
        batch_size = _BATCH_SIZE if batch_size is None else batch_size
        if batch_size < 1:
            raise ValueError(f"{batch_size=}: take at least one cell at a time.")
        adata = cells.adata
        alignment = align_genes(self.gene_names, adata.var, cells.min_gene_overlap)
        conditions = torch.from_numpy(self._conditions_of(adata)[cells.positions])
        is_all = len(cells) == adata.n_obs and _is_range(cells.positions)
        indices = None if is_all else cells.positions
        block_size = max(READ_BLOCK_CELLS // batch_size, 1) * batch_size
        blocks = read_counts(adata, cells.layer, indices, alignment, block_size)
        start, empty = 0, []
        with tqdm(
            total=len(cells),
            desc="Cells",
            unit=" cells",
            disable=len(cells) < _PROGRESS_FROM_N_CELLS or not shows_progress(),
        ) as progress:
            for block in blocks:
                empty.extend(cells.names[start + empty_cells(block)])
                for first in range(0, block.shape[0], batch_size):
                    part = slice_rows(block, first, min(first + batch_size, block.shape[0]))
                    known = conditions[start + first : start + first + part.shape[0]]
                    tensors = {
                        REGISTRY_KEYS.X_KEY: to_tensor(part, self.module.device),
                        CONDITIONS_KEY: known.to(self.module.device),
                    }
                    with (
                        torch.inference_mode(),
                        single_precision(self.module.device.type),
                        sleeping_threads(),
                    ):
                        result = function(tensors)
                    yield result
                    progress.update(part.shape[0])
                start += block.shape[0]
        if empty:
            warnings.warn(
                describe_empty_cells(empty, len(cells)) + " What is said of them means nothing.",
                UserWarning,
                stacklevel=2,
            )

    def _stack(
        self,
        function: Callable[[dict[str, Tensor]], NDArray[np.float32]],
        n_columns: int,
        cells: CellSelection,
        batch_size: int | None,
    ) -> NDArray[np.float32]:
        """Apply ``function`` as :meth:`_map_cells` does and join the rows of all cells."""
        self._require_trained()
        parts = self._map_cells(function, cells, batch_size)
        return np.concatenate([np.zeros((0, n_columns), np.float32), *parts])

    def _conditions_of(self, adata: AnnData) -> NDArray[np.int64]:
        """Codes of batch and covariates; stop where the model cannot do without."""
        codes = condition_codes(self.conditions, adata.obs)
        if (codes < 0).any() and self.module.needs_batch:
            column = self.conditions[int((codes < 0).any(axis=0).argmax())].key
            raise ValueError(
                f"The encoder depends on {column!r}, which is missing or holds values that the "
                "model does not know. Map the cells first: "
                f"`{type(self).__name__}.load_query_data(adata, model)`."
            )
        return codes


def _is_range(cells: NDArray[np.intp]) -> bool:
    return bool((cells == np.arange(len(cells))).all())
