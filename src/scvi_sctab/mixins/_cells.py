"""Read cells for the network, one block at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from tqdm.auto import tqdm

from scvi_sctab._constants import CONDITIONS_KEY, READ_BLOCK_CELLS
from scvi_sctab.data import (
    align_genes,
    check_indices,
    condition_codes,
    describe_empty_cells,
    empty_cells,
    read_counts,
    slice_rows,
    to_tensor,
)
from scvi_sctab.nn import sleeping_threads

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

    def _query(
        self, adata: AnnData | None, indices: Sequence[int] | None
    ) -> tuple[AnnData, NDArray[np.intp]]:
        """Resolve which AnnData and which of its cells."""
        adata = self.adata if adata is None else adata
        if adata is None:
            raise ValueError("This model has no AnnData of its own; say which cells: `adata=`.")
        if indices is None:
            return adata, np.arange(adata.n_obs)
        return adata, check_indices(indices, adata.n_obs)

    def _map_cells(
        self,
        function: Callable[[dict[str, Tensor]], T],
        adata: AnnData,
        cells: NDArray[np.intp],
        batch_size: int | None,
    ) -> Iterator[T]:
        """Apply ``function`` to batches of raw counts and conditions on the model's device.

        Holds one block of cells at a time, whatever the number of cells.
        """
        self.module.eval()
        batch_size = _BATCH_SIZE if batch_size is None else batch_size
        if batch_size < 1:
            raise ValueError(f"{batch_size=}: take at least one cell at a time.")
        alignment = align_genes(self.gene_names, adata.var)
        conditions = torch.from_numpy(self._conditions_of(adata)[cells])
        indices = None if len(cells) == adata.n_obs and _is_range(cells) else cells
        block_size = max(READ_BLOCK_CELLS // batch_size, 1) * batch_size
        blocks = read_counts(adata, self.layer, indices, alignment, block_size)
        start, empty = 0, []
        with tqdm(
            total=len(cells),
            desc="Cells",
            unit=" cells",
            disable=len(cells) < _PROGRESS_FROM_N_CELLS,
        ) as progress:
            for block in blocks:
                empty.extend(adata.obs_names[cells[start + empty_cells(block)]])
                for first in range(0, block.shape[0], batch_size):
                    part = slice_rows(block, first, min(first + batch_size, block.shape[0]))
                    known = conditions[start + first : start + first + part.shape[0]]
                    tensors = {
                        REGISTRY_KEYS.X_KEY: to_tensor(part, self.module.device),
                        CONDITIONS_KEY: known.to(self.module.device),
                    }
                    with torch.inference_mode(), sleeping_threads():
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
        adata: AnnData | None,
        indices: Sequence[int] | None,
        batch_size: int | None,
    ) -> NDArray[np.float32]:
        """Apply ``function`` as :meth:`_map_cells` does and join the rows of all cells."""
        self._require_trained()
        parts = self._map_cells(function, *self._query(adata, indices), batch_size)
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
