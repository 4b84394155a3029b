"""Latent space of a variational autoencoder of scvi-tools, as the input of a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from scvi import REGISTRY_KEYS
from scvi.module import VAE
from torch import Tensor, nn

from scvi_sctab.nn import NewEntries, append_entries


class VAELatentSpace(nn.Module):
    """Latent space of an SCVI or a SCANVI :cite:p:`Lopez18,Xu21`.

    Parameters
    ----------
    arguments
        Arguments of :class:`scvi.module.VAE`, without the numbers of categories.
    n_categories
        Number of categories of the batch, if there is one, and of each other covariate.
    has_batch
        Whether the first of them is the batch.
    frozen
        Whether the autoencoder is frozen.

    Notes
    -----
    - input: raw counts ``(n_cells, n_genes)``, codes ``(n_cells, len(n_categories))``.
    - output: latent representation ``(n_cells, n_latent)``, a sample in training, else the mean;
      and the negative evidence lower bound per cell and gene ``()``, 0 if it is not trained.
    - NOTE[DIFF] Only the autoencoder of a SCANVI is used, without its classifier and without its
      prior that depends on the label.
    """

    def __init__(
        self,
        arguments: Mapping[str, Any],
        n_categories: Sequence[int],
        *,
        has_batch: bool,
        frozen: bool,
    ):
        super().__init__()
        n_batch, covariates = n_categories[:has_batch], n_categories[has_batch:]
        self.vae = VAE(
            **arguments, n_batch=sum(n_batch) or 1, n_cats_per_cov=list(covariates) or None
        )
        self.n_categories = list(n_categories)
        self.has_batch, self.frozen = has_batch, frozen
        self.vae.requires_grad_(not frozen)

    @property
    def n_output(self) -> int:
        """Width of the latent space."""
        return self.vae.n_latent

    @property
    def needs_batch(self) -> bool:
        """Whether the latent representation depends on the batch, which then must be known."""
        return self.vae.encode_covariates

    def train(self, mode: bool = True) -> VAELatentSpace:
        """Set training mode; a frozen autoencoder stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, counts: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Embed cells."""
        tensors = self._tensors(counts, conditions)
        outputs = self.vae.inference(**self.vae._get_inference_input(tensors))
        if self.frozen or not torch.is_grad_enabled():
            latent = self.vae.z_encoder.z_transformation(outputs["qz"].loc)
            return latent, latent.new_zeros(())
        generated = self.vae.generative(**self.vae._get_generative_input(tensors, outputs))
        loss = self.vae.loss(tensors, outputs, generated).loss
        return outputs["z"], loss / self.vae.n_input

    def grow(
        self, name: str, old: Tensor, new: Tensor, n_categories: Sequence[int]
    ) -> tuple[Tensor, NewEntries]:
        """Append new categories to a tensor of a smaller autoencoder, at the mean of the old ones.

        Parameters
        ----------
        name
            Name of the tensor.
        old
            Tensor of the smaller autoencoder.
        new
            Tensor of this autoencoder.
        n_categories
            Numbers of categories of the smaller autoencoder.
        """
        if old.shape[0] != new.shape[0]:
            return append_entries(old, len(new))
        if name.endswith("px_r"):
            return append_entries(old, new.shape[1], dim=1)
        fields = list(zip(n_categories, self.n_categories, strict=True))
        if self.has_batch and self.vae.batch_representation == "embedding":
            fields = fields[1:]
        # In scvi-tools a field with one category has no column.
        n_columns = sum(before for before, _ in fields if before > 1)
        blocks = [old[:, : old.shape[1] - n_columns]]
        start = position = blocks[0].shape[1]
        positions: list[int] = []
        for before, after in fields:
            if after < 2:
                continue
            known = old[:, start : start + before] if before > 1 else old.new_zeros(len(old), 1)
            start += before if before > 1 else 0
            block, entries = append_entries(known, after, dim=1)
            blocks.append(block)
            positions += [position + column for column in entries.positions]
            position += after
        return torch.cat(blocks, dim=1), NewEntries(1, positions)

    def _tensors(self, counts: Tensor, conditions: Tensor) -> dict[str, Tensor]:
        """Name the inputs of the autoencoder; its encoder ignores the batch if not needed."""
        counts = counts.to_dense() if counts.layout != torch.strided else counts
        codes = conditions.clamp(min=0)
        batch = codes[:, :1] if self.has_batch else codes.new_zeros((len(counts), 1))
        tensors = {
            REGISTRY_KEYS.X_KEY: counts,
            REGISTRY_KEYS.BATCH_KEY: batch,
            REGISTRY_KEYS.LABELS_KEY: torch.zeros_like(batch),
        }
        covariates = codes[:, int(self.has_batch) :]
        if covariates.shape[1]:
            tensors[REGISTRY_KEYS.CAT_COVS_KEY] = covariates
        return tensors
