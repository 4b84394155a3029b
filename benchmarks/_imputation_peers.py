"""Other methods that denoise counts; all are shrunk to the gene mean alike.

Without it their likelihoods would be minus infinity, or far below that of the gene mean.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
import scvi
from anndata import AnnData
from sklearn.decomposition import TruncatedSVD

from scvi_sctab.external.scdtl._level import fit_level
from scvi_sctab.metrics import held_out_log_likelihood, molecular_split
from scvi_sctab.pretrain import MaskedAutoencoder

Predict = Callable[[sp.csr_matrix], np.ndarray]
Fit = Callable[[AnnData, int], Predict]
QUIET: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False}
# Shares are shrunk by the same weight for all genes, or, if negative, more for genes with a share below
# the absolute value.
SHRINKAGES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.995)
SHRINKAGES += tuple(-(10.0**power) for power in (-6, -5.5, -5, -4.5, -4, -3.5, -3, -2))


def gene_mean(counts: sp.csr_matrix) -> np.ndarray:
    """Share of each gene by empirical Bayes, ``(n_genes,)``; never 0."""
    return fit_level(np.asarray(counts.sum(axis=0), dtype=float).ravel()).mean


def shrink(shares: np.ndarray, mean: np.ndarray, shrinkage: float) -> np.ndarray:
    """Shrink shares to the gene mean, so that no gene has a share of 0; 0 is the mean alone."""
    if shrinkage >= 0:
        return shrinkage * shares + (1 - shrinkage) * mean
    mixed = mean * (shares - shrinkage) / (mean - shrinkage)  # posterior mean with a Gamma prior
    return mixed / mixed.sum(axis=1, keepdims=True)


def fit_shrunk(cells: AnnData, seed: int, candidates: list[Fit]) -> np.ndarray:
    """Fit a method; its setting and shrinkage are chosen on a tenth of the training molecules.

    Returns
    -------
    Shares, ``(n_cells, n_genes)``.
    """
    inner, held_out = molecular_split(cells.X, 0.9, seed=seed + 3000)
    mean, factors = gene_mean(inner), np.asarray(inner.sum(axis=1)).ravel() / 9
    best: tuple[float, float, Predict] | None = None
    for fit in candidates:
        predict = fit(AnnData(inner, cells.obs[[]].copy(), cells.var.copy()), seed)
        shares = predict(inner)
        for shrinkage in SHRINKAGES:
            mixed = shrink(shares, mean, shrinkage)
            score = held_out_log_likelihood(held_out, mixed, size_factors=factors)
            if best is None or score > best[0]:
                best = score, shrinkage, predict
    assert best is not None
    return shrink(best[2](cells.X), gene_mean(cells.X), best[1])


def log_normalised(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Log of one plus counts per 10,000."""
    total = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)
    return sp.csr_matrix((sp.diags(1e4 / total) @ counts).log1p())


def distances(counts: sp.csr_matrix) -> np.ndarray:
    """Squared distances of all pairs of cells in 20 principal components."""
    x = log_normalised(counts).toarray()
    x -= x.mean(axis=0)
    values, vectors = np.linalg.eigh(x @ x.T)
    n = min(20, len(x) - 1)
    points = vectors[:, ::-1][:, :n] * np.sqrt(np.maximum(values[::-1][:n], 0))
    square = (points**2).sum(axis=1)
    return np.maximum(square[:, None] + square - 2 * points @ points.T, 0)


def as_shares(rates: np.ndarray) -> np.ndarray:
    """Rates over their sum in each cell."""
    return rates / np.maximum(rates.sum(axis=1, keepdims=True), 1e-12)


def knn(counts: sp.csr_matrix, n: int) -> np.ndarray:
    """Sum of a cell and its neighbours."""
    nearest = np.argsort(distances(counts), axis=1, kind="stable")[:, : n + 1]
    rows = np.repeat(np.arange(len(nearest)), nearest.shape[1])
    weights = sp.csr_matrix((np.ones(nearest.size), (rows, nearest.ravel())))
    return as_shares((weights @ counts).toarray())


