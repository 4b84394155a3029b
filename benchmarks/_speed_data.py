"""Cells of the speed benchmark: real counts, repeated and spread over the columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    import torch
    from anndata import AnnData

FILE = "hao21_pbmc_1000_unlabelled.h5ad"
N_GENES, N_LABELS = 19_331, 164
"""Genes and cell types of the published scTab."""


def load_counts(folder: str | Path, n_genes: int = N_GENES) -> sparse.csr_matrix:
    """Raw counts of 1,000 PBMCs, their columns spread evenly over `n_genes`.

    Genes that the file lacks are zero; cells keep their counts.

    Returns
    -------
    CSR matrix ``(1_000, n_genes)``, float32 with int32 indices.
    """
    from anndata import read_h5ad

    path = Path(folder) / FILE
    if not path.exists():
        raise SystemExit(f"{path} is not there; name its folder with --data or SCVI_SCTAB_DATA.")
    counts = sparse.csr_matrix(read_h5ad(path).X, dtype=np.float32)
    if counts.shape[1] > n_genes:
        raise ValueError(f"{path} has {counts.shape[1]:,} genes, more than {n_genes:,}.")
    columns = np.linspace(0, n_genes - 1, counts.shape[1]).round().astype(np.int32)
    shape = (counts.shape[0], n_genes)
    return sparse.csr_matrix((counts.data, columns[counts.indices], counts.indptr), shape=shape)


def load_gates(folder: str | Path) -> np.ndarray:
    """Types of the same cells by gates on marker genes, strings; what a network can learn."""
    from anndata import read_h5ad

    return read_h5ad(Path(folder) / FILE).obs["marker_gate_heuristic"].to_numpy(dtype=str)


def repeat_cells(counts: sparse.csr_matrix, n_cells: int) -> sparse.csr_matrix:
    """The first `n_cells` of the same cells over and over."""
    return counts[np.arange(n_cells) % counts.shape[0]]


def thin(counts: sparse.csr_matrix, share: float) -> sparse.csr_matrix:
    """A `share` of the nonzeros of all cells together, drawn at random; the others become zero."""
    keep = np.random.default_rng(0).random(counts.nnz) < share
    thinned = counts.copy()
    thinned.data[~keep] = 0
    thinned.eliminate_zeros()
    return thinned


def n_bytes(counts: sparse.csr_matrix) -> int:
    """Size of the three buffers of a CSR matrix."""
    return counts.data.nbytes + counts.indices.nbytes + counts.indptr.nbytes


def gene_names(n_genes: int = N_GENES) -> list[str]:
    """Names of the columns."""
    return [f"GENE{i:05d}" for i in range(n_genes)]


def type_names(n_labels: int = N_LABELS) -> list[str]:
    """Names of the cell types."""
    return [f"type {i:03d}" for i in range(n_labels)]


def random_labels(n_cells: int, n_labels: int = N_LABELS) -> np.ndarray:
    """Codes of labels, every label as often as any other, in random order."""
    return np.random.default_rng(0).permutation(np.arange(n_cells) % n_labels)


def as_anndata(counts: sparse.csr_matrix) -> AnnData:
    """An AnnData around `counts`, not a copy, with a column ``cell_type`` of random labels."""
    from anndata import AnnData

    labels = pd.Categorical.from_codes(random_labels(counts.shape[0]), type_names())
    obs = pd.DataFrame({"cell_type": labels}, index=[f"cell{i}" for i in range(counts.shape[0])])
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=gene_names(counts.shape[1])))


def as_tensor(counts: sparse.csr_matrix) -> torch.Tensor:
    """Sparse CSR tensor that shares the memory of `counts` (int32 indices)."""
    import torch

    parts = (counts.indptr.astype(np.int32), counts.indices.astype(np.int32), counts.data)
    rows, columns, values = map(torch.from_numpy, parts)
    return torch.sparse_csr_tensor(
        rows, columns, values, size=counts.shape, check_invariants=False
    )
