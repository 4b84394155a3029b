"""Module that predicts surface proteins from counts of genes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import Generator, Tensor, nn

from scvi_sctab._constants import CONDITIONS_KEY
from scvi_sctab.nn import BatchEmbedding, GeneLinear, normalize_counts

if TYPE_CHECKING:
    from scvi_sctab._types import Encoder
    from scvi_sctab.sparse import CSR

    Cells = Tensor | CSR


class ProteinModule(BaseModuleClass):  # type: ignore[misc]
    r"""Log counts of proteins from raw counts of genes.

    With :math:`x` the log-normalised expression of a cell, :math:`z` its embedding, :math:`h` the
    head, :math:`b` the shift of its batch and :math:`y` the log counts of proteins, standardised
    over the training cells,

    .. math:: \hat y = \tfrac12 \big(W (x - m) / s + c\big) + \tfrac12 h(z(x)) + b,

    where the linear path, whose input is centred with a total variance of 1, is optional. Each
    path is trained by its own squared error over the measured entries.

    Parameters
    ----------
    encoder
        Encoder of log-normalised expression.
    n_genes, n_proteins
        Number of genes, and of proteins.
    n_hidden
        Width of the hidden layer of the head.
    n_categories
        Number of batches, if the module is conditioned on them. They shift proteins, not the
        embedding: staining and sequencing depth scale counts, which shifts their logarithm.
    batch_dropout
        Share of cells in training whose batch is treated as unknown.
    freeze_encoder
        Whether the encoder is frozen, including its dropout.
    linear_path
        Whether there is a linear path from genes to proteins beside the encoder.

    Notes
    -----
    - input: raw counts ``(n_cells, n_genes)``, dense or sparse; codes of batches ``(n_cells, 1)``,
      -1 where unknown; ``proteins``, log counts ``(n_cells, n_proteins)``, NaN where missing.
    - output: standardised log counts, ``(n_cells, n_proteins)``.
    """

    needs_batch = False

    def __init__(
        self,
        encoder: Encoder,
        n_genes: int,
        n_proteins: int,
        *,
        n_hidden: int,
        n_categories: Sequence[int] = (),
        batch_dropout: float = 0.5,
        freeze_encoder: bool = False,
        linear_path: bool = True,
    ):
        super().__init__()
        self.encoder, self.freeze_encoder = encoder, freeze_encoder
        if freeze_encoder:
            encoder.requires_grad_(False)
        self.head = nn.Sequential(
            nn.SELU(),
            nn.Linear(encoder.n_output, n_hidden),
            nn.SELU(),
            nn.Linear(n_hidden, n_proteins),
        )
        self.linear_path = GeneLinear(n_genes, n_proteins) if linear_path else None
        if self.linear_path is not None:
            nn.init.zeros_(self.linear_path.weight)
            nn.init.zeros_(self.linear_path.bias)
        self.batch_shift = (
            BatchEmbedding(n_categories, n_proteins, batch_dropout) if n_categories else None
        )
        self.register_buffer("mean", torch.zeros(n_proteins))
        self.register_buffer("std", torch.ones(n_proteins))
        self.register_buffer("gene_mean", torch.zeros(n_genes))
        self.register_buffer("gene_scale", torch.ones(()))

    def standardize(self, proteins: tuple[Tensor, Tensor], genes: tuple[Tensor, Tensor]) -> None:
        """Set the moments of proteins and genes in the training cells.

        Parameters
        ----------
        proteins
            Mean and standard deviation of log counts, ``(n_proteins,)``.
        genes
            Mean of log-normalised expression ``(n_genes,)``, and the square root of its total
            variance.
        """
        for buffer, value in zip(
            (self.mean, self.std, self.gene_mean, self.gene_scale),
            (*proteins, *genes),
            strict=True,
        ):
            buffer.copy_(value)

    def train(self, mode: bool = True) -> ProteinModule:
        """Set training mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    @property
    def linear_parts(self) -> list[nn.Module]:
        """Linear path and shifts of batches, which have their own optimiser."""
        return [part for part in (self.linear_path, self.batch_shift) if part is not None]

    def _get_inference_input(
        self, tensors: dict[str, Tensor], generator: Generator | None = None
    ) -> dict[str, Any]:
        """Normalise counts; ``generator`` is not used."""
        return {"x": normalize_counts(tensors[REGISTRY_KEYS.X_KEY])}

    @auto_move_data
    def inference(self, x: Cells) -> dict[str, Any]:
        """Embed log-normalised expression."""
        return {"x": x, "z": self.encoder(x).embedding}

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Any]
    ) -> dict[str, Any]:
        return {**inference_outputs, "conditions": tensors.get(CONDITIONS_KEY)}

    @auto_move_data
    def generative(self, x: Cells, z: Tensor, conditions: Tensor | None = None) -> dict[str, Any]:
        """Predict standardised proteins by each path; batches may be unknown."""
        paths = [self.head(z)]
        if self.linear_path is not None:
            weight, bias = self.linear_path.weight, self.linear_path.bias
            # Centred after the product, so that sparse cells stay sparse.
            product = self.linear_path(x) - bias - weight @ self.gene_mean
            paths.append(product / self.gene_scale + bias)
        if self.batch_shift is not None and conditions is not None:
            shift = self.batch_shift(conditions)
            paths = [path + shift for path in paths]
        return {"proteins": torch.stack(paths).mean(dim=0), "paths": paths}

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Any],
    ) -> LossOutput:
        """Compute the squared error of each path, mean over the measured entries."""
        target = (tensors[REGISTRY_KEYS.PROTEIN_EXP_KEY] - self.mean) / self.std
        measured = ~target.isnan()
        target = target.nan_to_num()
        n_measured = measured.sum().clamp(min=1)

        def error(output: Tensor) -> Tensor:
            return ((output - target).square() * measured).sum() / n_measured

        # Training minimises the sum over paths; validation scores the prediction, their mean.
        predicted = error(generative_outputs["proteins"])
        loss = sum(map(error, generative_outputs["paths"])) if self.training else predicted
        return LossOutput(loss=loss, n_obs_minibatch=len(target))

    def embed(self, tensors: dict[str, Tensor]) -> Tensor:
        """Embed cells, ``(n_cells, n_latent)``."""
        return self.encoder(normalize_counts(tensors[REGISTRY_KEYS.X_KEY])).embedding

    def predict(self, tensors: dict[str, Tensor]) -> Tensor:
        """Predict log counts of proteins, ``(n_cells, n_proteins)``."""
        *_, outputs = self(tensors, compute_loss=False)
        return outputs["proteins"] * self.std + self.mean

    def sample(self, *args: object, **kwargs: object) -> None:
        """Raise an error: sampling is not defined for a predictor."""
        raise NotImplementedError("A protein predictor does not generate cells.")
