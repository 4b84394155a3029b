"""Recognition of cells by name and counts, in any order and storage."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvi_sctab.data._genes import align_genes
from scvi_sctab.data._kernels import hash_rows
from scvi_sctab.data._reader import read_counts
from scvi_sctab.sparse import over_parts

if TYPE_CHECKING:
    from scvi_sctab._types import Names
    from scvi_sctab.data._selection import CellSelection

Hashes = NDArray[np.uint64]

# With at least so many expressed genes, cells with equal counts are the same cell, even if their
# names differ.
_MIN_DISTINCTIVE_GENES = 20
_MIN_ROWS = 64
_EMPTY = np.zeros(0, np.uint64)


@dataclass(frozen=True, eq=False)
class CellIdentities:
    """Hashes of cells, independent of their order.

    Attributes
    ----------
    keys
        Hash of name and counts, ``(n_cells,)``.
    counts
        Hash of the counts alone, ``(n_cells,)``; 0 where a cell expresses too few genes to be
        recognised by them.
    """

    keys: Hashes
    counts: Hashes

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def none(cls) -> CellIdentities:
        """Return the identities of no cells."""
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.uint64))

    def among(self, others: CellIdentities) -> NDArray[np.bool_]:
        """Mark the cells that are among others, by name and counts or by counts alone."""
        by_counts = (self.counts != 0) & np.isin(self.counts, others.counts)
        return np.isin(self.keys, others.keys) | by_counts

    def take(self, cells: NDArray[Any]) -> CellIdentities:
        """Select cells, by position or by a mask."""
        return CellIdentities(self.keys[cells], self.counts[cells])

    def join(self, others: CellIdentities) -> CellIdentities:
        """Add cells that are not included yet."""
        new = others.take(~others.among(self))
        return CellIdentities(
            np.concatenate([self.keys, new.keys]), np.concatenate([self.counts, new.counts])
        )


@dataclass(frozen=True, eq=False)
class TrainingRecord:
    """Cells that a model was trained on, and cells that it was not trained on.

    Attributes
    ----------
    trained
        Cells whose label was used in any training.
    held_out
        Held-out cells, which chose the best epoch and calibrate the model.
    set_aside
        Cells of a test set.
    """

    trained: CellIdentities
    held_out: CellIdentities
    set_aside: CellIdentities

    @classmethod
    def join(cls, records: Sequence[TrainingRecord]) -> TrainingRecord:
        """Join the records of several models: trained on by any, held out by all."""
        joined = records[0]
        for record in records[1:]:
            held_out = joined.held_out.take(joined.held_out.among(record.held_out))
            trained = joined.trained.join(record.trained)
            joined = cls(trained, held_out.take(~held_out.among(trained)), joined.set_aside)
        return joined

    def to_dict(self) -> dict[str, NDArray[np.int64]]:
        """Return plain arrays, to save."""
        return {
            f"{part}_{name}": getattr(getattr(self, part), name).view(np.int64)
            for part in ("trained", "held_out", "set_aside")
            for name in ("keys", "counts")
        }

    @classmethod
    def from_dict(cls, saved: dict[str, NDArray[np.int64]]) -> TrainingRecord:
        """Restore the result of :meth:`to_dict`."""
        parts = (
            CellIdentities(
                saved[f"{part}_keys"].view(np.uint64), saved[f"{part}_counts"].view(np.uint64)
            )
            for part in ("trained", "held_out", "set_aside")
        )
        return cls(*parts)


def identify(cells: CellSelection, gene_names: Names) -> CellIdentities:
    """Hash cells by their names and their counts of a model's genes.

    Parameters
    ----------
    cells
        Cells in memory or backed, with genes in any order.
    gene_names
        The model's genes.

    Returns
    -------
    Identities, ``(n_cells,)``. A cell is recognised at another position, under another name, in
    another storage format, and with additional genes.
    """
    with warnings.catch_warnings():
        # The first reading of the cells has warned about missing genes.
        warnings.simplefilter("ignore", UserWarning)
        alignment = align_genes(gene_names, cells.adata.var, cells.min_gene_overlap)
        blocks = read_counts(cells.adata, cells.layer, cells.positions, alignment)
        parts = [(_EMPTY, _EMPTY), *map(hash_counts, blocks)]
    hashes, n_genes = zip(*parts, strict=True)
    counts = np.concatenate(hashes)
    distinctive = np.concatenate(n_genes) >= _MIN_DISTINCTIVE_GENES
    names = pd.util.hash_array(cells.names.astype(str).to_numpy(dtype=object))
    keys = names * np.uint64(3) + counts
    return CellIdentities(keys, np.where(distinctive, counts, np.uint64(0)))


def hash_counts(block: Any) -> tuple[Hashes, Hashes]:
    """Hash the nonzero counts of each row, independent of the order of columns.

    Parameters
    ----------
    block
        CSR, float32, ``(n_cells, n_genes)``.

    Returns
    -------
    Hashes, and the number of nonzero counts of each row, each ``(n_cells,)``.
    """
    hashes, n_genes = np.empty((2, block.shape[0]), dtype=np.uint64)
    bits = np.ascontiguousarray(block.data, dtype=np.float32).view(np.uint32)
    over_parts(
        hash_rows,
        len(hashes),
        block.indptr,
        block.indices,
        bits,
        hashes,
        n_genes,
        min_rows=_MIN_ROWS,
    )
    return hashes, n_genes
