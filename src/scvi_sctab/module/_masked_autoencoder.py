"""Hide genes, embed what is left, say what was hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import LossOutput
from torch import Generator, Tensor

from scvi_sctab.module._host import HostModule, auto_move_data
from scvi_sctab.nn import masked_mean, normalize_counts

if TYPE_CHECKING:
    from torch import nn

    from scvi_sctab.module._likelihoods import GaussianLikelihood, NegativeBinomialLikelihood
    from scvi_sctab.nn import Encoder, HiddenGenes
    from scvi_sctab.sparse import CSR

    Cells = Tensor | CSR


class MaskedAutoencoderModule(HostModule):
    r"""A masked autoencoder of raw counts :cite:p:`Richter24`.

    With :math:`x` the log-normalised expression of a cell, :math:`m_g = 1` where gene :math:`g`
    is asked for, :math:`\tilde x` what is left to see, :math:`f` encoder, :math:`h` decoder and
    :math:`\ell` the error of an entry,

    .. math:: L = \frac{\sum_{ig} m_{ig}\, \ell\big(h(f(\tilde x_i))_g,\, x_{ig}\big)}
                       {\sum_{ig} m_{ig}}.

    NOTE[DIFF] The published loss divides by all entries, hidden or not, so that it falls with
    the rate of hiding.

    Parameters
    ----------
    encoder
        Embeds log-normalised expression.
    decoder
        Takes an embedding and, as ``genes``, positions of the genes to decode.
    mask
        Chooses what is seen and what is asked for; one of the masks of :mod:`scvi_sctab.nn`.
    likelihood
        Scores what the decoder returns.

    Notes
    -----
    - input: raw counts ``(n_cells, n_genes)`` over the model's genes, dense or sparse.
    - output: the decoder's, of the genes that are asked for, ``(n_cells, n_targets)``.
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
        """Normalise counts and hide some, by the module's mask or by another."""
        counts = tensors[REGISTRY_KEYS.X_KEY]
        x, hidden = (mask or self.mask)(normalize_counts(counts), generator)
        return {"x": x, "hidden": hidden}

    @auto_move_data
    def inference(self, x: Cells, hidden: HiddenGenes) -> dict[str, Any]:
        """Embed what is left to see."""
        return {"z": self.encoder(x).embedding, "hidden": hidden}

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Any]
    ) -> dict[str, Any]:
        return {"z": inference_outputs["z"], "genes": inference_outputs["hidden"].genes}

    @auto_move_data
    def generative(self, z: Tensor, genes: Tensor) -> dict[str, Tensor]:
        """Decode the genes that are asked for, or all where they depend on each other."""
        return {
            "output": self.decoder(z, genes=None if self.likelihood.needs_all_genes else genes)
        }

    def error(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Error of each entry, 0 where it was not asked for, and whether it was.

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
        """Mean error over what was asked for."""
        asked = inference_outputs["hidden"].entries
        error = self._error(tensors, inference_outputs, generative_outputs)
        return LossOutput(loss=masked_mean(error, asked), n_obs_minibatch=len(asked))

    def embed(self, tensors: dict[str, Tensor]) -> Tensor:
        """Embed cells with nothing hidden, ``(n_cells, n_latent)``."""
        return self.encoder(normalize_counts(tensors[REGISTRY_KEYS.X_KEY])).embedding

    def reconstruct(self, tensors: dict[str, Tensor]) -> Tensor:
        """Log-normalised expression of cells with nothing hidden, ``(n_cells, n_genes)``."""
        return self.likelihood.expression(self.decoder(self.embed(tensors)))

    def sample(self, *args: object, **kwargs: object) -> None:
        """Not defined for a masked autoencoder."""
        raise NotImplementedError("A masked autoencoder does not generate cells.")
