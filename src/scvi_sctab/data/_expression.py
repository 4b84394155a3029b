"""Log-normalised expression as a sparse matrix, for methods that are not networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scipy import sparse

from scvi_sctab.data._reader import read_counts
from scvi_sctab.nn._transforms import normalize_counts
from scvi_sctab.sparse import to_scipy, to_tensor

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray

    from scvi_sctab.data._genes import GeneAlignment


def normalized_expression(
    adata: AnnData,
    layer: str | None = None,
    alignment: GeneAlignment | None = None,
    indices: NDArray[np.intp] | None = None,
) -> sparse.csr_matrix:
    """Compute ``log(1 + x)`` of the counts per 10,000 of each cell, without making them dense.

    The values are those that a network reads, see :func:`scvi_sctab.nn.normalize_counts`.

    Parameters
    ----------
    adata
        Raw counts, in memory or backed; dense, CSR or CSC. It is not changed.
    layer
        Layer with the counts; ``None`` is ``X``.
    alignment
        Alignment with the genes of a model, over which cells are then normalised; if not given,
        genes are those of ``adata``.
    indices
        Positions of cells; all if not given.

    Returns
    -------
    ``(n_cells, n_genes)``, CSR, float32, columns increasing in every row.

    Raises
    ------
    NotCountsError
        If a value is not a raw count.
    """
    n_genes = adata.n_vars if alignment is None else alignment.n_genes
    blocks = [sparse.csr_matrix((0, n_genes), dtype="float32")]
    for counts in read_counts(adata, layer, indices, alignment):
        blocks.append(normalize_block(counts))
    return sparse.vstack(blocks, format="csr")


def normalize_block(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Normalise rows in memory as :func:`scvi_sctab.nn.normalize_counts` does.

    Parameters
    ----------
    counts
        Raw counts, ``(n_cells, n_genes)``, CSR, columns increasing in every row.
    """
    return to_scipy(normalize_counts(to_tensor(counts)))
