"""Other methods that denoise; all are shrunk to the gene mean alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import scvi
from anndata import AnnData
from sklearn.decomposition import TruncatedSVD

from scvi_sctab.external.scdtl._level import fit_level
from scvi_sctab.metrics import held_out_log_likelihood, molecular_split
from scvi_sctab.pretrain import MaskedAutoencoder

if TYPE_CHECKING:
    from _imputation_tasks import Fold

Predict = Callable[[sp.csr_matrix], np.ndarray]
Fit = Callable[[AnnData, int], Predict]

# Shares of a method are shrunk to the gene mean: by the same weight for all genes, or, if negative,
# more for genes with a share below the absolute value.
SHRINKAGES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.995)
SHRINKAGES += tuple(-(10.0**power) for power in (-6, -5.5, -5, -4.5, -4, -3.5, -3, -2))
TARGET = 1e4
N_COMPONENTS = 20
MAX_STEPS = 1500


def gene_mean(counts: sp.csr_matrix) -> np.ndarray:
    """Share of each gene by empirical Bayes, ``(n_genes,)``; never 0."""
    return fit_level(np.asarray(counts.sum(axis=0), dtype=float).ravel()).mean


def constant(counts: sp.csr_matrix, shares: np.ndarray) -> np.ndarray:
    """Give every cell the same shares."""
    return np.tile(shares, (counts.shape[0], 1))


def shrink(shares: np.ndarray, mean: np.ndarray, shrinkage: float) -> np.ndarray:
    """Shrink shares to the gene mean, so that no gene has a share of 0; 0 is the mean alone."""
    if shrinkage >= 0:
        return shrinkage * shares + (1 - shrinkage) * mean
    # Posterior mean of a share with a Gamma prior around the gene mean.
    mixed = mean * (shares - shrinkage) / (mean - shrinkage)
    return mixed / mixed.sum(axis=1, keepdims=True)


def fit_shrunk(
    fold: Fold, candidates: dict[str, Fit], *, refit: bool
) -> tuple[np.ndarray, dict[str, object]]:
    """Fit a method, and choose its setting and shrinkage on a tenth of the training molecules.

    Parameters
    ----------
    fold
        Cells.
    candidates
        Settings of a method.
    refit
        Whether the chosen setting is fitted again to all training molecules. Otherwise the model
        that was fitted to nine tenths reads them all.

    Returns
    -------
    Shares, ``(n_cells, n_genes)``, and what was chosen.
    """
    inner, held_out = molecular_split(fold.train.X, 0.9, seed=fold.seed + 3000)
    cells = AnnData(inner, fold.train.obs.copy(), fold.train.var.copy())
    mean = gene_mean(inner)
    factors = np.asarray(inner.sum(axis=1)).ravel() / 9
    best: tuple[float, str, float, Predict] | None = None
    for name, fit in candidates.items():
        predict = fit(cells, fold.seed)
        shares = predict(inner)
        for shrinkage in (0.0, *SHRINKAGES):
            mixed = shrink(shares, mean, shrinkage)
            score = held_out_log_likelihood(held_out, mixed, size_factors=factors)
            if best is None or score > best[0]:
                best = score, name, shrinkage, predict
    assert best is not None
    _, name, shrinkage, predict = best
    if refit:
        predict = candidates[name](fold.train, fold.seed)
    whole = fold.train.X
    shares = shrink(predict(whole), gene_mean(whole), shrinkage)
    return shares, {"peer": name, "shrinkage": shrinkage}


def log_normalised(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Log of one plus counts per 10,000."""
    total = np.asarray(counts.sum(axis=1)).ravel()
    scaled = sp.diags(TARGET / np.maximum(total, 1)) @ counts
    return sp.csr_matrix(scaled.log1p())


def scores_of(counts: sp.csr_matrix) -> np.ndarray:
    """Principal components of cells."""
    x = log_normalised(counts).toarray()
    x -= x.mean(axis=0)
    values, vectors = np.linalg.eigh(x @ x.T)
    n = min(N_COMPONENTS, len(x) - 1)
    return vectors[:, ::-1][:, :n] * np.sqrt(np.maximum(values[::-1][:n], 0))


def squared_distances(points: np.ndarray) -> np.ndarray:
    """Squared distances of all pairs of cells."""
    square = (points**2).sum(axis=1)
    return np.maximum(square[:, None] + square - 2 * points @ points.T, 0)


def smoothed(counts: sp.csr_matrix, weights: np.ndarray) -> np.ndarray:
    """Shares of the weighted sum of cells."""
    sums = weights @ counts
    sums = sums.toarray() if sp.issparse(sums) else np.asarray(sums)
    return sums / np.maximum(sums.sum(axis=1, keepdims=True), 1e-12)


def knn(n_neighbors: int) -> Fit:
    """Sum of a cell and its neighbours."""

    def fit(cells: AnnData, seed: int) -> Predict:
        def predict(counts: sp.csr_matrix) -> np.ndarray:
            nearest = np.argsort(squared_distances(scores_of(counts)), axis=1, kind="stable")
            nearest = nearest[:, : n_neighbors + 1]
            rows = np.repeat(np.arange(len(nearest)), nearest.shape[1])
            weights = sp.csr_matrix((np.ones(nearest.size), (rows, nearest.ravel())))
            return smoothed(counts, weights)

        return predict

    return fit


