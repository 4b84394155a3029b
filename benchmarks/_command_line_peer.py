"""CellTypist for ``command_line.py``: ``train`` a model, or ``annotate`` a file end to end.

Runs under the interpreter of CellTypist's own environment; nothing of this repository is imported.
"""

from __future__ import annotations

import sys
from pathlib import Path

import celltypist
import numpy as np
import scanpy as sc


def read(path: Path) -> sc.AnnData:
    """Read counts, and normalise them as CellTypist asks for."""
    cells = sc.read_h5ad(path)
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    return cells


def main() -> None:
    """Train or annotate in the folder that the command line names."""
    part, folder = sys.argv[1], Path(sys.argv[2])
    model = folder / "celltypist.pkl"
    if part == "train":
        np.random.seed(0)  # noqa: NPY002, the SGD of CellTypist draws from the global state
        trained = celltypist.train(
            read(folder / "reference.h5ad"), labels="cell_type", feature_selection=True, n_jobs=1
        )
        trained.write(str(model))
        return
    predictions = celltypist.annotate(read(folder / "query.h5ad"), model=str(model))
    predictions.to_table(str(folder), prefix="celltypist_")


if __name__ == "__main__":
    main()
