"""Methods of the accuracy benchmark, each a function of a task and a seed."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.linear_model import LogisticRegression

if TYPE_CHECKING:
    from _tasks import Task
    from anndata import AnnData
    from scvi.model import SCANVI

HERE = Path(__file__).resolve().parent


class Prediction(NamedTuple):
    """Labels that one method gave to the query of one task."""

    method: str
    labels: np.ndarray  # (n_query,), strings
    seconds: float  # training and prediction, reading of files excluded


@dataclass(frozen=True)
class Method:
    """One selectable method.

    Parameters
    ----------
    key
        Name on the command line.
    run
        Function of a task and a seed that gives one or more rows of the table.
    seeded
        Whether the result depends on the seed. A deterministic method runs once per task.
    missing
        Why the method cannot run here; empty where it can.
    """

    key: str
    run: Callable[[Task, int], list[Prediction]]
    seeded: bool
    missing: str = ""


def sctab(task: Task, seed: int, *, preset: str | None = None) -> list[Prediction]:
    """SCTAB with its defaults, or with another preset."""
    import scvi

    from scvi_sctab import SCTAB

    scvi.settings.seed = seed
    reference, query = task.labelled_reference(), task.unlabelled_query()
    start = time.perf_counter()
    SCTAB.setup_anndata(reference, labels_key=task.label_key, donor_key=task.donor_key)
    model = SCTAB(reference) if preset is None else SCTAB(reference, preset=preset)
    model.train(enable_progress_bar=False)
    labels = np.asarray(model.predict(query)).astype(str)
    name = "SCTAB" if preset is None else f"SCTAB ({preset})"
    return [Prediction(name, labels, time.perf_counter() - start)]


def align_genes(adata: AnnData, genes: pd.Index) -> sparse.csr_matrix:
    """Counts of `adata` over `genes`, absent genes zero.

    Returns
    -------
    CSR matrix, shape ``(n_cells, n_genes)``, float64.
    """
    positions = adata.var_names.get_indexer(genes)
    found = np.flatnonzero(positions >= 0)
    place = sparse.csr_matrix(
        (np.ones(found.size), (positions[found], found)), shape=(adata.n_vars, len(genes))
    )
    return sparse.csr_matrix(sparse.csr_matrix(adata.X, dtype=np.float64) @ place)


def log_normalise(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """``log1p`` of counts scaled to 10,000 per cell; empty cells stay zero."""
    totals = np.asarray(counts.sum(axis=1)).ravel()
    scale = sparse.diags(1e4 / np.where(totals > 0, totals, 1.0))
    return sparse.csr_matrix(scale @ counts).log1p()


def logistic_regression(task: Task, seed: int) -> list[Prediction]:
    """Class-balanced multinomial logistic regression on the log-normalised reference genes.

    Sparse, not standardised, lbfgs, other settings as scikit-learn has them; deterministic, so
    `seed` is not used.
    """
    del seed
    genes = task.reference.var_names
    start = time.perf_counter()
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(log_normalise(align_genes(task.reference, genes)), task.train_labels)
    labels = model.predict(log_normalise(align_genes(task.query, genes)))
    seconds = time.perf_counter() - start
    if model.n_iter_.max() >= model.max_iter:
        print("  ! logistic regression stopped at max_iter", flush=True)
    return [Prediction("logistic regression", labels.astype(str), seconds)]


def celltypist(
    task: Task,
    seed: int,
    *,
    python: str,
    two_pass: bool,
    shared_genes: bool = False,
) -> list[Prediction]:
    """CellTypist 1.7.1 in its own environment, with and without majority voting.

    One-pass training is the default of `celltypist.train`; two-pass training
    (``feature_selection=True``) is what the custom-model tutorial runs on 2,000 cells x 18,950
    genes. Both normalise over all genes of each file, as documented, unless `shared_genes`.
    """
    passes = "two-pass" if two_pass else "one-pass"
    name = f"CellTypist {passes}{', shared genes' if shared_genes else ''}"
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / part for part in ("reference.h5ad", "query.h5ad", "out.csv")]
        task.labelled_reference().write_h5ad(paths[0])
        task.unlabelled_query().write_h5ad(paths[1])
        command = [python, str(HERE / "celltypist_peer.py"), *map(str, paths)]
        command += ["--label-key", task.label_key, "--seed", str(seed)]
        command += ["--two-pass"] * two_pass + ["--shared-genes"] * shared_genes
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
        if done.stdout.strip():
            print(f"  ! {done.stdout.strip()}", flush=True)
        table = pd.read_csv(paths[2], index_col=0, dtype=str)
        seconds = json.loads(paths[2].with_suffix(".json").read_text())
    if not table.index.equals(task.query.obs_names):
        raise RuntimeError("CellTypist returned other cells than it was given.")
    columns = (("", "predicted_labels", "plain"), (" + voting", "majority_voting", "voting"))
    return [
        Prediction(name + suffix, table[column].to_numpy().astype(str), seconds[clock])
        for suffix, column, clock in columns
    ]


def variable_genes(counts: AnnData, batch_key: str, n_top_genes: int = 2000) -> np.ndarray:
    """Mask of the highly variable genes, scanpy's default flavour by batch; all where few.

    Returns
    -------
    Boolean mask, shape ``(n_genes,)``.
    """
    import scanpy as sc

    if counts.n_vars <= n_top_genes:
        return np.ones(counts.n_vars, dtype=bool)
    lognorm = counts.copy()
    sc.pp.normalize_total(lognorm, target_sum=1e4)
    sc.pp.log1p(lognorm)
    options = {"n_top_genes": n_top_genes, "batch_key": batch_key, "inplace": False}
    return sc.pp.highly_variable_genes(lognorm, **options)["highly_variable"].to_numpy()


def map_scanvi(
    reference: AnnData, query: AnnData, label_key: str, batch_key: str
) -> tuple[SCANVI, AnnData]:
    """Map the query onto scANVI by scArches surgery, as the scvi-tools tutorial does.

    2,000 highly variable genes of the reference, the layers that the tutorial sets for surgery,
    default epochs for SCVI, 20 for SCANVI (100 samples per label), 100 without weight decay for
    the query.

    Returns
    -------
    The model of the query, and the reference over its genes.
    """
    import scvi

    reference = reference[:, variable_genes(reference, batch_key)].copy()
    surgery = {"use_layer_norm": "both", "use_batch_norm": "none", "encode_covariates": True}
    size = {"n_layers": 2, "n_latent": 30, "dropout_rate": 0.2, "gene_likelihood": "nb"}
    scvi.model.SCVI.setup_anndata(reference, batch_key=batch_key)
    base = scvi.model.SCVI(reference, **surgery, **size)
    base.train(enable_progress_bar=False)
    model = scvi.model.SCANVI.from_scvi_model(base, "Unknown", labels_key=label_key)
    model.train(max_epochs=20, n_samples_per_label=100, enable_progress_bar=False)
    scvi.model.SCANVI.prepare_query_anndata(query, model)
    mapped = scvi.model.SCANVI.load_query_data(query, model)
    mapped.train(
        max_epochs=100,
        plan_kwargs={"weight_decay": 0.0},
        check_val_every_n_epoch=10,
        enable_progress_bar=False,
    )
    return mapped, reference


def scanvi(task: Task, seed: int) -> list[Prediction]:
    """Labels of scANVI with surgery, donors as batches."""
    import scvi

    scvi.settings.seed = seed
    reference, query = task.labelled_reference(), task.unlabelled_query()
    start = time.perf_counter()
    mapped, _ = map_scanvi(reference, query, task.label_key, task.donor_key)
    labels = np.asarray(mapped.predict()).astype(str)
    return [Prediction("scANVI + surgery", labels, time.perf_counter() - start)]


def build_methods(
    celltypist_python: str, presets: list[str], shared_genes: bool = False
) -> list[Method]:
    """Every method in the order of the table.

    Parameters
    ----------
    celltypist_python
        Interpreter of the environment that ``celltypist_env.sh`` makes.
    presets
        Further presets of SCTAB to run beside its defaults.
    shared_genes
        Add CellTypist on the genes that reference and query share, which helps where their gene
        panels differ and is not the documented recipe.
    """
    absent = "" if find_spec("scvi_sctab") else "scvi_sctab is not installed"
    no_python = ""
    if not os.access(celltypist_python, os.X_OK):
        no_python = f"no interpreter at {celltypist_python!r} (see benchmarks/celltypist_env.sh)"
    methods = [Method("sctab", sctab, True, absent)]
    for preset in presets:
        run = partial(sctab, preset=preset)
        methods.append(Method(f"sctab-{preset}", run, True, absent))
    methods.append(Method("logreg", logistic_regression, False))
    for two_pass in (False, True):
        for shared in (False, True)[: 1 + shared_genes]:
            options = {"two_pass": two_pass, "shared_genes": shared}
            run = partial(celltypist, python=celltypist_python, **options)
            key = f"celltypist{'-2pass' * two_pass}{'-shared' * shared}"
            methods.append(Method(key, run, two_pass, no_python))
    no_scvi = "" if find_spec("scvi") else "scvi-tools is not installed"
    methods.append(Method("scanvi", scanvi, True, no_scvi))
    return methods
