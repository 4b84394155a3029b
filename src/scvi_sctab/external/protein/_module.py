"""Surface proteins from genes."""

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
    over the cells to train on,

    .. math:: \hat y = \tfrac12 \big(W (x - m) / s + c\big) + \tfrac12 h(z(x)) + b,

    where the linear path, from centred expression of total variance 1, may be missing. Each path learns the whole task by a
    squared error of its own, over what was measured.

    Parameters
    ----------
    encoder
        Embeds log-normalised expression.
    n_genes, n_proteins
        Number of genes, and of proteins.
    n_hidden
        Width of the hidden layer of the head.
    n_categories
        Number of batches, if they are told. They shift proteins, not the embedding: staining and
        depth scale counts, which shifts their logarithm.
    batch_dropout
        Share of cells in training whose batch is withheld.
    freeze_encoder
        Whether the encoder stays as it is, dropout included.
    linear_path
        Whether a linear path leads from genes to proteins, beside the encoder.

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
        """Say what proteins and genes are like in the cells to train on.

        Parameters
        ----------
        proteins
            Mean and standard deviation of log counts, ``(n_proteins,)``.
        genes
            Mean of log-normalised expression ``(n_genes,)``, and the root of its total variance.
        """
        for buffer, value in zip(
            (self.mean, self.std, self.gene_mean, self.gene_scale),
            (*proteins, *genes),
            strict=True,
        ):
            buffer.copy_(value)

    def train(self, mode: bool = True) -> ProteinModule:
        """Keep a frozen encoder in evaluation."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    @property
    def linear_parts(self) -> list[nn.Module]:
        """Linear path and shifts of batches, which learn at a speed of their own."""
        return [part for part in (self.linear_path, self.batch_shift) if part is not None]

    def _get_inference_input(
        self, tensors: dict[str, Tensor], generator: Generator | None = None
    ) -> dict[str, Any]:
        """Normalise counts; nothing is drawn from ``generator``."""
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
        """Tell standardised proteins, by each path; without ``conditions`` no batch is known."""
        paths = [self.head(z)]
        if self.linear_path is not None:
            weight, bias = self.linear_path.weight, self.linear_path.bias
            # Centred by its product with the mean, so that sparse cells stay sparse.
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
        """Squared error of each path, mean over what was measured."""
        target = (tensors[REGISTRY_KEYS.PROTEIN_EXP_KEY] - self.mean) / self.std
        measured = ~target.isnan()
        target = target.nan_to_num()
        n_measured = measured.sum().clamp(min=1)

        def error(output: Tensor) -> Tensor:
            return ((output - target).square() * measured).sum() / n_measured

        # What is learnt is the sum; what held-out cells are judged by, what is predicted.
        predicted = error(generative_outputs["proteins"])
        loss = sum(map(error, generative_outputs["paths"])) if self.training else predicted
        return LossOutput(loss=loss, n_obs_minibatch=len(target))

    def embed(self, tensors: dict[str, Tensor]) -> Tensor:
        """Embed cells, ``(n_cells, n_latent)``."""
        return self.encoder(normalize_counts(tensors[REGISTRY_KEYS.X_KEY])).embedding

    def predict(self, tensors: dict[str, Tensor]) -> Tensor:
        """Log counts of proteins, ``(n_cells, n_proteins)``."""
        *_, outputs = self(tensors, compute_loss=False)
        return outputs["proteins"] * self.std + self.mean

    def sample(self, *args: object, **kwargs: object) -> None:
        """Not defined: proteins are predicted by their mean."""
        raise NotImplementedError("A protein predictor does not generate cells.")