def magic(counts: sp.csr_matrix, n_steps: int) -> np.ndarray:
    """Diffusion over an adaptive Gaussian kernel of 5 neighbours, as MAGIC does."""
    apart = np.sqrt(distances(counts))
    width = np.sort(apart, axis=1)[:, min(5, len(apart) - 1)]
    kernel = np.exp(-((apart / np.maximum(width[:, None], 1e-9)) ** 2))
    kernel[kernel < 1e-4] = 0
    kernel += kernel.T
    markov = kernel / kernel.sum(axis=1, keepdims=True)
    return as_shares(np.asarray(np.linalg.matrix_power(markov, n_steps) @ counts))


def alra(counts: sp.csr_matrix, rank: int, seed: int) -> np.ndarray:
    """Low rank of log-normalised counts, small values set to 0, as ALRA does."""
    x = log_normalised(counts)
    svd = TruncatedSVD(min(rank, counts.shape[0] - 1), random_state=seed)
    low = svd.fit_transform(x) @ svd.components_
    low[low < np.abs(low.min(axis=0))] = (
        0  # negative values are noise, and positive ones of their size
    )
    dense = x.toarray()
    for gene in np.flatnonzero((low > 0).any(axis=0) & (dense > 0).any(axis=0)):
        column, seen = low[:, gene], dense[dense[:, gene] > 0, gene]
        kept = column > 0
        spread = column[kept].std()
        if kept.sum() > 1 and spread > 0 and len(seen) > 1:
            standard = (column[kept] - column[kept].mean()) / spread
            column[kept] = standard * seen.std() + seen.mean()
    return as_shares(np.expm1(np.maximum(low, 0)))


def scvi_denoised(cells: AnnData, seed: int) -> Predict:
    """SCVI with early stopping, as its documentation advises."""
    scvi.settings.seed = seed
    scvi.model.SCVI.setup_anndata(cells)
    model = scvi.model.SCVI(cells, gene_likelihood="nb")
    per_epoch = max(int(np.ceil(0.9 * cells.n_obs / 128)), 1)
    model.train(min(400, 1500 // per_epoch), early_stopping=True, logger=False, **QUIET)

    def predict(counts: sp.csr_matrix) -> np.ndarray:
        query = AnnData(counts, cells.obs[[]].copy(), cells.var.copy())
        scvi.model.SCVI.setup_anndata(query)
        return np.asarray(
            model.get_normalized_expression(
                query, library_size=1, n_samples=10, return_numpy=True
            ),
            dtype=float,
        )

    return predict


def masked_autoencoder(cells: AnnData, seed: int) -> Predict:
    """Our masked autoencoder with a likelihood of counts."""
    scvi.settings.seed = seed
    MaskedAutoencoder.setup_anndata(cells)
    model = MaskedAutoencoder(cells, likelihood="nb", widths=(128, 32))
    model.train(400, **QUIET)

    def predict(counts: sp.csr_matrix) -> np.ndarray:
        query = AnnData(counts, cells.obs[[]].copy(), cells.var.copy())
        return as_shares(np.expm1(model.reconstruct(query).astype(float)))

    return predict


def bulk_mixture(counts: sp.csr_matrix, bulk: AnnData) -> np.ndarray:
    """Bulk alone: the mixture of bulk profiles with the highest likelihood, by cell."""
    profiles = as_shares(np.asarray(bulk.X, dtype=float) + 0.5)
    weights = np.full((counts.shape[0], len(profiles)), 1 / len(profiles))
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    for _ in range(100):
        ratio = counts.copy()
        ratio.data = counts.data / (weights[rows] * profiles[:, counts.indices].T).sum(axis=1)
        weights = as_shares(weights * (ratio @ profiles.T))
    return weights @ profiles


def without_fit(function: Callable[..., np.ndarray], **setting: Any) -> Fit:
    """A method that reads nothing but the counts that it denoises."""
    return lambda cells, seed: partial(function, **setting)


PEERS: dict[str, list[Fit]] = {
    "kNN": [without_fit(knn, n=n) for n in (5, 15, 30)],
    "MAGIC-like": [without_fit(magic, n_steps=n) for n in (1, 3)],
    "ALRA-like": [lambda _, seed, n=n: partial(alra, rank=n, seed=seed) for n in (5, 10, 20)],
    "SCVI": [scvi_denoised],
    "MaskedAutoencoder": [masked_autoencoder],
}
"""Settings of each peer."""
