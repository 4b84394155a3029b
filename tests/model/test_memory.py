"""Prediction holds a block of cells, not the file."""

import json
import resource
import subprocess
import sys

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata.io import sparse_dataset, write_elem
from scipy import sparse

N_GENES, N_LABELS, GENES_PER_CELL, BLOCK = 19_331, 164, 2_000, 2_000
GENES = [f"gene{i}" for i in range(N_GENES)]


def write_counts(path, n_cells):
    """Write random counts, a block at a time."""
    rng = np.random.default_rng(0)

    def block():
        x = sparse.random(BLOCK, N_GENES, GENES_PER_CELL / N_GENES, "csr", np.float32, rng)
        x.data = 1 + np.floor(5 * x.data**3)
        return x

    names = pd.DataFrame(index=[f"cell{i}" for i in range(n_cells)])
    with h5py.File(path, "w") as file:
        write_elem(file, "/", ad.AnnData(obs=names, var=pd.DataFrame(index=GENES)))
        write_elem(file, "X", block())
        for _ in range(BLOCK, n_cells, BLOCK):
            sparse_dataset(file["X"]).append(block())


def peak():
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def predict(path):
    """Predict a file with the published network, and print the GiB above those of the imports."""
    from scvi_sctab import SCTAB
    from scvi_sctab.model._published import make_registry

    imports = peak()
    labels = [f"type {i}" for i in range(N_LABELS)]
    model = SCTAB(registry=make_registry(SCTAB, GENES, labels), preset="paper")
    model.is_trained_ = True
    n_predicted = len(model.predict(ad.read_h5ad(path, backed="r")))
    print(json.dumps([n_predicted, peak() - imports]))


def peak_above_imports(n_cells, folder):
    file = folder / f"{n_cells}.h5ad"
    write_counts(file, n_cells)
    command = [sys.executable, __file__, str(file)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    n_predicted, above = json.loads(output.splitlines()[-1])
    assert n_predicted == n_cells
    return above


@pytest.mark.slow(reason="predicts 12,000 cells with the published network")
def test_peak_memory_stays_under_two_gib_and_does_not_grow_with_the_file(tmp_path):
    few, many = (peak_above_imports(n_cells, tmp_path) for n_cells in (4_000, 12_000))
    assert many < 2
    assert many - few < 0.25


if __name__ == "__main__":
    predict(sys.argv[1])
