"""Other methods of the protein part, each a function of a split and a seed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
from _peers import log_normalise
from _pretraining_protein_tasks import PROTEINS, ProteinSplit
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV

N_COMPONENTS = 50
N_TOP_GENES = 4000
BATCH, KNOWN, MISSING = "side", "with proteins", "without"


class ProteinArm(NamedTuple):
    """One selectable method: ``log1p`` counts ``(n_query, n_proteins)`` of a split and a seed."""

    name: str
    run: Callable[[ProteinSplit, int], np.ndarray]
    seeded: bool = True
    missing: str = ""


def mean_protein(split: ProteinSplit, seed: int) -> np.ndarray:
    """The reference's means: what a correlation by cell is worth without looking at a cell."""
    del seed
    known = np.log1p(split.reference.obsm[PROTEINS].to_numpy())
    return np.tile(known.mean(axis=0), (split.query.n_obs, 1))


def ridge(split: ProteinSplit, seed: int) -> np.ndarray:
    """Ridge regression on principal components of log-normalised genes, weight by leave-one-out."""
    del seed
    sides = [log_normalise(side.X).toarray() for side in (split.reference, split.query)]
    components = min(N_COMPONENTS, split.reference.n_obs - 1)
    pca = PCA(components, svd_solver="full").fit(sides[0])
    model = RidgeCV(np.logspace(-1, 6, 29), alpha_per_target=True)
    model.fit(pca.transform(sides[0]), np.log1p(split.reference.obsm[PROTEINS].to_numpy()))
    return model.predict(pca.transform(sides[1]))


def totalvi(split: ProteinSplit, seed: int) -> np.ndarray:
    """The recipe of totalVI, as its tutorial imputes proteins that one batch lacks.

    Both sides are trained on jointly, the query's proteins are zeros, which marks them as missing
    in its batch; 4,000 variable genes by batch, default epochs; proteins with their background,
    as if the cells were of the reference's batch. Unlike the others it sees the query's RNA.
    """
    import scanpy as sc
    import scvi

    scvi.settings.seed = seed
    query = split.query.copy()
    columns = split.reference.obsm[PROTEINS].columns
    query.obsm[PROTEINS] = pd.DataFrame(0.0, index=query.obs_names, columns=columns)
    sides = {KNOWN: split.reference, MISSING: query}
    joint = anndata.concat(sides, label=BATCH, index_unique="-")
    options = {"n_top_genes": min(N_TOP_GENES, joint.n_vars), "batch_key": BATCH}
    try:
        genes = sc.pp.highly_variable_genes(joint, flavor="seurat_v3", inplace=False, **options)
    except ValueError as error:  # its loess fails on few cells
        logging.warning("seurat_v3 genes failed (%s); scanpy's default flavour instead", error)
        normalised = anndata.AnnData(log_normalise(joint.X), obs=joint.obs, var=joint.var)
        genes = sc.pp.highly_variable_genes(normalised, inplace=False, **options)
    joint = joint[:, genes["highly_variable"].to_numpy()].copy()
    scvi.model.TOTALVI.setup_anndata(joint, batch_key=BATCH, protein_expression_obsm_key=PROTEINS)
    model = scvi.model.TOTALVI(joint, latent_distribution="normal", n_layers_decoder=2)
    model.train(accelerator="cpu", enable_progress_bar=False)
    _, proteins = model.get_normalized_expression(
        indices=np.flatnonzero(joint.obs[BATCH] == MISSING),
        transform_batch=[KNOWN],
        n_samples=25,
        include_protein_background=True,
        sample_protein_mixing=False,
        return_mean=True,
    )
    return np.log1p(proteins[list(columns)].to_numpy())


def build_peers() -> dict[str, ProteinArm]:
    """Every peer by its key on the command line, in the order of the table."""
    no_scvi = "" if find_spec("scvi") else "scvi-tools is not installed"
    return {
        "mean": ProteinArm("mean of the reference", mean_protein, False),
        "ridge": ProteinArm("ridge on PCA", ridge, False),
        "totalvi": ProteinArm("totalVI", totalvi, True, no_scvi),
    }