def magic(n_steps: int, n_neighbors: int = 5) -> Fit:
    """Diffusion over an adaptive Gaussian kernel of neighbours, as MAGIC does."""

    def fit(cells: AnnData, seed: int) -> Predict:
        def predict(counts: sp.csr_matrix) -> np.ndarray:
            distances = np.sqrt(squared_distances(scores_of(counts)))
            width = np.sort(distances, axis=1)[:, min(n_neighbors, len(distances) - 1)]
            kernel = np.exp(-((distances / np.maximum(width[:, None], 1e-9)) ** 2))
            kernel[kernel < 1e-4] = 0
            kernel += kernel.T
            markov = kernel / kernel.sum(axis=1, keepdims=True)
            return smoothed(counts, np.linalg.matrix_power(markov, n_steps))

        return predict

    return fit


def alra(rank: int) -> Fit:
    """Low rank of log-normalised counts, small values set to 0, as ALRA does."""

    def fit(cells: AnnData, seed: int) -> Predict:
        def predict(counts: sp.csr_matrix) -> np.ndarray:
            x = log_normalised(counts)
            svd = TruncatedSVD(min(rank, counts.shape[0] - 1), random_state=seed)
            low = svd.fit_transform(x) @ svd.components_
            # Negative values of a gene are noise, and so are positive ones of their size.
            low[low < np.abs(low.min(axis=0))] = 0
            dense = x.toarray()
            for gene in np.flatnonzero((low > 0).any(axis=0) & (dense > 0).any(axis=0)):
                column, seen = low[:, gene], dense[dense[:, gene] > 0, gene]
                kept = column > 0
                spread = column[kept].std()
                if kept.sum() > 1 and spread > 0 and len(seen) > 1:
                    column[kept] = (column[kept] - column[kept].mean()) * (
                        seen.std() / spread
                    ) + seen.mean()
            rates = np.expm1(np.maximum(low, 0))
            return rates / np.maximum(rates.sum(axis=1, keepdims=True), 1e-12)

        return predict

    return fit


def scvi_denoised(likelihood: str, n_latent: int) -> Fit:
    """SCVI with early stopping, as its documentation advises."""

    def fit(cells: AnnData, seed: int) -> Predict:
        scvi.settings.seed = seed
        own = cells.copy()
        scvi.model.SCVI.setup_anndata(own)
        model = scvi.model.SCVI(own, n_latent=n_latent, gene_likelihood=likelihood)
        per_epoch = max(int(np.ceil(0.9 * own.n_obs / 128)), 1)
        model.train(
            max_epochs=min(400, MAX_STEPS // per_epoch),
            early_stopping=True,
            accelerator="cpu",
            enable_progress_bar=False,
            logger=False,
        )

        def predict(counts: sp.csr_matrix) -> np.ndarray:
            query = AnnData(counts, own.obs[[]].copy(), own.var.copy())
            scvi.model.SCVI.setup_anndata(query)
            rates = model.get_normalized_expression(
                query, library_size=1, n_samples=10, return_numpy=True
            )
            return np.asarray(rates, dtype=float)

        return predict

    return fit


def masked_autoencoder(widths: tuple[int, ...]) -> Fit:
    """Our masked autoencoder with a likelihood of counts."""

    def fit(cells: AnnData, seed: int) -> Predict:
        scvi.settings.seed = seed
        own = cells.copy()
        MaskedAutoencoder.setup_anndata(own)
        model = MaskedAutoencoder(own, likelihood="nb", widths=widths)
        model.train(min(400, MAX_STEPS), accelerator="cpu", enable_progress_bar=False)

        def predict(counts: sp.csr_matrix) -> np.ndarray:
            query = AnnData(counts, own.obs[[]].copy(), own.var.copy())
            rates = np.expm1(model.reconstruct(query).astype(float))
            return rates / rates.sum(axis=1, keepdims=True)

        return predict

    return fit


def bulk_mixture(bulk: AnnData) -> Fit:
    """Bulk alone: the mixture of bulk profiles with the highest likelihood, by cell."""
    profiles = np.asarray(bulk.X, dtype=float) + 0.5
    profiles /= profiles.sum(axis=1, keepdims=True)

    def fit(cells: AnnData, seed: int) -> Predict:
        def predict(counts: sp.csr_matrix) -> np.ndarray:
            weights = np.full((counts.shape[0], len(profiles)), 1 / len(profiles))
            for _ in range(100):
                ratio = counts.copy()
                rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
                expected = (weights[rows] * profiles[:, counts.indices].T).sum(axis=1)
                ratio.data = counts.data / expected
                weights = weights * (ratio @ profiles.T)
                weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
            return weights @ profiles

        return predict

    return fit


PEERS: dict[str, tuple[dict[str, Fit], bool]] = {
    "kNN": ({f"{k} neighbours": knn(k) for k in (5, 15, 30)}, True),
    "MAGIC-like": ({f"t={t}": magic(t) for t in (1, 3)}, True),
    "ALRA-like": ({f"rank {k}": alra(k) for k in (5, 10, 20)}, True),
    "SCVI": ({f"{ll}, 10": scvi_denoised(ll, 10) for ll in ("nb",)}, False),
    "MaskedAutoencoder": ({"(128, 32)": masked_autoencoder((128, 32))}, False),
}
"""Settings of each peer, and whether the chosen one is fitted again to all molecules."""
