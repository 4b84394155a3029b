"""Genes that cells lack, and markers: contrasts between types, with the labels of cells as truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
import scvi
from _imputation_tasks import Data, Fold, Setting, shuffle_contrasts
from anndata import AnnData

from scvi_sctab.external import BulkPriorImputer

# Added to counts per million, so that the ratios of genes without expression are 0.
OFFSET = 10.0
MIN_CELLS = 10
MIN_MOLECULES = 50
N_TOP = 500
HIDDEN_SHARE = 0.2

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


def imputer(
    cells: AnnData, bulk: AnnData | None, seed: int, *, method: str, compare: bool = False
) -> BulkPriorImputer:
    """Train a model on copies of cells and bulk; ``compare`` measures the gain of bulk."""
    scvi.settings.seed = seed
    cells = cells.copy()
    BulkPriorImputer.setup_anndata(cells)
    if bulk is not None:
        bulk = bulk.copy()
        BulkPriorImputer.setup_bulk_anndata(bulk)
    use = "none" if bulk is None else "full"
    model = BulkPriorImputer(cells, bulk, method=method, bulk_use=use)
    model.train(compare_bulk=compare, **QUIET)
    return model


def impute(
    cells: AnnData, bulk: AnnData | None, seed: int, *, method: str, observed: str = "prior"
) -> pd.DataFrame:
    """Impute shares of all genes of cells and bulk, ``(n_cells, n_genes)``."""
    model = imputer(cells, bulk, seed, method=method)
    return model.get_imputed_values(library_size=1.0, observed=observed)


def log_ratios(values: pd.DataFrame) -> pd.DataFrame:
    """Log counts per million of each type, minus their mean over types."""
    logs = np.log(values.div(values.sum(axis=1), axis=0) * 1e6 + OFFSET)
    return logs - logs.mean(axis=0)


def mean_by(values: pd.DataFrame, labels: np.ndarray, min_cells: int = 1) -> pd.DataFrame:
    """Mean over the cells of each type with enough cells."""
    types, n_cells = np.unique(labels, return_counts=True)
    means = values.groupby(labels).mean()
    return means.loc[types[n_cells >= min_cells]]


def correlate(predicted: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """Correlate log ratios over genes and types, and those of the most variable genes."""
    types = truth.index.intersection(predicted.index)
    predicted, truth = predicted.loc[types, truth.columns], truth.loc[types]
    top = truth.columns[np.argsort(-truth.var(axis=0).to_numpy(), kind="stable")[:N_TOP]]
    return {
        "r": _r(predicted.to_numpy(), truth.to_numpy()),
        "r_top": _r(predicted[top].to_numpy(), truth[top].to_numpy()),
        "n_genes": truth.shape[1],
    }


def _r(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.ravel() - x.mean(), y.ravel() - y.mean()
    return float(x @ y / max(np.linalg.norm(x) * np.linalg.norm(y), 1e-12))


def within_types(predicted: np.ndarray, truth: np.ndarray, labels: np.ndarray) -> float:
    """Median over genes of the correlation across cells, after the mean of each type is removed."""
    centred = []
    for values in (predicted, truth):
        frame = pd.DataFrame(np.asarray(values, dtype=float))
        centred.append((frame - frame.groupby(labels).transform("mean")).to_numpy())
    x, y = centred
    norm = np.linalg.norm(x, axis=0) * np.linalg.norm(y, axis=0)
    return float(np.median((x * y).sum(axis=0)[norm > 0] / norm[norm > 0]))


def conditional_gain(predicted: np.ndarray, counts: sp.csr_matrix, library: np.ndarray) -> float:
    """Gain over no knowledge of cells, given the total of each gene, in mnats per molecule."""
    expected = predicted * library[:, None]
    share = expected / expected.sum(axis=0)
    base = library / library.sum()
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    gains = np.log(share[rows, counts.indices] / base[rows])
    return float(1000 * (counts.data * gains).sum() / counts.data.sum())


def hide_genes(fold: Fold, data: Data) -> tuple[AnnData, AnnData, np.ndarray]:
    """Split cells into a panel and the genes that it lacks; return those with enough molecules."""
    whole = fold.train.copy()
    whole.X = sp.csr_matrix(fold.train.X + fold.test)
    generator = np.random.default_rng(fold.seed + 4000)
    hidden = generator.random(whole.n_vars) < HIDDEN_SHARE
    totals = np.asarray(whole.X.sum(axis=0)).ravel()
    scored = hidden & (totals >= MIN_MOLECULES)
    return whole[:, ~hidden].copy(), whole[:, scored].copy(), hidden


def score_hidden(fold: Fold, data: Data, kind: str, method: str) -> dict[str, float]:
    """Hide a fifth of the genes of cells, and predict them from bulk."""
    panel, truth, hidden = hide_genes(fold, data)
    bulk = data.bulk("matched" if kind == "shuffled" else kind, fold)
    if kind == "shuffled":  # of the hidden genes alone, which the cells cannot contradict
        wrong = shuffle_contrasts(bulk[:, hidden].copy(), fold.seed)
        values = np.array(bulk.X)
        values[:, hidden] = wrong.X
        bulk = AnnData(values, bulk.obs, bulk.var)
    predicted = impute(panel, bulk, fold.seed, method=method)[[*truth.var_names]]
    library = np.asarray(panel.X.sum(axis=1)).ravel()
    labels = truth.obs["label"].to_numpy()
    sums = pd.DataFrame(truth.X.toarray(), truth.obs_names, truth.var_names)
    # Per molecule of the panel on both sides, so that they are in one unit.
    true_means = _per_library(sums, labels, library)
    predicted_means = mean_by(predicted, labels, MIN_CELLS)
    scores = correlate(_ratios(predicted_means), _ratios(true_means))
    shares = sums.to_numpy() / library[:, None]
    return {
        **scores,
        "within_r": within_types(predicted.to_numpy(), shares, labels),
        "conditional_gain": conditional_gain(predicted.to_numpy(), truth.X, library),
    }


def _per_library(sums: pd.DataFrame, labels: np.ndarray, library: np.ndarray) -> pd.DataFrame:
    types, n_cells = np.unique(labels, return_counts=True)
    totals = sums.groupby(labels).sum()
    of_types = pd.Series(library).groupby(labels).sum()
    return totals.div(of_types, axis=0).loc[types[n_cells >= MIN_CELLS]]


def _ratios(shares: pd.DataFrame) -> pd.DataFrame:
    logs = np.log(shares * 1e6 + OFFSET)
    return logs - logs.mean(axis=0)


def score_panel(data: Data, n_cells: int, seed: int, kind: str, method: str) -> dict[str, float]:
    """Complete the 10x matrix of the cell lines, and compare with CEL-seq2 of the same lines."""
    panel, whole = data.cells("lines-10x"), data.cells("lines")
    order = np.random.default_rng(seed).permutation(panel.n_obs)[:n_cells]
    cells = panel[np.sort(order)].copy()
    absent = whole.var_names.difference(cells.var_names, sort=False)
    truth = whole.to_df()[absent].groupby(whole.obs["label"].to_numpy()).sum()
    library = pd.Series(np.asarray(whole.X.sum(axis=1)).ravel())
    truth = _ratios(truth.div(library.groupby(whole.obs["label"].to_numpy()).sum(), axis=0))
    fold = Fold(Setting("lines", n_cells), seed, whole, whole.X, whole, np.array([]))
    if kind == "ceiling":
        bulk = data.bulk("matched", fold).to_df()
        lines = data.bulk_file("holik").obs["cell_line"].astype(str).to_numpy()
        return correlate(_ratios(bulk[absent].groupby(lines).mean() / 1e6), truth)
    predicted = impute(cells, data.bulk(kind, fold), seed, method=method)
    shares = predicted.div(predicted.sum(axis=1), axis=0)[[*absent]]
    labels = cells.obs["label"].to_numpy()
    scores = correlate(_ratios(mean_by(shares, labels)), truth)
    scores["assigned"] = float((assign(shares, truth) == labels).mean())
    return scores


def assign(shares: pd.DataFrame, truth: pd.DataFrame) -> np.ndarray:
    """Assign each cell to the type whose log ratios those of the cell correlate with most."""
    logs = np.log(shares.to_numpy() * 1e6 + OFFSET)
    logs = logs - logs.mean(axis=0)
    profiles = truth.to_numpy()
    profiles = profiles - profiles.mean(axis=1, keepdims=True)
    profiles = profiles / np.linalg.norm(profiles, axis=1, keepdims=True)
    return truth.index.to_numpy()[(logs @ profiles.T).argmax(axis=1)]


def score_markers(fold: Fold, data: Data, method: str) -> dict[str, dict[str, float]]:
    """Compare log ratios between lines in CEL-seq2 with those of 10x, another platform."""
    other = data.cells("lines-10x")
    totals = pd.Series(np.asarray(other.X.sum(axis=0)).ravel(), other.var_names)
    genes = fold.train.var_names.intersection(totals.index[totals >= MIN_MOLECULES], sort=False)
    truth = log_ratios(other.to_df()[genes].groupby(other.obs["label"].to_numpy()).sum())
    labels = fold.train.obs["label"].to_numpy()
    bulk = data.bulk("matched", fold)
    lines = data.bulk_file("holik").obs["cell_line"].astype(str).to_numpy()
    counts = fold.train.to_df()
    candidates = {
        "raw pseudobulk": counts.groupby(labels).sum(),
        "bulk alone": bulk.to_df().groupby(lines).mean(),
    }
    for name, used in (("none", None), ("matched", bulk)):
        values = impute(fold.train, used, fold.seed, method=method)
        candidates[f"{method}, {name}"] = values.groupby(labels).mean()
    low = totals[genes].to_numpy() <= np.median(totals[genes])
    scores = {}
    for name, means in candidates.items():
        shown = means.loc[means.index.intersection(truth.index)]
        predicted, true = log_ratios(shown[genes]), truth.loc[shown.index]
        scores[name] = {
            "r": _r(predicted.to_numpy(), true.to_numpy()),
            "r_low": _r(predicted.to_numpy()[:, low], true.to_numpy()[:, low]),
            "n_genes": len(genes),
        }
    return scores
