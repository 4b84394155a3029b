"""Part `predict`: from cells to labels, by our ``predict`` and by the functions of other methods."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from _peers import log_normalise
from _speed_clock import Row, Run, Settings, alternate, rows, skipped
from _speed_data import (
    N_GENES,
    as_anndata,
    gene_names,
    load_counts,
    repeat_cells,
    type_names,
)
from _speed_memory import measure
from _speed_network import TRAINED_STEPS, settle

if TYPE_CHECKING:
    from anndata import AnnData
    from celltypist.models import Model
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    from scvi_sctab import SCTAB

PAPER, SMALL = "SCTAB, published network", "SCTAB, small preset"
CELLTYPIST, CELLTYPIST_COUNTS = "CellTypist", "CellTypist, from counts"
LOGREG, SCANVI = "logistic regression", "scANVI"
NOTES = {
    PAPER: "from raw counts",
    SMALL: "from raw counts",
    CELLTYPIST: "log-normalised cells, made untimed",
    CELLTYPIST_COUNTS: "normalize_total, log1p, annotate",
    LOGREG: "predict_proba of scikit-learn; log-normalised CSR, made untimed",
    SCANVI: "from raw counts, all genes; 2 layers, 30 latent dimensions",
}


def silence() -> None:
    """No progress and no advice between the lines of the table."""
    import scvi

    scvi.settings.verbosity = logging.ERROR
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)


def sctab_model(preset: str, n_genes: int = N_GENES) -> SCTAB:
    """A model with random weights over `n_genes` and 164 types."""
    from scvi_sctab import SCTAB
    from scvi_sctab.model._published import make_registry

    registry = make_registry(SCTAB, gene_names(n_genes), type_names())
    model = SCTAB(registry=registry, preset=preset)
    model.is_trained_ = True
    return model


def _classifier(n_genes: int) -> LogisticRegression:
    """A fitted regression over all types with random coefficients."""
    from sklearn.linear_model import LogisticRegression

    labels = np.array(type_names())
    rng = np.random.default_rng(0)
    model = LogisticRegression()
    model.classes_ = labels
    model.coef_ = rng.normal(0, 0.1, (len(labels), n_genes))
    model.intercept_ = rng.normal(0, 0.1, len(labels))
    model.n_features_in_ = n_genes
    return model


def celltypist_model(lognorm: sparse.csr_matrix) -> Model:
    """CellTypist's pair of scaler and regression (one against all), random coefficients."""
    from celltypist.models import Model
    from sklearn.preprocessing import StandardScaler

    classifier = _classifier(lognorm.shape[1])
    classifier.multi_class = "ovr"
    classifier.features = np.array(gene_names(lognorm.shape[1]))
    scaler = StandardScaler().fit(lognorm[:1000].toarray())
    return Model(classifier, scaler, {"date": "", "details": "", "source": "", "version": ""})


def normalise(adata: AnnData) -> AnnData:
    """What CellTypist asks its users for."""
    import scanpy as sc

    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


def _celltypist(counts: sparse.csr_matrix, *, from_counts: bool) -> Run:
    import celltypist

    logging.getLogger("celltypist").setLevel(logging.ERROR)
    celltypist.logger.set_level(logging.ERROR)
    model = celltypist_model(log_normalise(counts[:1000]).astype(np.float32))
    if from_counts:
        # scanpy normalises in place, and the same counts serve every method.
        return Run(
            CELLTYPIST_COUNTS,
            lambda cells: celltypist.annotate(normalise(cells), model=model),
            as_anndata(counts).copy,
        )
    adata = normalise(as_anndata(counts.copy()))
    return Run(CELLTYPIST, lambda: celltypist.annotate(adata, model=model))


def _sctab(counts: sparse.csr_matrix, *, preset: str, n_steps: int = 0) -> Run:
    adata, model = as_anndata(counts), sctab_model(preset, counts.shape[1])
    settle(model.module, counts, n_steps)
    return Run({"paper": PAPER, "small": SMALL}[preset], lambda: model.predict(adata))


def _logreg(counts: sparse.csr_matrix) -> Run:
    x, model = log_normalise(counts), _classifier(counts.shape[1])
    return Run(LOGREG, lambda: model.predict_proba(x))


def _scanvi(counts: sparse.csr_matrix) -> Run:
    import scvi

    adata = as_anndata(counts)
    scvi.model.SCANVI.setup_anndata(
        adata, labels_key="cell_type", unlabeled_category="Unknown", batch_key=None
    )
    model = scvi.model.SCANVI(adata, n_layers=2, n_latent=30, gene_likelihood="nb")
    model.is_trained_ = True
    model.module.eval()
    return Run(SCANVI, lambda: model.predict(adata))


BUILDERS: dict[str, Callable[..., Run]] = {
    PAPER: partial(_sctab, preset="paper"),
    SMALL: partial(_sctab, preset="small"),
    CELLTYPIST: partial(_celltypist, from_counts=False),
    CELLTYPIST_COUNTS: partial(_celltypist, from_counts=True),
    LOGREG: _logreg,
    SCANVI: _scanvi,
}
NEEDS = {
    PAPER: ["scvi_sctab.model"],
    SMALL: ["scvi_sctab.model"],
    CELLTYPIST: ["celltypist", "scanpy"],
    CELLTYPIST_COUNTS: ["celltypist", "scanpy"],
    LOGREG: ["sklearn.linear_model", "anndata"],
    SCANVI: ["scvi"],
}


def memory_task(method: str, data: str, n_cells: int) -> None:
    """Predict once; called in a fresh process."""
    run = BUILDERS[method](repeat_cells(load_counts(data), n_cells))
    given = run.prepare()
    run.call(*(() if given is None else (given,)))


def run(settings: Settings) -> list[Row]:
    """The part ``predict``."""
    silence()
    n_cells = min(settings.cells, 500) if settings.quick else settings.cells
    counts = repeat_cells(load_counts(settings.data), n_cells)
    case = f"{n_cells:,} cells, {counts.shape[1]:,} genes, 164 types"
    missing = {
        method: [name for name in needs if not find_spec(name.partition(".")[0])]
        for method, needs in NEEDS.items()
    }
    for method, names in missing.items():
        if names:
            skipped(method, f"{names} not installed")
    methods = [method for method in BUILDERS if not missing[method]]
    # Masks of random weights hold one gene; training spreads them, and wider ones cost us more.
    steps = {"n_steps": 2 if settings.quick else TRAINED_STEPS}
    runs = [BUILDERS[m](counts, **(steps if m in (PAPER, SMALL) else {})) for m in methods]
    seconds = alternate(runs, settings.repeats)
    found = rows(case, "time", "s", seconds, NOTES)
    speed = {m: [n_cells / s for s in values] for m, values in seconds.items()}
    found += rows(case, "cells per second", "cells/s", speed, NOTES)
    peaks = {
        method: [
            measure(
                "_speed_predict",
                "memory_task",
                NEEDS[method],
                method=method,
                data=str(settings.data),
                n_cells=n_cells,
            )["above"]
        ]
        for method in methods
    }
    return found + rows(case, "peak memory", "MiB", peaks, dict.fromkeys(peaks, "cells included"))
