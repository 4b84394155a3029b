"""Likelihoods of the expression that a masked autoencoder reconstructs."""

from __future__ import annotations

from typing import Literal

import torch
from scvi.distributions import NegativeBinomial
from torch import Tensor, nn

from scvi_sctab.nn import TARGET_SUM, HiddenGenes

Likelihood = Literal["gaussian", "nb"]

# Lower bound of the share of a gene in the mean cell, for its logarithm.
_LEAST_SHARE = 1e-8


class GaussianLikelihood(nn.Module):
    """Gaussian likelihood of log-normalised expression, with the same variance for all genes.

    The decoder returns log-normalised expression; the error is the squared error.

    Parameters
    ----------
    n_genes
        Number of genes.
    """

    needs_all_genes = False

    def __init__(self, n_genes: int):
        super().__init__()

    def start(self, mean_expression: Tensor, mean_share: Tensor) -> Tensor:
        """Return the output for the mean cell, ``(n_genes,)``, to initialise a decoder."""
        return mean_expression

    def error(self, output: Tensor, hidden: HiddenGenes, counts: Tensor) -> Tensor:
        """Compute the squared error of each entry, ``(n_cells, n_targets)``."""
        return (output - hidden.values).square()

    def expression(self, output: Tensor) -> Tensor:
        """Convert outputs to log-normalised expression, ``(n_cells, n_genes)``."""
        return output


class NegativeBinomialLikelihood(nn.Module):
    r"""Negative binomial likelihood of counts.

    The mean is the cell's total times the share of the gene. The decoder returns logits of the
    shares, which add up to one over all genes; the dispersion is learnt per gene. NOTE[DIFF] The
    published code applies it to log-normalised values, which are not counts.

    Parameters
    ----------
    n_genes
        Number of genes.
    """

    needs_all_genes = True

    def __init__(self, n_genes: int):
        super().__init__()
        self.log_dispersion = nn.Parameter(torch.zeros(n_genes))

    def start(self, mean_expression: Tensor, mean_share: Tensor) -> Tensor:
        """Return the output for the mean cell, ``(n_genes,)``, to initialise a decoder."""
        return mean_share.clamp(min=_LEAST_SHARE).log()

    def error(self, output: Tensor, hidden: HiddenGenes, counts: Tensor) -> Tensor:
        """Compute the negative log-likelihood of each entry, ``(n_cells, n_targets)``."""
        mean = counts.sum(dim=1, keepdim=True) * output.softmax(dim=1)
        likelihood = NegativeBinomial(
            mu=mean[:, hidden.genes], theta=self.log_dispersion.exp()[hidden.genes]
        )
        return -likelihood.log_prob(counts[:, hidden.genes])

    def expression(self, output: Tensor) -> Tensor:
        """Convert outputs to log-normalised expression, ``(n_cells, n_genes)``."""
        return (TARGET_SUM * output.softmax(dim=1)).log1p()


LIKELIHOODS: dict[Likelihood, type[GaussianLikelihood | NegativeBinomialLikelihood]] = {
    "gaussian": GaussianLikelihood,
    "nb": NegativeBinomialLikelihood,
}
