"""Peak memory of ``predict`` on backed files, above that of the imports.

Writes files of random counts, block by block, and predicts each in a process of its own with the
published network (19,331 genes, 164 labels, random weights).

    .venv/bin/python benchmarks/memory.py --cells 10000 50000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

N_GENES, N_LABELS = 19_331, 164
GENES_PER_CELL = 2_000
BLOCK = 2_000


def write_counts(path: Path, n_cells: int) -> None:
    """Write a backed file of ``n_cells`` cells without holding more than a block."""
    import anndata as ad
    import h5py
    import numpy as np
    import pandas as pd
    from anndata.io import sparse_dataset, write_elem
    from scipy import sparse

    rng = np.random.default_rng(0)

    def block(n: int) -> sparse.csr_matrix:
        x = sparse.random(n, N_GENES, GENES_PER_CELL / N_GENES, "csr", np.float32, rng)
        x.data = 1 + np.floor(5 * x.data**3)
        return x

    with h5py.File(path, "w") as file:
        names = pd.DataFrame(index=[f"cell{i}" for i in range(n_cells)])
        genes = pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(N_GENES)])
        write_elem(file, "/", ad.AnnData(obs=names, var=genes))
        write_elem(file, "X", block(min(BLOCK, n_cells)))
        stored = sparse_dataset(file["X"])
        for start in range(BLOCK, n_cells, BLOCK):
            stored.append(block(min(BLOCK, n_cells - start)))


def predict(path: Path) -> dict[str, float]:
    """Predict a file and measure; runs in a fresh process."""
    import resource

    import anndata as ad

    from scvi_sctab import SCTAB
    from scvi_sctab.model._published import make_registry

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    imports = peak()
    genes = [f"ENSG{i:011d}" for i in range(N_GENES)]
    labels = [f"type {i:03d}" for i in range(N_LABELS)]
    model = SCTAB(registry=make_registry(SCTAB, genes, labels), preset="paper")
    model.is_trained_ = True
    adata = ad.read_h5ad(path, backed="r")
    start = time.perf_counter()
    predicted = model.predict(adata)
    seconds = time.perf_counter() - start
    return {
        "cells": len(predicted),
        "imports_gib": imports,
        "above_gib": peak() - imports,
        "seconds": seconds,
    }


def main() -> None:
    """Print a line per size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[5_000, 50_000])
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.file:
        print(json.dumps(predict(arguments.file)))
        return
    print(f"{'cells':>9} {'imports':>9} {'above':>9} {'seconds':>9}")
    for n_cells in arguments.cells:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "cells.h5ad"
            write_counts(file, n_cells)
            command = [sys.executable, __file__, "--file", str(file)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            row = json.loads(output.splitlines()[-1])
        print(
            f"{row['cells']:>9,} {row['imports_gib']:>7.2f}Gi {row['above_gib']:>7.2f}Gi "
            f"{row['seconds']:>9.1f}"
        )


if __name__ == "__main__":
    main()
