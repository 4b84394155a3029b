"""Part `train`: training on the bundled eight donors, by the small preset and documented recipes."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from _peers import log_normalise
from _speed_clock import Row, Run, Settings, alternate, rows, skipped
from _speed_predict import normalise, silence

from scvi_sctab import SCTAB, datasets

if TYPE_CHECKING:
    from anndata import AnnData

LABELS, DONORS = "cell_type", "donor_id"
QUIET = {"enable_progress_bar": False}
N_TOP_GENES = 2_000


def _sctab(adata: AnnData, quick: bool) -> Run:
    limit = {"max_epochs": 2} if quick else {}

    def train(cells: AnnData) -> None:
        SCTAB.setup_anndata(cells, labels_key=LABELS, donor_key=DONORS)
        SCTAB(cells, preset="small").train(**limit, **QUIET)

    return Run("SCTAB, small preset", train, adata.copy)


def _scanvi(adata: AnnData, quick: bool) -> Run:
    import scanpy as sc
    import scvi

    # The tutorial's flavour, seurat_v3, fits a curve per donor, which fails on this few cells.
    options = {"n_top_genes": N_TOP_GENES, "batch_key": DONORS, "inplace": False}
    genes = sc.pp.highly_variable_genes(normalise(adata.copy()), **options)
    chosen = adata[:, genes["highly_variable"].to_numpy()].copy()
    limit = {"max_epochs": 2} if quick else {}

    def train(cells: AnnData) -> None:
        scvi.model.SCVI.setup_anndata(cells, batch_key=DONORS)
        base = scvi.model.SCVI(cells, n_layers=2, n_latent=30, gene_likelihood="nb")
        base.train(**limit, **QUIET)
        model = scvi.model.SCANVI.from_scvi_model(
            base, unlabeled_category="Unknown", labels_key=LABELS
        )
        model.train(**{"max_epochs": 20, "n_samples_per_label": 100, **limit}, **QUIET)

    return Run("scANVI", train, chosen.copy)


def _celltypist(adata: AnnData, quick: bool) -> Run:
    import celltypist

    celltypist.logger.set_level(logging.ERROR)
    cells = normalise(adata.copy())
    options = {"max_iter": 5} if quick else {}
    options |= {"feature_selection": True, "n_jobs": 2}
    return Run("CellTypist, two-pass", lambda: celltypist.train(cells, labels=LABELS, **options))


def _logreg(adata: AnnData, quick: bool) -> Run:
    from sklearn.linear_model import LogisticRegression

    x, labels = log_normalise(adata.X), np.asarray(adata.obs[LABELS]).astype(str)
    options = {"class_weight": "balanced", "max_iter": 5 if quick else 1000}
    return Run("logistic regression", lambda: LogisticRegression(**options).fit(x, labels))


NOTES = {
    "SCTAB, small preset": "all genes; set-up and held-out donors included",
    "scANVI": f"{N_TOP_GENES:,} genes (seurat flavour by donor, chosen untimed); SCVI for its default "
    "epochs, SCANVI for 20",
    "CellTypist, two-pass": "all genes, log-normalised untimed; feature_selection, 2 jobs",
    "logistic regression": "scikit-learn, balanced, lbfgs; all genes, log-normalised untimed",
}


def run(settings: Settings) -> list[Row]:
    """The part ``train``."""
    silence()
    adata = datasets.pbmc_kang18()
    builders = [_sctab]
    peers = ((_scanvi, ("scanpy",)), (_celltypist, ("celltypist",)), (_logreg, ()))
    for build, needs in peers:
        absent = [name for name in needs if not find_spec(name)]
        if absent:
            skipped(build.__name__.strip("_"), f"{absent} not installed")
        else:
            builders.append(build)
    runs = [build(adata, settings.quick) for build in builders]
    if not settings.quick:
        # A run takes minutes, so what compiles and caches does it on two epochs.
        alternate([build(adata, True) for build in builders], 1, warm_up=False)
    seconds = alternate(runs, 1 if settings.quick else settings.repeats, warm_up=False)
    n_types = adata.obs[LABELS].nunique()
    case = f"{adata.n_obs:,} cells, {adata.n_vars:,} genes, {n_types} types"
    return rows(case, "time of training", "s", seconds, NOTES)
