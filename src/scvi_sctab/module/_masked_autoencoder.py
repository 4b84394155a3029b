"""Masked autoencoder: a network that reconstructs hidden genes from the visible ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import Generator, Tensor

from scvi_sctab.nn import masked_mean, normalize_counts

if TYPE_CHECKING:
    from torch import nn

    from scvi_sctab._types import Encoder
    from scvi_sctab.module._likelihoods import GaussianLikelihood, NegativeBinomialLikelihood
    from scvi_sctab.nn import HiddenGenes
    from scvi_sctab.sparse import CSR

    Cells = Tensor | CSR


class MaskedAutoencoderModule(BaseModuleClass):  # type: ignore[misc]
    r"""Masked autoencoder of raw counts :cite:p:`Richter24`.

    With :math:`x` the log-normalised expression of a cell, :math:`m_g = 1` if gene :math:`g` is
    scored, :math:`\tilde x` the visible expression, :math:`f` the encoder, :math:`h` the decoder
    and :math:`\ell` the error of an entry,

    .. math:: L = \frac{\sum_{ig} m_{ig}\, \ell\big(h(f(\tilde x_i))_g,\, x_{ig}\big)}
                       {\sum_{ig} m_{ig}}.

    NOTE[DIFF] The published loss divides by the number of all entries, hidden or not, so that it
    decreases with the share of hidden genes.

    Parameters
    ----------
    encoder
        Encoder of log-normalised expression.
    decoder
        Decoder that reads an embedding and, as ``genes``, the positions of the genes to decode.
    mask
        One of the masks of :mod:`scvi_sctab.nn`, which chooses visible and scored entries.
    likelihood
        Likelihood that scores the output of the decoder.

    Notes
    -----
    - input: raw counts ``(n_cells, n_genes)`` over the model's genes, dense or sparse.
    - output: output of the decoder for the targets, ``(n_cells, n_targets)``.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: nn.Module,
        mask: nn.Module,
        likelihood: GaussianLikelihood | NegativeBinomialLikelihood,
    ):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.mask, self.likelihood = mask, likelihood

    def _get_inference_input(
        self,
        tensors: dict[str, Tensor],
        generator: Generator | None = None,
        mask: nn.Module | None = None,
    ) -> dict[str, Any]:
        """Normalise counts and hide genes, by the mask of the module or by ``mask``."""
        counts = tensors[REGISTRY_KEYS.X_KEY]
        x, hidden = (mask or self.mask)(normalize_counts(counts), generator)
        return {"x": x, "hidden": hidden}

    @auto_move_data
    def inference(self, x: Cells, hidden: HiddenGenes) -> dict[str, Any]:
        """Embed the visible expression."""
        return {"z": self.encoder(x).embedding, "hidden": hidden}

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Any]
    ) -> dict[str, Any]:
        return {"z": inference_outputs["z"], "genes": inference_outputs["hidden"].genes}

    @auto_move_data
    def generative(self, z: Tensor, genes: Tensor) -> dict[str, Tensor]:
        """Decode the targets, or all genes if the likelihood normalises over genes."""
        return {
            "output": self.decoder(z, genes=None if self.likelihood.needs_all_genes else genes)
        }

    def error(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Compute the error of each entry, 0 if it is not scored, and whether it is scored.

        Both are ``(n_cells, n_targets)``.
        """
        asked = inference_outputs["hidden"].entries
        error = self._error(tensors, inference_outputs, generative_outputs)
        return error.masked_fill(~asked, 0), asked

    def _error(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Tensor],
    ) -> Tensor:
        counts = tensors[REGISTRY_KEYS.X_KEY]
        if self.likelihood.needs_all_genes and counts.layout is not torch.strided:
            counts = counts.to_dense()
        return self.likelihood.error(
            generative_outputs["output"], inference_outputs["hidden"], counts
        )

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Tensor],
    ) -> LossOutput:
        """Compute the mean error over the scored entries."""
        asked = inference_outputs["hidden"].entries
        error = self._error(tensors, inference_outputs, generative_outputs)
        return LossOutput(loss=masked_mean(error, asked), n_obs_minibatch=len(asked))

    def embed(self, tensors: dict[str, Tensor]) -> Tensor:
        """Embed cells without hidden genes, ``(n_cells, n_latent)``."""
        return self.encoder(normalize_counts(tensors[REGISTRY_KEYS.X_KEY])).embedding

    def reconstruct(self, tensors: dict[str, Tensor]) -> Tensor:
        """Reconstruct log-normalised expression without hidden genes, ``(n_cells, n_genes)``."""
        return self.likelihood.expression(self.decoder(self.embed(tensors)))

    def sample(self, *args: object, **kwargs: object) -> None:
        """Raise an error: sampling is not defined for a masked autoencoder."""
        raise NotImplementedError("A masked autoencoder does not generate cells.")
