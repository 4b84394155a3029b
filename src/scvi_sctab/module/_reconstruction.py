"""Reconstruction of hidden genes, a loss that needs no labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from scvi_sctab._config import MASKS
from scvi_sctab.nn import (
    BatchEmbedding,
    RandomMask,
    TabNetDecoder,
    masked_reconstruction_loss,
)

if TYPE_CHECKING:
    from scvi_sctab._types import Encoder
    from scvi_sctab.sparse import CSR


class MaskedReconstruction(nn.Module):
    """Decoder of the genes that are hidden from an encoder, after TabNet :cite:p:`Arik21`.

    Parameters
    ----------
    n_input
        Width of the embedding.
    n_genes
        Number of genes.
    n_categories
        Number of categories of the batch and of each other covariate, on which the decoder is
        conditioned.
    virtual_batch_size, momentum
        Settings of ghost batch norm.

    Notes
    -----
    - input: an encoder, log-normalised expression ``(n_cells, n_genes)``, the condition of the
      encoder, and codes of batch and covariates ``(n_cells, len(n_categories))``.
    - output: mean squared error over hidden entries, ``()``.
    """

    def __init__(
        self,
        n_input: int,
        n_genes: int,
        n_categories: Sequence[int],
        *,
        virtual_batch_size: int,
        momentum: float,
    ):
        super().__init__()
        self.mask = RandomMask(MASKS.tabnet_rate, MASKS.n_targets)
        self.decoder = TabNetDecoder(
            n_input,
            n_genes,
            n_shared=1,
            n_independent=1,
            virtual_batch_size=virtual_batch_size,
            momentum=momentum,
        )
        self.batch_embedding = (
            BatchEmbedding(n_categories, self.decoder.n_condition, dropout=0.0)
            if n_categories
            else None
        )

    def forward(
        self,
        encoder: Encoder,
        x: Tensor | CSR,
        condition: Tensor | None,
        conditions: Tensor | None,
    ) -> Tensor:
        """Compute the error of the reconstruction of hidden genes."""
        visible, hidden = self.mask(x)
        decoder_condition = None
        if self.batch_embedding is not None and conditions is not None:
            decoder_condition = self.batch_embedding(conditions)
        embedding = encoder(visible, condition).embedding
        return masked_reconstruction_loss(
            self.decoder(embedding, decoder_condition, hidden.genes), hidden
        )
