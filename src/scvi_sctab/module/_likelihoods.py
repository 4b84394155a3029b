"""What a masked autoencoder says of genes, and how it is scored."""

from __future__ import annotations

from typing import Literal

import torch
from scvi.distributions import NegativeBinomial
from torch import Tensor, nn

from scvi_sctab.nn import TARGET_SUM, HiddenGenes

Likelihood = Literal["gaussian", "nb"]

# No gene is said to be less than this share of the mean cell.
_LEAST_SHARE = 1e-8


class GaussianLikelihood(nn.Module):
    """Log-normalised expression with an error of the same size everywhere.

    The decoder returns log-normalised expression, and squared error is what it is scored by.

    Parameters
    ----------
    n_genes
        Number of genes.
    """

    needs_all_genes = False

    def __init__(self, n_genes: int):
        super().__init__()

    def start(self, mean_expression: Tensor, mean_share: Tensor) -> Tensor:
        """Output of a decoder that takes every cell for the mean one, ``(n_genes,)``."""
        return mean_expression

    def error(self, output: Tensor, hidden: HiddenGenes, counts: Tensor) -> Tensor:
        """Squared error of each entry, ``(n_cells, n_targets)``."""
        return (output - hidden.values).square()

    def expression(self, output: Tensor) -> Tensor:
        """Log-normalised expression, ``(n_cells, n_genes)``."""
        return output


class NegativeBinomialLikelihood(nn.Module):
    r"""Counts, negative-binomial around the cell's total times the share of each gene.

    The decoder returns logits of the shares, which add up to one over all genes; dispersion is
    learnt per gene. NOTE[DIFF] The published one is put on log-normalised values, which it is no
    distribution of.

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
        """Output of a decoder that takes every cell for the mean one, ``(n_genes,)``."""
        return mean_share.clamp(min=_LEAST_SHARE).log()

    def error(self, output: Tensor, hidden: HiddenGenes, counts: Tensor) -> Tensor:
        """Negative log-likelihood of each entry, ``(n_cells, n_targets)``."""
        mean = counts.sum(dim=1, keepdim=True) * output.softmax(dim=1)
        likelihood = NegativeBinomial(
            mu=mean[:, hidden.genes], theta=self.log_dispersion.exp()[hidden.genes]
        )
        return -likelihood.log_prob(counts[:, hidden.genes])

    def expression(self, output: Tensor) -> Tensor:
        """Log-normalised expression, ``(n_cells, n_genes)``."""
        return (TARGET_SUM * output.softmax(dim=1)).log1p()


LIKELIHOODS: dict[Likelihood, type[GaussianLikelihood | NegativeBinomialLikelihood]] = {
    "gaussian": GaussianLikelihood,
    "nb": NegativeBinomialLikelihood,
}
