"""Autoencoder of bulk samples whose decoder also serves single cells."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import log_softmax

from scvi_sctab.nn import normalize_counts

_DROPOUT = 0.1
# Squared norm of the hidden units of the decoder.
_N_EFFECTIVE = 16


class CodeEncoder(nn.Sequential):
    """Encoder of centred expression.

    NOTE[DIFF] scDTL has three layers of 4,096, 2,048 and 2,048 units with batch norm, and 178
    million parameters in all; there are 10 to 100 bulk samples. Layer norm needs no batch.

    Parameters
    ----------
    n_genes, n_hidden, n_latent
        Width of the input, of the hidden layer and of the code.
    """

    def __init__(self, n_genes: int, n_hidden: int, n_latent: int):
        super().__init__(
            nn.Linear(n_genes, n_hidden),
            nn.LayerNorm(n_hidden),
            nn.GELU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(n_hidden, n_latent),
        )


class ContrastDecoder(nn.Module):
    """Decoder from a code to contrasts: log ratios of genes to their mean level.

    NOTE[DIFF] The predictor of scDTL returns values between the minimum and the maximum of a gene
    in bulk, and the released code feeds cells scaled by these. Bulk and cells differ in the level
    of each gene by more than cell types do; here they share contrasts, and have levels of their
    own.

    Parameters
    ----------
    n_latent, n_hidden, n_genes
        Width of the code, of the hidden layer and of the output.
    """

    def __init__(self, n_latent: int, n_hidden: int, n_genes: int):
        super().__init__()
        # Hidden units of a bounded size, so that a prior on the weights bounds the contrasts.
        self.hidden = nn.Sequential(
            nn.Linear(n_latent, n_hidden),
            nn.GELU(),
            nn.LayerNorm(n_hidden, elementwise_affine=False),
        )
        self.factor = (_N_EFFECTIVE / n_hidden) ** 0.5
        self.contrasts = nn.Linear(n_hidden, n_genes, bias=False)
        nn.init.normal_(self.contrasts.weight, std=0.01)

    def forward(self, code: Tensor) -> Tensor:
        """Decode contrasts, ``(n, n_genes)``."""
        return self.contrasts(self.hidden(code) * self.factor)


def dense_expression(counts: Tensor) -> Tensor:
    """Compute dense log-normalised expression of dense counts or shares, ``(n, n_genes)``."""
    x = normalize_counts(counts)
    return x if isinstance(x, Tensor) else x.to_dense()


def add_noise(x: Tensor, rate: float, generator: Generator | None = None) -> Tensor:
    """Hide genes of each sample at random, and rescale the others, as in dropout.

    Parameters
    ----------
    x
        Centred expression, ``(n, n_genes)``.
    rate
        Probability that a gene is hidden.
    generator
        Source of randomness; torch's own if not given.
    """
    kept = torch.rand(x.shape, generator=generator, device=x.device) >= rate
    return x * kept / (1 - rate)


def profile_divergence(shares: Tensor, log_level: Tensor, contrasts: Tensor) -> Tensor:
    """Compute the Kullback-Leibler divergence of decoded profiles from the true ones.

    Parameters
    ----------
    shares
        Shares of genes in each sample, ``(n, n_genes)``.
    log_level
        Log of the mean share of each gene, ``(n_genes,)``.
    contrasts
        Decoded log ratios, ``(n, n_genes)``.

    Returns
    -------
    Mean over samples, in nats per molecule, the unit of the loss of cells.
    """
    log_shares = log_softmax(log_level + contrasts, dim=1)
    entropy = torch.special.xlogy(shares, shares).sum(dim=1)
    return (entropy - (shares * log_shares).sum(dim=1)).mean()
