"""Reader of cells of an AnnData, in minibatches on the device of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from tqdm.auto import tqdm

from scvi_sctab._constants import (
    CONDITIONS_KEY,
    MEASURED_KEY,
    MIN_GENE_OVERLAP,
    READ_BLOCK_CELLS,
)
from scvi_sctab._logging import shows_progress
from scvi_sctab._messages import warn
from scvi_sctab.base._registered import RegisteredMixin
from scvi_sctab.data import (
    CellSelection,
    align_genes,
    check_anndata,
    check_indices,
    choose_layer,
    condition_codes,
    describe_empty_cells,
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

    from scvi_sctab.data import GeneAlignment

T = TypeVar("T")

_BATCH_SIZE = 2048
# Smallest number of cells with a progress bar.
_PROGRESS_FROM_N_CELLS = 20_000


@dataclass(frozen=True)
class CellReader:
    """Reader of cells in minibatches, with matched genes and codes of conditions.

    Parameters
    ----------
    cells
        The cells.
    alignment
        Alignment of their genes with those of the model.
    conditions
        Codes of batch and covariates, ``(n_cells, n_conditions)``; -1 where unknown.
    device
        Device of the network.
    arrays
        Further arrays of the cells by their key in a minibatch, each ``(n_cells, ...)``.
    """

    cells: CellSelection
    alignment: GeneAlignment
    conditions: NDArray[np.int64]
    device: torch.device
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def n_genes(self) -> int:
        """Number of the model's genes."""
        return self.alignment.n_genes

    def map(
        self, function: Callable[[dict[str, Tensor]], T], batch_size: int | None = None
    ) -> Iterator[T]:
        """Apply a function to minibatches of raw counts and codes of conditions on the device.

        Only two blocks of cells are in memory at a time: the second is read during the first.

        Parameters
        ----------
        function
            Function that is called in inference mode, in single precision, with
            :func:`~scvi_sctab.sparse.sleeping_threads`.
        batch_size
            Cells per minibatch.

        Raises
        ------
        ValueError
            If ``batch_size`` is less than 1, or the cells do not hold raw counts.

        Warns
        -----
        UserWarning
            If cells have no counts.
        """
        batch_size = _BATCH_SIZE if batch_size is None else batch_size
        if batch_size < 1:
            raise ValueError(f"{batch_size=}: take at least one cell at a time.")
        start, empty = 0, []
        with tqdm(
            total=len(self),
            desc="Cells",
            unit=" cells",
            disable=len(self) < _PROGRESS_FROM_N_CELLS or not shows_progress(),
        ) as progress:
            for block in self._blocks(batch_size):
                empty.extend(self.cells.names[start + empty_cells(block)])
                for first in range(0, block.shape[0], batch_size):
                    part = slice_rows(block, first, min(first + batch_size, block.shape[0]))
                    rows = slice(start + first, start + first + part.shape[0])
                    with (
                        torch.inference_mode(),
                        single_precision(self.device.type),
                        sleeping_threads(),
                    ):
                        result = function(self._tensors(part, rows))
                    yield result
                    progress.update(part.shape[0])
                start += block.shape[0]
        if empty:
            warn(describe_empty_cells(empty, len(self)) + " Any result for them means nothing.")

    def _blocks(self, batch_size: int) -> Iterator[Any]:
        """Read blocks of whole minibatches."""
        adata, positions = self.cells.adata, self.cells.positions
        is_all = len(self) == adata.n_obs and _is_range(positions)
        block_size = max(READ_BLOCK_CELLS // batch_size, 1) * batch_size
        indices = None if is_all else positions
        blocks = read_counts(adata, self.cells.layer, indices, self.alignment, block_size)
        return _read_ahead(blocks)

    def _tensors(self, counts: Any, rows: slice) -> dict[str, Tensor]:
        tensors = {
            REGISTRY_KEYS.X_KEY: to_tensor(counts, self.device),
            CONDITIONS_KEY: torch.from_numpy(self.conditions[rows]).to(self.device),
            **{
                name: torch.from_numpy(array[rows]).to(self.device)
                for name, array in self.arrays.items()
            },
        }
        if len(self.alignment.missing):
            measured = torch.from_numpy(self.alignment.is_measured)
            tensors[MEASURED_KEY] = measured.to(self.device)
        return tensors


class CellsMixin(RegisteredMixin):
    """From an AnnData to batches on the model's device."""

    def _select(
        self,
        adata: AnnData | None,
        indices: Sequence[int] | NDArray[Any] | None = None,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> CellSelection:
        """Resolve the AnnData, the positions of cells, and the layer with counts."""
        adata = self.adata if adata is None else check_anndata(self._cells_of(adata))
        if adata is None:
            raise ValueError("This model has no AnnData of its own; say which cells: `adata=`.")
        if indices is None:
            positions = np.arange(adata.n_obs)
        else:
            positions = check_indices(indices, adata.n_obs, adata.obs_names)
        self._check_selection(adata, positions)
        layer = choose_layer(adata, layer, self.layer)
        return CellSelection(adata, positions, layer, min_gene_overlap)

    def _cells_of(self, adata: AnnData) -> AnnData:
        """Convert the cells that a verb was given to the AnnData that the model reads."""
        return adata

    def _check_selection(self, adata: AnnData, positions: NDArray[np.intp]) -> None:
        """Warn about cells for which predictions may be wrong; nothing by default."""

    def _read(
        self, cells: CellSelection, arrays: Mapping[str, NDArray[Any]] | None = None
    ) -> CellReader:
        """Match genes and conditions of cells, and return their reader; ``arrays`` are of them."""
        self.module.eval()
        return CellReader(
            cells,
            align_genes(self.gene_names, cells.adata.var, cells.min_gene_overlap),
            self._conditions_of(cells.adata)[cells.positions],
            self.module.device,
            arrays or {},
        )

    def _map_cells(
        self,
        function: Callable[[dict[str, Tensor]], T],
        cells: CellSelection,
        batch_size: int | None = None,
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> Iterator[T]:
        """Apply ``function`` to minibatches of cells, see :meth:`CellReader.map`."""
        return self._read(cells, arrays).map(function, batch_size)

    def _stack(
        self,
        function: Callable[[dict[str, Tensor]], NDArray[np.float32]],
        n_columns: int,
        cells: CellSelection,
        batch_size: int | None,
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> NDArray[np.float32]:
        """Apply ``function`` as :meth:`_map_cells` does, and concatenate the results."""
        self._require_trained()
        parts = self._map_cells(function, cells, batch_size, arrays)
        return np.concatenate([np.zeros((0, n_columns), np.float32), *parts])

    def _conditions_of(self, adata: AnnData) -> NDArray[np.int64]:
        """Look up codes of conditions; refuse unknown ones if the model needs the batch."""
        codes = condition_codes(self.conditions, adata.obs)
        if (codes < 0).any() and self.module.needs_batch:
            column = self.conditions[int((codes < 0).any(axis=0).argmax())].key
            raise ValueError(
                f"The encoder depends on {column!r}, which is missing or holds values that the "
                "model does not know. Map the cells first: "
                f"`{type(self).__name__}.load_query_data(adata, model)`."
            )
        return codes


def _read_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the items; a thread makes the next one while the caller works on this one."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        # The first one here, where checks of all cells warn at the line of the user.
        item = next(items, end)
        while item is not end:
            upcoming = thread.submit(next, items, end)
            yield cast("T", item)
            item = upcoming.result()


def _is_range(cells: NDArray[np.intp]) -> bool:
    return bool((cells == np.arange(len(cells))).all())
