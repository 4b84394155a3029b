"""Made atlas: rows of real cells whose genes are moved by cell type, in many files."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scvi_sctab import datasets

N_GENES, N_TYPES, N_DONORS = 19_331, 164, 20
CELLS_PER_FILE = 100_000
KEYS = {"labels_key": "cell_type", "donor_key": "donor", "batch_key": "assay"}
_BLOCK = 20_000


def template() -> sparse.csr_matrix:
    """Counts of bundled cells, in the first columns of as many genes as scTab has."""
    parts = [cells.X.tocsr() for cells in (datasets.pbmc_kang18(), datasets.pbmc3k())]
    for part in parts:
        part.resize(part.shape[0], N_GENES)
    return sparse.vstack(parts, format="csr").astype(np.float32)


def draw(
    rows: sparse.csr_matrix, n_cells: int, seed: int
) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Draw cells; the genes of a type are those of the template, moved by a distance of its own.

    Each donor lacks a twentieth of the genes, which makes differences between donors.
    """
    rng = np.random.default_rng(seed)
    types, donors = rng.integers(N_TYPES, size=n_cells), rng.integers(N_DONORS, size=n_cells)
    cells = rows[rng.integers(rows.shape[0], size=n_cells)]
    lengths = np.diff(cells.indptr)
    genes = (cells.indices + np.repeat(types * (N_GENES // N_TYPES), lengths)) % N_GENES
    lost = (genes * 7 + np.repeat(donors, lengths)) % 20 == 0
    cells.indices = genes.astype(np.int32)
    cells.data[lost] = 0
    cells.eliminate_zeros()
    cells.sort_indices()
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(types, [f"type {i}" for i in range(N_TYPES)]),
            "donor": pd.Categorical.from_codes(donors, [f"donor {i}" for i in range(N_DONORS)]),
            "assay": pd.Categorical(np.where(donors % 2, "10x 3' v3", "10x 5' v1")),
        },
        index=[f"{seed}-{i}" for i in range(n_cells)],
    )
    return cells, obs


def write(folder: str, n_cells: int) -> dict[str, float]:
    """Write the files that are missing; return their size."""
    rows = template()
    var = pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)])
    for number, start in enumerate(range(0, n_cells, CELLS_PER_FILE)):
        path = Path(folder) / f"made-{number}.h5ad"
        if path.exists():
            continue
        n_here = min(CELLS_PER_FILE, n_cells - start)
        blocks = [
            draw(rows, min(_BLOCK, n_here - first), number * 1000 + first // _BLOCK)
            for first in range(0, n_here, _BLOCK)
        ]
        cells = ad.AnnData(
            sparse.vstack([counts for counts, _ in blocks], format="csr"),
            pd.concat([obs for _, obs in blocks]),
            var,
        )
        part = path.with_suffix(".part")
        cells.write_h5ad(part)
        part.rename(path)
    return {"values_per_cell": float(np.diff(rows.indptr).mean())}


def files(folder: str, n_cells: int) -> list[Path]:
    """List the files of an atlas of this size."""
    n_files = -(-n_cells // CELLS_PER_FILE)
    return [Path(folder) / f"made-{number}.h5ad" for number in range(n_files)]
