"""Predictions for cells, by factors or by the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS

from scvi_sctab._constants import CONDITIONS_KEY, MEASURED_KEY
from scvi_sctab.external.scdtl._factor import GenePrior, infer_weights
from scvi_sctab.external.scdtl._imputer_fit import FittedImputer, shares_of_others
from scvi_sctab.external.scdtl._trials import factor_shares, own_posterior, whole_library
from scvi_sctab.nn import single_precision
from scvi_sctab.sparse import in_order, to_tensor

if TYPE_CHECKING:
    from scipy import sparse
    from torch import Tensor

    from scvi_sctab.external.scdtl._module import BulkPriorModule

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class DescribedCells:
    """Predictions for some cells, and their counts.

    Attributes
    ----------
    counts
        ``(n_cells, n_genes)``.
    shares
        Share of each gene in the molecules, ``(n_cells, n_genes)``.
    others
        Shares of genes in bulk only, in the same unit, ``(n_cells, n_others)``.
    latent
        Weights of factors, or embedding, ``(n_cells, n_latent)``.
    coefficients
        Weights of the contrasts of bulk, ``(n_cells, n_contrasts)``.
    measured
        Flags of the genes that the cells have, ``(n_genes,)``; ``None`` if they have all.
    """

    counts: sparse.csr_matrix
    shares: Floats
    others: Floats
    latent: Floats
    coefficients: Floats
    measured: Flags | None

    @property
    def library(self) -> Floats:
        """Molecules of each cell in all genes, ``(n_cells, 1)``."""
        return whole_library(self.counts, self.shares, self.measured)

    def impute(self, observed: str, own_shape: float) -> Floats:
        """Combine the predicted shares with the counts of the cells.

        Parameters
        ----------
        observed
            ``"prior"``, ``"posterior"`` or ``"keep"``.
        own_shape
            See :func:`own_posterior`.
        """
        if observed == "prior":
            return self.shares
        if observed == "posterior":
            return own_posterior(self.counts, self.shares, own_shape, self.measured)
        counts = self.counts.toarray()
        return np.where(counts > 0, counts / np.maximum(self.library, 1), self.shares)


def describe_by_factors(
    fitted: FittedImputer,
    prior: GenePrior,
    other_contrasts: Floats,
    counts: sparse.csr_matrix,
    batches: NDArray[np.int64],
    measured: Flags | None = None,
    with_batch: bool = True,
) -> DescribedCells:
    """Describe cells by the factor model.

    Parameters
    ----------
    fitted
        The fit.
    prior
        Level and contrasts of the genes of the cells.
    other_contrasts
        Contrasts of the genes in bulk only, ``(n_others, n_contrasts)``.
    counts
        ``(n_cells, n_genes)``.
    batches
        Code of the batch of each cell, -1 if unknown.
    measured
        Flags of the genes that the cells have, ``(n_genes,)``; all if not given.
    with_batch
        Whether shares are those in the batch of the cell.
    """
    factors = fitted.factors
    weights = infer_weights(counts, factors, batches=batches, measured=measured)
    shown = batches if with_batch else np.full_like(batches, -1)
    if fitted.use == "full":
        coefficients = factors.coefficients
    else:
        coefficients = np.zeros((other_contrasts.shape[1], weights.shape[1]))
        prior = GenePrior(prior.level, np.zeros((len(prior.level), len(coefficients))))
    others = shares_of_others(prior, fitted.level_of_others, other_contrasts, coefficients)
    return DescribedCells(
        counts,
        factor_shares(factors, weights, shown),
        weights @ others.T,
        weights,
        weights @ coefficients.T,
        measured,
    )


def describe_by_network(
    fitted: FittedImputer,
    module: BulkPriorModule,
    other_contrasts: Floats,
    counts: sparse.csr_matrix,
    batches: NDArray[np.int64],
    measured: Flags | None = None,
    with_batch: bool = True,
) -> DescribedCells:
    """Describe cells by the autoencoder; the parameters are those of :func:`describe_by_factors`."""
    shown = batches if with_batch else np.full_like(batches, -1)
    output = run_network(module, counts, shown, measured)
    coefficients = np.zeros((counts.shape[0], other_contrasts.shape[1]))
    if fitted.use == "full":
        coefficients = output["coefficients"].double().cpu().numpy() @ fitted.rotation.T
    log_shares = coefficients @ other_contrasts.T - output["log_norm"].double().cpu().numpy()
    return DescribedCells(
        counts,
        output["log_shares"].double().exp().cpu().numpy(),
        fitted.level_of_others * np.exp(log_shares),
        output["z"].cpu().numpy(),
        coefficients,
        measured,
    )


def run_network(
    module: BulkPriorModule,
    counts: sparse.csr_matrix,
    batches: NDArray[np.int64],
    measured: Flags | None = None,
) -> dict[str, Tensor]:
    """Compute embeddings and log shares of cells by the autoencoder.

    Parameters
    ----------
    module
        The network.
    counts
        ``(n_cells, n_genes)``.
    batches
        Code of the batch of each cell, -1 if unknown.
    measured
        Flags of the genes that the cells have, ``(n_genes,)``; all if not given.
    """
    module.eval()
    tensors = {
        REGISTRY_KEYS.X_KEY: to_tensor(in_order(counts.astype(np.float32)), module.device),
        CONDITIONS_KEY: torch.from_numpy(batches[:, None]).to(module.device),
    }
    if measured is not None:
        tensors[MEASURED_KEY] = torch.from_numpy(measured).to(module.device)
    with torch.inference_mode(), single_precision(module.device.type):
        return module.describe(tensors)
