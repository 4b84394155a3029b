"""Make the models of CellTypist of this folder, and what CellTypist says of some cells.

Run by the interpreter of an environment of its own, from the root of the repository:

    python -m venv celltypist && celltypist/bin/pip install celltypist==1.7.1 'scikit-learn<1.8'
    celltypist/bin/python tests/model/celltypist/make.py

It needs no package of this repository. The cells are bundled data (MIT licence).
"""

import warnings
from pathlib import Path

import numpy as np
from anndata import AnnData, read_h5ad

FOLDER = Path(__file__).parent
DATA = FOLDER.parents[2] / "src/scvi_sctab/datasets"
MODELS = {
    "logistic": {"feature_selection": True, "top_genes": 20},
    "sgd": {"use_SGD": True, "feature_selection": True, "top_genes": 10},
    "binary": {"with_mean": False, "feature_selection": True, "top_genes": 50},
}


def normalized(adata: AnnData) -> AnnData:
    """Normalise as CellTypist wants it."""
    import scanpy as sc

    adata = adata.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


def main() -> None:
    """Train models on Kang et al., and annotate cells of pbmc3k by them."""
    import celltypist

    warnings.simplefilter("ignore")
    reference = normalized(read_h5ad(DATA / "kang18_ifnb_2800.h5ad"))
    query = read_h5ad(DATA / "pbmc3k_labelled.h5ad")[::40].copy()
    query.X = query.X.toarray()  # CellTypist fails on sparse cells if a model has no mean
    tables = {"cells": query.obs_names.to_numpy(dtype=str)}
    for name, arguments in MODELS.items():
        cells = reference
        if name == "binary":
            cells = cells[cells.obs["cell_type"].isin(["B", "NK"])].copy()
        np.random.seed(0)  # noqa: NPY002  # which CellTypist draws from
        model = celltypist.train(cells, "cell_type", n_jobs=1, check_expression=False, **arguments)
        model.write(str(FOLDER / f"{name}.pkl"))
        table = celltypist.annotate(normalized(query), model).probability_matrix
        tables[f"{name}_labels"] = table.columns.to_numpy(dtype=str)
        tables[f"{name}_probabilities"] = table.to_numpy()
        shared = np.isin(model.features, query.var_names)
        print(name, len(model.features), "genes,", shared.sum(), "in the query")
    np.savez_compressed(FOLDER / "expected.npz", **tables)


if __name__ == "__main__":
    main()
